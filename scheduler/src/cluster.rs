//! Everything a decision looks at: nodes with their pods, kept by applying changes one by one.
//!
//! Invariant: a pod is on at most one node here. An assumed pod (decided, not yet seen bound) counts like a bound one
//! until the watch confirms it or the binding fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::NodeInfo;
use crate::objects::{Node, Pod};

#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeInfo>,
    /// Node name by pod uid.
    placed: BTreeMap<String, String>,
    /// Uids of pods that are decided but not seen bound.
    assumed: std::collections::BTreeSet<String>,
}

impl Cluster {
    /// Nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &NodeInfo)> {
        self.nodes.values().filter_map(|info| Some((info.node.as_ref()?, info)))
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let info = self.nodes.entry(node.metadata.name.clone()).or_default();
        info.node = Some(node);
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// A pod as the watch shows it. One without a node keeps its assumed place; a terminal one holds nothing.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.metadata.uid;
        if pod.is_terminal {
            self.remove_pod(uid);
        } else if !pod.node_name.is_empty() {
            self.remove_pod(uid);
            self.place(pod, &pod.node_name);
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.assumed.remove(uid);
        let Some(name) = self.placed.remove(uid) else { return };
        let Some(info) = self.nodes.get_mut(&name) else { return };
        info.remove(uid);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&name);
        }
    }

    /// Counts a decided pod on its node before the binding is written.
    pub fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        self.assumed.insert(pod.metadata.uid.clone());
        self.place(pod, node);
    }

    /// Takes an assumption back after a failed binding; a pod that was seen bound meanwhile stays.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains(uid) {
            self.remove_pod(uid);
        }
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    fn place(&mut self, pod: &Arc<Pod>, node: &str) {
        self.placed.insert(pod.metadata.uid.clone(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().add(pod);
    }
}
