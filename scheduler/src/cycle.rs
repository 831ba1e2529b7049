//! One decision: filter, score, choose. Pure: the only chance in it is the number given for ties.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::objects::{Node, Pod};
use crate::plugins::{self, Context};
pub use crate::verdict::{FitError, Refusal};

/// The node for `pod`, or why there is none. `tie` picks among the best nodes: any number.
pub fn schedule(pod: &Pod, cluster: &Cluster, tie: usize) -> Result<Arc<Node>, FitError> {
    let context = Context::new(pod, cluster);
    let mut error = FitError::default();
    let mut feasible: Vec<(&Arc<Node>, &NodeInfo)> = Vec::new();
    for (node, info) in cluster.nodes() {
        error.nodes += 1;
        match plugins::filter(&context, node, info) {
            Ok(()) => feasible.push((node, info)),
            Err(refusal) => error.count(refusal),
        }
    }
    match feasible.as_slice() {
        [] => Err(error),
        [(only, _)] => Ok(Arc::clone(only)),
        several => {
            let scores = plugins::scores(&context, several);
            let best = scores.iter().copied().max().unwrap_or_default();
            let winners: Vec<_> = several.iter().zip(&scores).filter(|(_, score)| **score == best).collect();
            let ((node, _), _) = winners[tie % winners.len()];
            Ok(Arc::clone(node))
        }
    }
}
