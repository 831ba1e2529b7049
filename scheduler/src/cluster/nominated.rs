//! Pods that wait for their victims to go, and the nodes they wait for: others leave that room to them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::objects::Pod;

#[derive(Clone, Debug, Default)]
pub struct Nominated {
    by_node: HashMap<String, Vec<Arc<Pod>>>,
    /// Node by pod uid.
    nodes: HashMap<String, String>,
}

impl Nominated {
    pub fn add(&mut self, pod: &Arc<Pod>, node: &str) {
        self.remove(&pod.metadata.uid);
        self.by_node.entry(node.to_owned()).or_default().push(Arc::clone(pod));
        self.nodes.insert(pod.metadata.uid.clone(), node.to_owned());
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.nodes.remove(uid) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|p| p.metadata.uid != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.values().flatten()
    }

    pub fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.nodes.get(uid).map(String::as_str)
    }

    /// A waiting pod as the watch shows it. Neither `old` nor `new` naming a node leaves a nomination that is on its
    /// way to the server (`nominator.update`).
    pub fn seen(&mut self, old: Option<&Pod>, new: &Arc<Pod>) {
        if !new.nominated_node.is_empty() {
            self.add(new, &new.nominated_node);
        } else if old.is_some_and(|old| !old.nominated_node.is_empty()) {
            self.remove(&new.metadata.uid);
        } else if let Some(node) = self.nodes.get(&new.metadata.uid).cloned() {
            self.add(new, &node);
        }
    }
}
