//! A node with the running sums of what its pods take, so that one decision does not count pods.

use std::sync::Arc;

use crate::objects::{HostPort, Node, Pod};
use crate::resources::Resources;

/// Index of a node in the cluster's picture; given anew once the node is gone.
pub type Slot = u32;

/// Upstream's `framework.NodeInfo`.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub slot: Slot,
    /// Absent while pods name a node that is not (or no longer) there.
    pub node: Option<Arc<Node>>,
    /// Assumed pods included.
    pub pods: Vec<Arc<Pod>>,
    pub requested: Resources,
    pub requested_non_zero: Resources,
    pub host_ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn add(&mut self, pod: &Arc<Pod>) {
        self.pods.push(Arc::clone(pod));
        self.requested.add(&pod.request.exact);
        self.requested_non_zero.add(&pod.request.non_zero);
        self.host_ports.extend(pod.host_ports.iter().cloned());
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let index = self.pods.iter().position(|p| p.metadata.uid == uid)?;
        let pod = self.pods.swap_remove(index);
        self.requested.subtract(&pod.request.exact);
        self.requested_non_zero.subtract(&pod.request.non_zero);
        for port in &pod.host_ports {
            if let Some(index) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(index);
            }
        }
        Some(pod)
    }
}
