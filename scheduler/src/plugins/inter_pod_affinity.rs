//! InterPodAffinity: pods near to, or away from, other pods; within the topology a label of the node names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodAffinityTerm;

use super::{Plugin, SCORE_MAX, refuse};
use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::objects::{Node, Pod, selects};
use crate::verdict::Refusal;

/// How much a preferred pod weighs whose own required affinity is for the incoming pod
/// (`DefaultHardPodAffinityWeight`).
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// A value of a topology label: key and value.
type Topology = (String, String);

/// Counts per topology, made once per decision by one walk over the pods.
#[derive(Default)]
pub struct State {
    /// Per required affinity term: topology key, and how many matching pods each value has.
    affinity: Vec<(String, BTreeMap<String, usize>)>,
    /// The pod would satisfy its own affinity terms, which lets the first of a group in.
    matches_itself: bool,
    /// Topologies that a pod matching the incoming pod's anti-affinity is in.
    anti_affinity: BTreeSet<Topology>,
    /// Topologies in which an existing pod's anti-affinity forbids the incoming pod.
    existing_anti_affinity: BTreeSet<Topology>,
    /// Preference per topology.
    preference: BTreeMap<Topology, i64>,
}

impl State {
    pub fn new(pod: &Pod, cluster: &Cluster) -> Self {
        let mut state = Self::default();
        let required = required_affinity(pod);
        state.affinity = required.iter().map(|t| (t.topology_key.clone(), BTreeMap::new())).collect();
        state.matches_itself = required.iter().all(|t| term_selects(t, pod, pod));
        let has_own_terms =
            pod.affinity.as_ref().is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some());
        for (node, info) in cluster.nodes() {
            // Without terms of its own, only pods with terms can matter; most nodes have none.
            let others = info.pods.values().filter(|other| has_own_terms || other.affinity.is_some());
            for other in others {
                state.count(pod, required, other, node);
            }
        }
        state
    }

    fn count(&mut self, pod: &Pod, required: &[PodAffinityTerm], other: &Pod, node: &Node) {
        let topology = |key: &str| node.metadata.labels.get(key).map(|value| (key.to_owned(), value.clone()));
        // Upstream counts a pod for the affinity terms only when it matches all of them.
        if !required.is_empty() && required.iter().all(|t| term_selects(t, pod, other)) {
            for (key, counts) in &mut self.affinity {
                if let Some(value) = node.metadata.labels.get(key) {
                    *counts.entry(value.clone()).or_default() += 1;
                }
            }
        }
        for term in required_anti_affinity(pod).iter().filter(|t| term_selects(t, pod, other)) {
            self.anti_affinity.extend(topology(&term.topology_key));
        }
        for term in required_anti_affinity(other).iter().filter(|t| term_selects(t, other, pod)) {
            self.existing_anti_affinity.extend(topology(&term.topology_key));
        }
        let mut prefer = |term: &PodAffinityTerm, weight: i64| {
            if let Some(topology) = topology(&term.topology_key) {
                *self.preference.entry(topology).or_default() += weight;
            }
        };
        for (term, weight) in preferred(pod).filter(|(t, _)| term_selects(t, pod, other)) {
            prefer(term, weight);
        }
        for (term, weight) in preferred(other).filter(|(t, _)| term_selects(t, other, pod)) {
            prefer(term, weight);
        }
        for term in required_affinity(other).iter().filter(|t| term_selects(t, other, pod)) {
            prefer(term, HARD_AFFINITY_WEIGHT);
        }
    }
}

pub fn filter(state: &State, node: &Node) -> Result<(), Refusal> {
    let labels = &node.metadata.labels;
    let present =
        |topologies: &BTreeSet<Topology>| topologies.iter().any(|(key, value)| labels.get(key) == Some(value));
    if !satisfies_affinity(state, node) {
        return refuse(Plugin::InterPodAffinity, "node(s) didn't match pod affinity rules");
    }
    if present(&state.anti_affinity) {
        return refuse(Plugin::InterPodAffinity, "node(s) didn't match pod anti-affinity rules");
    }
    if present(&state.existing_anti_affinity) {
        return refuse(Plugin::InterPodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Ok(())
}

fn satisfies_affinity(state: &State, node: &Node) -> bool {
    let mut all_counted = true;
    for (key, counts) in &state.affinity {
        let Some(value) = node.metadata.labels.get(key) else { return false };
        all_counted &= counts.contains_key(value);
    }
    // The first pod of a group that wants to be together may go anywhere, or none could ever start.
    all_counted || (state.matches_itself && state.affinity.iter().all(|(_, counts)| counts.is_empty()))
}

/// Preferences scaled to 0..=100 between the worst and the best node.
pub fn scores(state: &State, nodes: &[(&Arc<Node>, &NodeInfo)]) -> Vec<i64> {
    if state.preference.is_empty() {
        return vec![0; nodes.len()];
    }
    let sum = |node: &Node| -> i64 {
        let here = state.preference.iter().filter(|((key, value), _)| node.metadata.labels.get(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    };
    let sums: Vec<i64> = nodes.iter().map(|(node, _)| sum(node)).collect();
    let min = sums.iter().copied().min().unwrap_or_default();
    let max = sums.iter().copied().max().unwrap_or_default();
    sums.into_iter().map(|s| if max == min { 0 } else { SCORE_MAX * (s - min) / (max - min) }).collect()
}

/// Whether `term`, of `owner`, selects `pod`. Without namespaces it means the owner's own.
fn term_selects(term: &PodAffinityTerm, owner: &Pod, pod: &Pod) -> bool {
    let names = term.namespaces.as_deref().unwrap_or_default();
    // An empty namespace selector selects all namespaces. One with requirements would need the namespaces' labels,
    // which are not held here: it selects none.
    let all =
        term.namespace_selector.as_ref().is_some_and(|s| s.match_labels.is_none() && s.match_expressions.is_none());
    let namespace = &pod.metadata.namespace;
    let own = names.is_empty() && term.namespace_selector.is_none() && *namespace == owner.metadata.namespace;
    (all || own || names.contains(namespace)) && selects(term.label_selector.as_ref(), &pod.metadata.labels)
}

fn required_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn required_anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

/// Preferred terms with their weights; those of anti-affinity count against.
fn preferred(pod: &Pod) -> impl Iterator<Item = (&PodAffinityTerm, i64)> {
    let near = pod.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref());
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    let away = pod.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    let away = away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    let near = near.iter().map(|w| (&w.pod_affinity_term, i64::from(w.weight)));
    near.chain(away.iter().map(|w| (&w.pod_affinity_term, -i64::from(w.weight))))
}
