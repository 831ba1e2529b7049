//! Whether and where room is made for a pod (`Evaluator.Preempt`). Pure.

use std::sync::Arc;

use super::victims::{self, Candidate};
use crate::cycle::Failure;
use crate::objects::{Node, Pod};
use crate::plugins::Context;
use crate::verdict::FitError;

/// What preemption comes to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The pod is to wait for `node`, and `victims` are to leave it.
    Room { node: Arc<Node>, victims: Vec<Arc<Pod>> },
    /// There is nothing to be done now, with the reason. A nomination the pod has stays.
    Wait(String),
    /// It does not help on any node; a nomination is void.
    NoHelp(String),
}

/// Plans preemption after a failed decision. `offset`: where the search begins, any number.
pub fn plan(context: &Context<'_>, failure: &Failure, offset: usize) -> Outcome {
    match candidates(context, failure, offset) {
        Ok(candidates) => best(context, candidates),
        Err(outcome) => outcome,
    }
}

/// Nodes where it would help. Empty never.
pub fn candidates(context: &Context<'_>, failure: &Failure, offset: usize) -> Result<Vec<Candidate>, Outcome> {
    if let Some(message) = not_eligible(context, &failure.error) {
        return Err(Outcome::Wait(message.to_owned()));
    }
    let potential = failure.error.resolvable.as_slice();
    let args = &context.profile.args.preemption;
    let wanted = (potential.len() * args.nodes_min_percentage / 100).max(args.nodes_min).min(potential.len());
    let from = if potential.is_empty() { 0 } else { offset % potential.len() };
    let mut error = FitError { nodes: failure.error.nodes, ..FitError::default() };
    let (mut found, mut violating) = (Vec::new(), Vec::new());
    let state = failure.state.as_ref();
    for slot in potential[from..].iter().chain(&potential[..from]).copied() {
        let Some(state) = state else { break };
        match victims::select(context, state, context.cluster.info(slot)) {
            Ok(candidate) if candidate.violations == 0 => found.push(candidate),
            Ok(candidate) => violating.push(candidate),
            Err(Some(refusal)) => error.count(slot, refusal),
            Err(None) => {
                error.looked_at.insert(slot);
                *error.reasons.entry("No preemption victims found for incoming pod".into()).or_default() += 1;
            }
        }
        if !found.is_empty() && found.len() + violating.len() >= wanted {
            break;
        }
    }
    found.append(&mut violating);
    if found.is_empty() {
        error.count_rest("Preemption is not helpful for scheduling".to_owned());
        return Err(Outcome::NoHelp(error.to_string()));
    }
    Ok(found)
}

/// The candidate that costs least.
pub fn best(context: &Context<'_>, candidates: Vec<Candidate>) -> Outcome {
    let Some(best) = candidates.into_iter().min_by(|a, b| victims::cost(a).cmp(&victims::cost(b))) else {
        return Outcome::Wait("no candidate node for preemption".to_owned());
    };
    let node = context.cluster.info(best.slot).node.clone().expect("a candidate is a node that exists");
    Outcome::Room { node, victims: best.victims }
}

/// `PodEligibleToPreemptOthers`.
fn not_eligible(context: &Context<'_>, error: &FitError) -> Option<&'static str> {
    let Context { pod, cluster, .. } = context;
    if pod.never_preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let info = cluster.node(cluster.nominated.node_of(&pod.metadata.uid)?)?;
    // Where nothing helps any more, waiting does not either.
    if !error.resolvable.contains(&info.slot) {
        return None;
    }
    info.pods
        .iter()
        .any(|victim| is_leaving_for(pod, victim))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Whether `victim` is on its way out to make room, and `pod` may have that room.
pub fn is_leaving_for(pod: &Pod, victim: &Pod) -> bool {
    victim.priority < pod.priority && victim.metadata.is_deleting() && victim.is_preempted
}
