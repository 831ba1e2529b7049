//! PodTopologySpread: pods evenly over the values of a node label. Pods that say nothing are spread over nodes and
//! zones by the built-in defaults, softly.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::{Plugin, SCORE_MAX, node_affinity, refuse, taint_toleration};
use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::objects::{Node, Pod, selects};
use crate::verdict::Refusal;

/// Upstream's system defaults (`systemDefaultConstraints`): topology key and maximal skew.
const DEFAULTS: &[(&str, i64)] = &[("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// One constraint with the pods it counts, per value of its topology key.
struct Counted {
    topology_key: String,
    max_skew: i64,
    min_domains: i64,
    is_hard: bool,
    /// The pod itself counts once it is placed.
    counts_itself: bool,
    counts: BTreeMap<String, i64>,
}

pub struct State<'a> {
    pod: &'a Pod,
    constraints: Vec<Counted>,
}

impl<'a> State<'a> {
    pub fn new(pod: &'a Pod, cluster: &Cluster) -> Self {
        let mut constraints: Vec<Counted> = pod.spread.iter().map(|c| declared(pod, c, cluster)).collect();
        if constraints.is_empty() {
            constraints = DEFAULTS.iter().filter_map(|(key, skew)| default(pod, key, *skew, cluster)).collect();
        }
        Self { pod, constraints }
    }
}

fn declared(pod: &Pod, constraint: &TopologySpreadConstraint, cluster: &Cluster) -> Counted {
    let ignores_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore");
    let honors_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let counts_node = |node: &Node| {
        (ignores_affinity || node_affinity::matches(pod, node))
            && (!honors_taints || taint_toleration::filter(pod, node).is_ok())
    };
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    let counts_pod = |other: &Pod| {
        other.metadata.namespace == pod.metadata.namespace
            && !other.metadata.is_deleting()
            && selects(constraint.label_selector.as_ref(), &other.metadata.labels)
            && keys.iter().all(|k| {
                let own = pod.metadata.labels.get(k);
                own.is_none() || other.metadata.labels.get(k) == own
            })
    };
    Counted {
        topology_key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        is_hard: constraint.when_unsatisfiable == "DoNotSchedule",
        counts_itself: selects(constraint.label_selector.as_ref(), &pod.metadata.labels),
        counts: count(cluster, &constraint.topology_key, counts_node, counts_pod),
    }
}

/// The default constraint counts the pods of the same controller. Upstream builds a selector from the Services and
/// controllers that select the pod; the controller's uid finds the same pods without holding those objects.
fn default(pod: &Pod, key: &str, max_skew: i64, cluster: &Cluster) -> Option<Counted> {
    let controller = &pod.metadata.controller()?.uid;
    let same = |other: &Pod| {
        !other.metadata.is_deleting() && other.metadata.controller().is_some_and(|c| c.uid == *controller)
    };
    Some(Counted {
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        is_hard: false,
        counts_itself: true,
        counts: count(cluster, key, |_| true, same),
    })
}

fn count(
    cluster: &Cluster,
    key: &str,
    counts_node: impl Fn(&Node) -> bool,
    counts_pod: impl Fn(&Pod) -> bool,
) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (node, info) in cluster.nodes().filter(|(node, _)| counts_node(node)) {
        if let Some(value) = node.metadata.labels.get(key) {
            let here = info.pods.values().filter(|p| counts_pod(p)).count() as i64;
            *counts.entry(value.clone()).or_default() += here;
        }
    }
    counts
}

pub fn filter(state: &State<'_>, node: &Node) -> Result<(), Refusal> {
    for constraint in state.constraints.iter().filter(|c| c.is_hard) {
        let Some(value) = node.metadata.labels.get(&constraint.topology_key) else {
            return refuse(
                Plugin::PodTopologySpread,
                "node(s) didn't match pod topology spread constraints (missing required label)",
            );
        };
        let here = constraint.counts.get(value).copied().unwrap_or_default();
        // With fewer domains than asked for, the emptiest one counts as empty.
        let few = (constraint.counts.len() as i64) < constraint.min_domains;
        let least = if few { 0 } else { constraint.counts.values().copied().min().unwrap_or_default() };
        if here + i64::from(constraint.counts_itself) - least > constraint.max_skew {
            return refuse(Plugin::PodTopologySpread, "node(s) didn't match pod topology spread constraints");
        }
    }
    Ok(())
}

/// The fewer matching pods in a node's topologies, the higher; topologies with many values weigh more, as one pod
/// more or less means more there (`topologyNormalizingWeight`).
pub fn scores(state: &State<'_>, nodes: &[(&Arc<Node>, &NodeInfo)]) -> Vec<i64> {
    let soft: Vec<&Counted> = state.constraints.iter().filter(|c| !c.is_hard).collect();
    let explicit = !state.pod.spread.is_empty();
    let raw: Vec<Option<i64>> = nodes.iter().map(|(node, _)| cost(&soft, node, explicit)).collect();
    let known = || raw.iter().flatten().copied();
    let (Some(min), Some(max)) = (known().min(), known().max()) else { return vec![0; nodes.len()] };
    let scaled = |cost: i64| if max == 0 { SCORE_MAX } else { SCORE_MAX * (max + min - cost) / max };
    raw.into_iter().map(|cost| cost.map_or(0, scaled)).collect()
}

/// Absent where an explicit constraint's label is missing: such a node scores nothing.
fn cost(constraints: &[&Counted], node: &Node, explicit: bool) -> Option<i64> {
    let mut sum = 0.0;
    for constraint in constraints {
        match node.metadata.labels.get(&constraint.topology_key) {
            Some(value) => {
                let here = constraint.counts.get(value).copied().unwrap_or_default();
                let weight = (constraint.counts.len() as f64 + 2.0).ln();
                sum += here as f64 * weight + (constraint.max_skew - 1) as f64;
            }
            None if explicit => return None,
            None => {}
        }
    }
    Some(sum.round() as i64)
}
