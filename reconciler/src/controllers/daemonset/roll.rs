//! The rollout of a daemon set's template (`DaemonSetsController.rollingUpdate`). Pure. Without surge old pods are
//! deleted and their nodes get new ones; with surge new pods come first and old ones go when they are available.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::place::Fit;
use super::plan::{ByNode, Input, Plan};
use crate::objects::Pod;

/// The old and the new pod of a node.
enum Pair<'a> {
    /// More than one of either: the node is tidied first.
    Crowded,
    Of {
        new: Option<&'a Arc<Pod>>,
        old: Option<&'a Arc<Pod>>,
    },
}

/// `findUpdatedPodsOnNode`.
fn pair<'a>(input: &Input<'_>, pods: &[&'a Arc<Pod>]) -> Pair<'a> {
    let alive = pods.iter().copied().filter(|pod| !pod.metadata.is_deleting());
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.partition(|pod| input.is_updated(pod));
    match (new.as_slice(), old.as_slice()) {
        ([_, _, ..], _) | (_, [_, _, ..]) => Pair::Crowded,
        _ => Pair::Of { new: new.first().copied(), old: old.first().copied() },
    }
}

pub fn roll(input: &Input<'_>, by_node: &ByNode<'_>, plan: &mut Plan) {
    let fitting = input.nodes.iter().filter(|node| input.place.fit(node) == Fit::Run);
    let wanted: BTreeSet<&str> = fitting.map(|node| node.metadata.name.as_str()).collect();
    let count = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
    let (surge, mut unavailable) = (input.max_surge(count), input.max_unavailable(count));
    if count > 0 && surge == 0 && unavailable == 0 {
        // Impossible as given; something must give way.
        unavailable = 1;
    }
    // A node that should have a pod and has none counts like one whose pod is not available.
    let mut by_node = by_node.clone();
    for node in &wanted {
        by_node.entry(node).or_default();
    }
    let as_count = |n: i32| usize::try_from(n).unwrap_or_default();
    if surge == 0 {
        replace(input, &by_node, as_count(unavailable), plan);
    } else {
        add(input, &by_node, as_count(surge), &wanted, plan);
    }
}

/// Deletes old pods: those not available at once, others as far as the limit allows.
fn replace(input: &Input<'_>, by_node: &ByNode<'_>, max_unavailable: usize, plan: &mut Plan) {
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    for pods in by_node.values() {
        match pair(input, pods) {
            Pair::Of { new: Some(new), old: None } => unavailable += usize::from(!input.is_available(new)),
            Pair::Of { new: None, old: Some(old) } if input.is_available(old) => candidates.push(old),
            Pair::Of { new: None, old: Some(old) } => {
                plan.delete.push(old.clone());
                unavailable += 1;
            }
            Pair::Crowded | Pair::Of { .. } => unavailable += 1,
        }
    }
    let budget = max_unavailable.saturating_sub(unavailable);
    plan.delete.extend(candidates.into_iter().take(budget).cloned());
}

/// Makes new pods beside old ones: for unavailable old ones at once, for others as far as the limit allows.
fn add(input: &Input<'_>, by_node: &ByNode<'_>, max_surge: usize, wanted: &BTreeSet<&str>, plan: &mut Plan) {
    let (mut surging, mut available) = (0, 0);
    let mut candidates = Vec::new();
    // Available pods on nodes that should have none any more.
    let mut misplaced = Vec::new();
    for (name, pods) in by_node {
        let Pair::Of { new, old } = pair(input, pods) else {
            surging += 1;
            continue;
        };
        available += usize::from(old.or(new).is_some_and(|pod| input.is_available(pod)));
        let Some(old) = old else { continue };
        match new {
            Some(new) if input.is_available(new) => plan.delete.push(old.clone()),
            Some(_) => surging += 1,
            None => match (input.is_available(old), wanted.contains(name)) {
                (true, true) => candidates.push((*name).to_owned()),
                (true, false) => misplaced.push(old),
                (false, true) => plan.create.push((*name).to_owned()),
                (false, false) => plan.delete.push(old.clone()),
            },
        }
    }
    // Whoever surges wants full availability: a misplaced pod goes only when another one took over.
    let spare = available.saturating_sub(wanted.len());
    plan.delete.extend(misplaced.into_iter().take(spare).cloned());
    plan.create.extend(candidates.into_iter().take(max_surge.saturating_sub(surging)));
}
