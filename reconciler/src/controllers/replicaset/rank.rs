//! Which pods go first when a workload shrinks: the order of `controller.ActivePodsWithRanks`.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::objects::Pod;

/// The `count` pods of `pods` to delete. `related` are all active pods of the workload's siblings (the replica sets
/// of the same deployment): a pod that shares its node with many of them goes before one that is alone.
pub fn to_delete(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| p.is_active()) {
        *per_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let mut ranked: Vec<(usize, &Arc<Pod>)> =
        pods.iter().map(|pod| (per_node.get(pod.spec.node_name.as_str()).copied().unwrap_or_default(), pod)).collect();
    ranked.sort_by(|a, b| order(a, b, now));
    ranked.into_iter().take(count).map(|(_, pod)| pod.clone()).collect()
}

fn order(a: &(usize, &Arc<Pod>), b: &(usize, &Arc<Pod>), now: Timestamp) -> Ordering {
    let ((rank_a, a), (rank_b, b)) = (a, b);
    let simple = |rank: usize, pod: &Pod| {
        (!pod.spec.node_name.is_empty(), phase(pod), pod.is_ready(), deletion_cost(pod), Reverse(rank))
    };
    simple(*rank_a, a).cmp(&simple(*rank_b, b)).then_with(|| by_age(a, b, now))
}

/// A total order, which upstream's is not: among pods whose times of readiness are of like age, restarts and creation
/// count before chance does.
fn by_age(a: &Pod, b: &Pod, now: Timestamp) -> Ordering {
    younger_first(a.ready_since(), b.ready_since(), now)
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| younger_first(a.metadata.creation_timestamp, b.metadata.creation_timestamp, now))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// Ages compare by their order of magnitude only, so that among pods of like age chance decides
/// (`LogarithmicScaleDown`). An unknown time counts as youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Timestamp| {
        let age = now.duration_since(time).as_nanos();
        if age > 0 { age.ilog2().into() } else { -1i64 }
    };
    a.map(magnitude).cmp(&b.map(magnitude))
}

fn phase(pod: &Pod) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// `controller.kubernetes.io/pod-deletion-cost`; anything that is no integer counts as 0.
fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.deletion_cost.as_deref().and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

/// The most restarts of any container, sidecars counting like containers (`compareMaxContainerRestarts`).
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |of: &mut dyn Iterator<Item = i32>| of.max().unwrap_or_default();
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let sidecar_restarts = sidecars
        .filter_map(|c| pod.status.init_container_statuses.iter().find(|s| s.name == c.name).map(|s| s.restart_count));
    (
        most(&mut pod.status.container_statuses.iter().map(|s| s.restart_count)),
        most(&mut sidecar_restarts.collect::<Vec<_>>().into_iter()),
    )
}
