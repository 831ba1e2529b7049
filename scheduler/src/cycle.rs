//! One decision: filter, score, choose. Pure: the only chance in it is the number given for ties.

use std::sync::Arc;

use crate::cluster::{Bindings, Cluster, Grant};
use crate::config::{Config, Profile};
use crate::node::{NodeInfo, Slot};
use crate::objects::{Node, Pod, ResourceClaim};
use crate::plugins::{self, Context, Plugin, State, dynamic_resources, volume_binding};
use crate::verdict::Rejection;
pub use crate::verdict::{FitError, Refusal};

/// With fewer nodes all of them are looked at (`minFeasibleNodesToFind`).
const NODES_MIN: usize = 100;
/// Lowest share of the nodes to be found fitting, in percent (`minFeasibleNodesPercentageToFind`).
const PERCENTAGE_MIN: i64 = 5;

/// Where a pod goes, and what is to be done there first.
#[derive(Clone, Debug)]
pub struct Choice {
    pub node: Arc<Node>,
    pub bindings: Bindings,
    /// Devices for claims that have none yet.
    pub grants: Vec<Grant>,
    /// Claims that have their devices, to be used by one more pod.
    pub shared_claims: Vec<Arc<ResourceClaim>>,
}

/// The nodes that fit a pod, and why others do not.
pub struct Fitting {
    pub state: State,
    pub order: Arc<[Slot]>,
    pub slots: Vec<Slot>,
    pub error: FitError,
}

/// The node for `pod`, or why there is none. `start` is where the search begins, and is moved on; `tie` picks among the
/// best nodes: any number.
pub fn schedule(
    pod: &Pod,
    config: &Config,
    profile: &Profile,
    cluster: &mut Cluster,
    start: &mut usize,
    tie: usize,
) -> Result<Choice, Failure> {
    let mut fitting = feasible(pod, config, profile, cluster, start)?;
    let context = Context { pod, profile, cluster };
    let Some(slot) = choose(&context, &fitting, &[], tie) else {
        return Err(Failure { error: std::mem::take(&mut fitting.error), state: Some(fitting.state) });
    };
    choice(&context, &fitting.state, slot)
}

/// No node fits. The state is absent when no node was looked at.
pub struct Failure {
    pub error: FitError,
    pub state: Option<State>,
}

/// `findNodesThatFitPod`.
pub fn feasible(
    pod: &Pod,
    config: &Config,
    profile: &Profile,
    cluster: &mut Cluster,
    start: &mut usize,
) -> Result<Fitting, Failure> {
    let order = cluster.order();
    let mut error = FitError { nodes: order.len(), ..FitError::default() };
    if order.is_empty() {
        return Err(Failure { error, state: None });
    }
    let state = match State::prepare(pod, profile, cluster) {
        Ok(state) => state,
        Err(Rejection { plugin, message }) => {
            error.rejection = Some(message);
            error.plugins.insert(plugin);
            return Err(Failure { error, state: None });
        }
    };
    let context = Context { pod, profile, cluster };
    let mut slots = nominated(&context, &state, &mut error);
    if slots.is_empty() {
        slots = match &state.names {
            None => {
                let wanted = nodes_to_find(config, profile, order.len());
                search(&context, &state, &order, *start, wanted, &mut error)
            }
            Some(names) => {
                let named: Vec<Slot> = names.iter().filter_map(|n| cluster.node(n)).map(|info| info.slot).collect();
                let slots = search(&context, &state, &named, 0, named.len(), &mut error);
                error.plugins.insert(Plugin::NodeAffinity);
                slots
            }
        };
        *start = (*start + slots.len() + error.looked_at.len()) % order.len();
        if slots.is_empty() && state.names.is_some() {
            error.count_rest(format!("node(s) didn't satisfy plugin(s) [{}]", Plugin::NodeAffinity.name()));
        }
    }
    Ok(Fitting { state, order, slots, error })
}

/// The node that room was made on is tried first, and taken if it fits (`evaluateNominatedNode`).
fn nominated(context: &Context<'_>, state: &State, error: &mut FitError) -> Vec<Slot> {
    let Context { pod, cluster, .. } = context;
    let node = cluster.nominated.node_of(&pod.metadata.uid).and_then(|name| cluster.node(name));
    let Some(info) = node else { return Vec::new() };
    match plugins::filter_beside_nominated(context, state, info) {
        Ok(()) => vec![info.slot],
        Err(refusal) => {
            error.count(info.slot, refusal);
            Vec::new()
        }
    }
}

/// Looks at nodes from `start` on until `wanted` of them fit.
fn search(
    context: &Context<'_>,
    state: &State,
    nodes: &[Slot],
    start: usize,
    wanted: usize,
    error: &mut FitError,
) -> Vec<Slot> {
    let mut slots = Vec::new();
    let from = if nodes.is_empty() { 0 } else { start % nodes.len() };
    for slot in nodes[from..].iter().chain(&nodes[..from]).copied() {
        match plugins::filter_beside_nominated(context, state, context.cluster.info(slot)) {
            Ok(()) => {
                slots.push(slot);
                if slots.len() >= wanted {
                    break;
                }
            }
            Err(refusal) => error.count(slot, refusal),
        }
    }
    slots
}

/// `numFeasibleNodesToFind`: in large clusters a part of the nodes is enough to choose from.
fn nodes_to_find(config: &Config, profile: &Profile, nodes: usize) -> usize {
    if nodes < NODES_MIN {
        return nodes;
    }
    if profile.scores.is_empty() {
        return 1;
    }
    let percentage = match profile.percentage_of_nodes_to_score.unwrap_or(config.percentage_of_nodes_to_score) {
        0 => (50 - nodes as i64 / 125).max(PERCENTAGE_MIN),
        given => given,
    };
    (nodes * percentage as usize / 100).max(NODES_MIN)
}

/// The best of the nodes that fit. `extra`: scores from elsewhere, by position.
pub fn choose(context: &Context<'_>, fitting: &Fitting, extra: &[i64], tie: usize) -> Option<Slot> {
    match fitting.slots.as_slice() {
        [] => None,
        [only] => Some(*only),
        several => {
            let nodes: Vec<&NodeInfo> = several.iter().map(|slot| context.cluster.info(*slot)).collect();
            let mut scores = plugins::scores(context, &fitting.state, &fitting.order, &nodes);
            scores.iter_mut().zip(extra).for_each(|(score, extra)| *score += extra);
            let best = scores.iter().copied().max().unwrap_or_default();
            let winners: Vec<Slot> =
                several.iter().zip(&scores).filter(|(_, score)| **score == best).map(|(slot, _)| *slot).collect();
            Some(winners[tie % winners.len()])
        }
    }
}

/// The choice of a node that was found fitting.
pub fn choice(context: &Context<'_>, state: &State, slot: Slot) -> Result<Choice, Failure> {
    let info = context.cluster.info(slot);
    let refused = |refusal: Refusal| {
        let mut error = FitError { nodes: 1, ..FitError::default() };
        error.count(slot, refusal);
        Failure { error, state: None }
    };
    let node = info.node.clone().expect("a node that fits exists");
    let bindings = match state.volumes.has_delayed() && context.profile.filters.contains(&Plugin::VolumeBinding) {
        true => volume_binding::bindings(&state.volumes, &context.cluster.storage, &node).map_err(refused)?,
        false => Bindings::default(),
    };
    let grants = dynamic_resources::grants(&state.devices, &context.cluster.devices, &node).map_err(refused)?;
    Ok(Choice { node, bindings, grants, shared_claims: state.devices.allocated().to_vec() })
}
