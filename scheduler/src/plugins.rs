//! The plugins: every filter in upstream's default order, every score with upstream's default weight
//! (`apis/config/v1.getDefaultPlugins`).

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_ports;
mod node_resources;
mod node_spec;
mod pod_topology_spread;
mod taint_toleration;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::objects::{Node, Pod};
use crate::verdict::Refusal;

/// Highest score a plugin gives a node (`framework.MaxNodeScore`).
pub const SCORE_MAX: i64 = 100;

/// Who refused a node. Names as in upstream's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    PodTopologySpread,
    InterPodAffinity,
}

/// What is computed once per decision.
pub struct Context<'a> {
    pub pod: &'a Pod,
    affinity: inter_pod_affinity::State,
    spread: pod_topology_spread::State<'a>,
    images: image_locality::State<'a>,
}

impl<'a> Context<'a> {
    pub fn new(pod: &'a Pod, cluster: &'a Cluster) -> Self {
        Self {
            pod,
            affinity: inter_pod_affinity::State::new(pod, cluster),
            spread: pod_topology_spread::State::new(pod, cluster),
            images: image_locality::State::new(pod, cluster),
        }
    }
}

/// Whether the pod may run on the node: the first refusal ends the search, as upstream's `RunFilterPlugins`.
pub fn filter(context: &Context<'_>, node: &Arc<Node>, info: &NodeInfo) -> Result<(), Refusal> {
    let pod = context.pod;
    node_spec::unschedulable(pod, node)?;
    taint_toleration::filter(pod, node)?;
    node_affinity::filter(pod, node)?;
    node_ports::filter(pod, info)?;
    node_resources::filter(pod, node, info)?;
    pod_topology_spread::filter(&context.spread, node)?;
    inter_pod_affinity::filter(&context.affinity, node)
}

/// Weighted sums of all scores, one per node of `nodes`.
pub fn scores(context: &Context<'_>, nodes: &[(&Arc<Node>, &NodeInfo)]) -> Vec<i64> {
    let mut sums = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += weight * score;
        }
    };
    let each = |score: &dyn Fn(&Arc<Node>, &NodeInfo) -> i64| nodes.iter().map(|(n, i)| score(n, i)).collect();
    let pod = context.pod;
    add(3, normalized(each(&|node, _| taint_toleration::intolerable(pod, node)), true));
    add(2, normalized(each(&|node, _| node_affinity::preference(pod, node)), false));
    add(2, pod_topology_spread::scores(&context.spread, nodes));
    add(2, inter_pod_affinity::scores(&context.affinity, nodes));
    add(1, each(&|node, info| node_resources::least_allocated(pod, node, info)));
    add(1, each(&|node, info| node_resources::balanced(pod, node, info)));
    add(1, each(&|node, _| image_locality::score(&context.images, node)));
    sums
}

/// Scales scores to 0..=100 by the largest, turned around where less is better (`helper.DefaultNormalizeScore`).
fn normalized(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in &mut scores {
        *score = match (max, reverse) {
            (0, true) => SCORE_MAX,
            (0, false) => 0,
            (_, true) => SCORE_MAX - *score * SCORE_MAX / max,
            (_, false) => *score * SCORE_MAX / max,
        };
    }
    scores
}

fn refuse(plugin: Plugin, reason: &str) -> Result<(), Refusal> {
    Err(Refusal { plugin, reasons: vec![reason.to_owned()] })
}

#[cfg(test)]
mod tests;
