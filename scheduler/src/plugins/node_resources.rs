//! NodeResourcesFit (strategy LeastAllocated) and NodeResourcesBalancedAllocation, over CPU and memory.

use super::{Plugin, SCORE_MAX};
use crate::node::NodeInfo;
use crate::objects::{Node, Pod};
use crate::verdict::Refusal;

pub fn filter(pod: &Pod, node: &Node, info: &NodeInfo) -> Result<(), Refusal> {
    let mut reasons = Vec::new();
    if info.pods.len() as i64 + 1 > node.pods_max {
        reasons.push("Too many pods".to_owned());
    }
    let lacking = node.allocatable.lacking(&info.requested, &pod.request.exact);
    reasons.extend(lacking.into_iter().map(|resource| format!("Insufficient {resource}")));
    if reasons.is_empty() { Ok(()) } else { Err(Refusal { plugin: Plugin::NodeResourcesFit, reasons }) }
}

/// The freer the node after the pod, the better: mean of the free shares.
pub fn least_allocated(pod: &Pod, node: &Node, info: &NodeInfo) -> i64 {
    let wanted = &pod.request.non_zero;
    let used = &info.requested_non_zero;
    let share = |allowed: i64, used: i64| {
        if allowed == 0 || used > allowed { 0 } else { (allowed - used) * SCORE_MAX / allowed }
    };
    let cpu = share(node.allocatable.milli_cpu, used.milli_cpu + wanted.milli_cpu);
    let memory = share(node.allocatable.memory, used.memory + wanted.memory);
    (cpu + memory) / 2
}

/// The closer the used shares of CPU and memory after the pod, the better. With two resources the standard deviation
/// that upstream takes is half their difference.
pub fn balanced(pod: &Pod, node: &Node, info: &NodeInfo) -> i64 {
    let wanted = &pod.request.exact;
    let used = &info.requested;
    let share = |allowed: i64, used: i64| if allowed == 0 { 1.0 } else { (used as f64 / allowed as f64).min(1.0) };
    let cpu = share(node.allocatable.milli_cpu, used.milli_cpu + wanted.milli_cpu);
    let memory = share(node.allocatable.memory, used.memory + wanted.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
}
