//! Which pods are garbage. Pure; the rules are those of upstream's `podgc` controller.

use std::sync::Arc;

use crate::objects::{Node, Pod};

/// Ended pods kept cluster-wide (`--terminated-pod-gc-threshold`).
pub const ENDED_PODS_MAX: usize = 12500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Too many ended pods.
    Ended,
    /// Its node is gone; to be confirmed with the server before it goes.
    NoNode,
    /// Being deleted, and never got to a node.
    Unscheduled,
    /// Being deleted on a node that an administrator declared dead.
    OutOfService,
}

pub fn garbage<'a>(
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    node: impl Fn(&str) -> Option<Arc<Node>>,
    ended_max: usize,
) -> Vec<(Arc<Pod>, Why)> {
    let mut garbage = Vec::new();
    let mut ended = Vec::new();
    for pod in pods {
        let deleting = pod.metadata.is_deleting();
        if pod.spec.node_name.is_empty() {
            if deleting {
                garbage.push((pod.clone(), Why::Unscheduled));
            }
            continue;
        }
        match node(&pod.spec.node_name) {
            None => garbage.push((pod.clone(), Why::NoNode)),
            Some(node) if deleting && is_out_of_service(&node) => garbage.push((pod.clone(), Why::OutOfService)),
            Some(_) if pod.is_terminal() && !deleting => ended.push(pod),
            Some(_) => {}
        }
    }
    let excess = ended.len().saturating_sub(ended_max);
    if excess > 0 {
        // Evicted pods first, then the oldest.
        ended.sort_by_key(|pod| (pod.status.reason != "Evicted", pod.metadata.creation_timestamp));
        garbage.extend(ended.into_iter().take(excess).map(|pod| (pod.clone(), Why::Ended)));
    }
    garbage
}

pub fn is_out_of_service(node: &Node) -> bool {
    let ready = node.condition("Ready").is_some_and(|c| c.status == "True");
    !ready && node.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_garbage_is_found() {
        let pod = |name: &str, node: &str, phase: &str, deleting: bool| {
            let time = deleting.then_some("2026-01-01T00:00:00Z");
            let object = json!({
                "metadata": {"name": name, "deletionTimestamp": time, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", name.len())},
                "spec": {"nodeName": node}, "status": {"phase": phase, "reason": if name == "evict" { "Evicted" } else { "" }},
            });
            Arc::new(serde_json::from_value::<Pod>(object).unwrap())
        };
        let pods = [
            pod("waiting", "", "Pending", false),
            pod("stuck", "", "Pending", true),
            pod("lost", "gone", "Running", false),
            pod("dead", "dead", "Running", true),
            pod("alive", "dead", "Running", false),
            pod("a", "n1", "Succeeded", false),
            pod("bb", "n1", "Failed", false),
            pod("evict", "n1", "Failed", false),
        ];
        let node = |name: &str| {
            let taints =
                if name == "dead" { json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]) } else { json!([]) };
            let object = json!({"metadata": {"name": name}, "spec": {"taints": taints}});
            (name != "gone").then(|| Arc::new(serde_json::from_value::<Node>(object).unwrap()))
        };
        let found = garbage(pods.iter(), node, 1);
        let found: Vec<String> = found.iter().map(|(p, why)| format!("{} {why:?}", p.metadata.name)).collect();
        assert_eq!(found, ["stuck Unscheduled", "lost NoNode", "dead OutOfService", "evict Ended", "a Ended"]);
    }
}
