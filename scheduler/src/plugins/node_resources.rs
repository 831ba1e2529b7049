//! NodeResourcesFit with its scoring strategies, and NodeResourcesBalancedAllocation.

use std::borrow::Cow;

use super::{Plugin, SCORE_MAX};
use crate::config::{FitArgs, ResourceSpec, Strategy};
use crate::node::NodeInfo;
use crate::objects::{Node, Pod};
use crate::resources::Resources;
use crate::verdict::{Refusal, Verdict};

/// `fitsRequest`. What the node could not give even if it were empty is refused for good.
pub fn filter(pod: &Pod, args: &FitArgs, node: &Node, info: &NodeInfo) -> Verdict {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut resolvable = true;
    if info.pods.len() as i64 + 1 > node.pods_max {
        reasons.push("Too many pods".into());
    }
    let mut check = |reason: &dyn Fn() -> Cow<'static, str>, wanted: i64, used: i64, allocatable: i64| {
        if wanted > 0 && wanted > allocatable - used {
            reasons.push(reason());
            resolvable &= wanted <= allocatable;
        }
    };
    let (wanted, used, have) = (&pod.request.exact, &info.requested, &node.allocatable);
    check(&|| "Insufficient cpu".into(), wanted.milli_cpu, used.milli_cpu, have.milli_cpu);
    check(&|| "Insufficient memory".into(), wanted.memory, used.memory, have.memory);
    let storage = |r: &Resources| r.ephemeral_storage;
    check(&|| "Insufficient ephemeral-storage".into(), storage(wanted), storage(used), storage(have));
    for (name, amount) in wanted.scalar.iter().filter(|(name, _)| !args.ignores(name)) {
        check(&|| format!("Insufficient {name}").into(), *amount, used.get(name), have.get(name));
    }
    if reasons.is_empty() { Ok(()) } else { Err(Refusal { plugin: Plugin::NodeResourcesFit, reasons, resolvable }) }
}

/// Whether the pod would fit an empty node like this (`isFit`).
pub fn could_fit(pod: &Pod, args: &FitArgs, node: &Node) -> bool {
    filter(pod, args, node, &NodeInfo::default()).is_ok()
}

/// The score of the configured strategy.
pub fn score(pod: &Pod, args: &FitArgs, node: &Node, info: &NodeInfo) -> i64 {
    let mut sum = 0;
    let mut weights = 0;
    for resource in args.resources.iter() {
        let Some((requested, allocatable)) =
            amounts(resource, &pod.request.non_zero, &info.requested_non_zero, &info.requested, node)
        else {
            continue;
        };
        match &args.strategy {
            Strategy::LeastAllocated => sum += resource.weight * least(requested, allocatable),
            Strategy::MostAllocated => sum += resource.weight * most(requested, allocatable),
            Strategy::RequestedToCapacityRatio(shape) => {
                let one = ratio(shape, requested, allocatable);
                // A resource that scores nothing has no weight either.
                if one == 0 {
                    continue;
                }
                sum += resource.weight * one;
            }
        }
        weights += resource.weight;
    }
    match (&args.strategy, weights) {
        (_, 0) => 0,
        (Strategy::RequestedToCapacityRatio(_), weights) => (sum as f64 / weights as f64).round() as i64,
        (_, weights) => sum / weights,
    }
}

/// How much of a resource is requested with the pod, and how much there is; `None` where it does not count.
fn amounts(
    resource: &ResourceSpec,
    wanted: &Resources,
    used: &Resources,
    used_exact: &Resources,
    node: &Node,
) -> Option<(i64, i64)> {
    let name = resource.name.as_str();
    let wanted = wanted.get(name);
    let (is_scalar, used) = match name {
        "cpu" | "memory" => (false, used.get(name)),
        "ephemeral-storage" => (false, used_exact.get(name)),
        _ => (true, used_exact.get(name)),
    };
    let allocatable = node.allocatable.get(name);
    (allocatable != 0 && !(is_scalar && wanted == 0)).then_some((used + wanted, allocatable))
}

fn least(requested: i64, allocatable: i64) -> i64 {
    if requested > allocatable { 0 } else { (allocatable - requested) * SCORE_MAX / allocatable }
}

fn most(requested: i64, allocatable: i64) -> i64 {
    requested.min(allocatable) * SCORE_MAX / allocatable
}

/// A line through the points of `shape`, at the used share in percent (`BuildBrokenLinearFunction`).
fn ratio(shape: &[(i64, i64)], requested: i64, allocatable: i64) -> i64 {
    let at = if requested > allocatable { 100 } else { requested * 100 / allocatable };
    match shape.iter().position(|(utilization, _)| at <= *utilization) {
        None => shape.last().map_or(0, |(_, score)| *score),
        Some(0) => shape[0].1,
        Some(index) => {
            let ((x0, y0), (x1, y1)) = (shape[index - 1], shape[index]);
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        }
    }
}

/// How much closer the used shares of the node's resources come to each other by the pod: 75 if nothing changes. A pod
/// that asks for nothing scores nothing, or all of them would go to one node (`balancedResourceScorer`).
pub fn balanced(pod: &Pod, resources: &[ResourceSpec], node: &Node, info: &NodeInfo) -> i64 {
    let wanted = &pod.request.exact;
    if resources.iter().all(|r| wanted.get(&r.name) == 0) {
        return 0;
    }
    let share = |r: &ResourceSpec, is_there: bool| {
        // What counts is decided with the pod, also for the score without it.
        amounts(r, wanted, &info.requested, &info.requested, node)?;
        let requested = info.requested.get(&r.name) + if is_there { wanted.get(&r.name) } else { 0 };
        Some((requested as f64 / node.allocatable.get(&r.name) as f64).min(1.0))
    };
    let evenness = |is_there: bool| {
        let shares = resources.iter().filter_map(|r| share(r, is_there));
        ((1.0 - deviation(shares)) * SCORE_MAX as f64) as i64
    };
    SCORE_MAX / 2 + (SCORE_MAX / 2 + evenness(true) - evenness(false)) / 2
}

/// Walks the shares twice instead of keeping them: this runs for every node that fits a pod.
fn deviation(shares: impl Iterator<Item = f64> + Clone) -> f64 {
    let (count, sum) = shares.clone().fold((0_u32, 0.0), |(count, sum), share| (count + 1, sum + share));
    match count {
        0 | 1 => 0.0,
        // As upstream, whose shortcut rounds in its own way.
        2 => shares.reduce(|a, b| ((a - b) / 2.0).abs()).unwrap_or_default(),
        _ => {
            let mean = sum / f64::from(count);
            (shares.map(|s| (s - mean) * (s - mean)).sum::<f64>() / f64::from(count)).sqrt()
        }
    }
}
