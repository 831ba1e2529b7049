//! A node with the running sums of what its pods take, so that one decision does not count pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{HostPort, Node, Pod};
use crate::resources::Resources;

/// Upstream's `framework.NodeInfo`.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Absent while pods name a node that is not (or no longer) there.
    pub node: Option<Arc<Node>>,
    /// By uid; assumed pods included.
    pub pods: BTreeMap<String, Arc<Pod>>,
    pub requested: Resources,
    pub requested_non_zero: Resources,
    pub host_ports: Vec<HostPort>,
    /// How many of its pods have anti-affinity, which other pods have to be checked against.
    pub pods_with_anti_affinity: usize,
}

impl NodeInfo {
    pub fn add(&mut self, pod: &Arc<Pod>) {
        if self.pods.insert(pod.metadata.uid.clone(), Arc::clone(pod)).is_some() {
            return;
        }
        self.requested.add(&pod.request.exact);
        self.requested_non_zero.add(&pod.request.non_zero);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods_with_anti_affinity += usize::from(has_anti_affinity(pod));
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.subtract(&pod.request.exact);
        self.requested_non_zero.subtract(&pod.request.non_zero);
        for port in &pod.host_ports {
            if let Some(index) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(index);
            }
        }
        self.pods_with_anti_affinity -= usize::from(has_anti_affinity(&pod));
    }
}

fn has_anti_affinity(pod: &Pod) -> bool {
    let anti = pod.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    anti.is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution.as_ref().is_some_and(|terms| !terms.is_empty())
    })
}
