//! VolumeZone: a volume's zone and region labels are those of its nodes.

use std::collections::BTreeSet;

use super::{Plugin, refuse_for_good};
use crate::cluster::Storage;
use crate::objects::{Node, Pod};
use crate::verdict::{Rejection, Verdict};

/// Labels of volumes that count, the older ones with what took their place on nodes.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Between the zones of a volume that has several.
const SEPARATOR: &str = "__";

/// What nodes must have.
#[derive(Clone, Default)]
pub struct State {
    /// Label of the volume, label of nodes, values.
    topologies: Vec<(&'static str, &'static str, BTreeSet<String>)>,
}

impl State {
    pub fn new(pod: &Pod, storage: &Storage) -> Result<Self, Rejection> {
        let mut state = Self::default();
        let claims = pod.volume_claims().filter_map(|name| storage.claim(&pod.metadata.namespace, name));
        for claim in claims.filter(|c| !c.volume_name.is_empty()) {
            let Some(volume) = storage.volume(&claim.volume_name) else {
                let message = format!("persistentvolume {:?} not found", claim.volume_name);
                return Err(Rejection { plugin: Plugin::VolumeZone, message });
            };
            for (label, on_nodes) in LABELS {
                if let Some(value) = volume.metadata.labels.get(label) {
                    let values = value.split(SEPARATOR).map(|v| v.trim().to_owned()).collect();
                    state.topologies.push((label, on_nodes, values));
                }
            }
        }
        Ok(state)
    }
}

pub fn filter(state: &State, node: &Node) -> Verdict {
    let labels = &node.metadata.labels;
    // A node without any zone is in a cluster of one zone.
    if state.topologies.is_empty() || !LABELS.iter().any(|(label, _)| labels.contains_key(*label)) {
        return Ok(());
    }
    let fits = |(label, on_nodes, values): &(&str, &str, BTreeSet<String>)| {
        labels.get(*label).or_else(|| labels.get(*on_nodes)).is_some_and(|value| values.contains(value))
    };
    if state.topologies.iter().all(fits) {
        return Ok(());
    }
    refuse_for_good(Plugin::VolumeZone, "node(s) had no available volume zone")
}
