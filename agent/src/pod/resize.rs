//! Resize of a pod's containers in place: what a pod asks for, what this node has allocated to it, and what its running
//! containers were given are three things that follow each other. Pure.
//!
//! `allocate` decides whether the node has room for what is asked (the kubelet's allocation manager); until it has, the
//! pod goes on with what was allocated before, also through restarts. `way` decides how a container gets what is
//! allocated. The API server lets only `cpu` and `memory` of containers and sidecars change.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use serde_json::json;

use super::{
    admit::{Capacity, Rejection, admit},
    resources::{Resources, is_sidecar},
};

/// Condition types of a pod whose resize is not done.
pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";

/// By container name.
pub type Allocation = BTreeMap<String, ResourceRequirements>;

/// Why a resize waits: reason and message of `PodResizePending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: tried again as others leave. `Infeasible`: the node could never give it.
    pub reason: &'static str,
    pub message: String,
    /// What the pod asks for, as events tell it.
    pub summary: String,
}

/// How a running container gets what is allocated to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    InPlace,
    /// Its `resizePolicy` wants a new start for what changes.
    Restart,
}

fn resizable(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    spec.containers.iter().chain(sidecars)
}

/// What the containers of a pod that can be resized ask for.
pub fn allocation(spec: &PodSpec) -> Allocation {
    resizable(spec).map(|one| (one.name.clone(), one.resources.clone().unwrap_or_default())).collect()
}

/// The pod with the resources of `allocation` in place of its own; the same `Arc` when they are equal.
pub fn allocated(pod: &Arc<Pod>, allocation: &Allocation) -> Arc<Pod> {
    let differs = |container: &Container| {
        allocation.get(&container.name).is_some_and(|given| differs(Some(given), container.resources.as_ref()))
    };
    if !pod.spec.iter().flat_map(resizable).any(differs) {
        return pod.clone();
    }
    let mut pod = Pod::clone(pod);
    let spec = pod.spec.get_or_insert_default();
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(given) = allocation.get(&container.name) {
            container.resources = Some(given.clone());
        }
    }
    Arc::new(pod)
}

/// Whether two resource requirements mean different amounts to the kernel or the scheduler.
pub fn differs(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    Resources::of(one) != Resources::of(other)
}

/// Whether the node takes the pod as it asks to be from now on, beside `others` as they are allocated.
pub fn allocate(pod: &Pod, others: &[&Pod], capacity: Capacity) -> Result<(), Pending> {
    let pending = |reason, message: String| {
        let summary = summary(pod, &message);
        Pending { reason, message, summary }
    };
    let asked = pod.spec.as_ref().map(Resources::of_pod).unwrap_or_default();
    let whole = [
        ("cpu", asked.cpu_request_milli, capacity.cpu_milli),
        ("memory", asked.memory_request_bytes, capacity.memory_bytes),
    ];
    for (resource, requested, capacity) in whole {
        if let Some(requested) = requested.filter(|requested| *requested > capacity) {
            let message =
                format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}");
            return Err(pending("Infeasible", message));
        }
    }
    admit(pod, others, capacity).map_err(|Rejection { message, .. }| pending("Deferred", message))
}

/// How a container that runs with `given` becomes what its definition says; `None` when it is, or nobody knows.
pub fn way(container: &Container, given: Option<&ResourceRequirements>) -> Option<Way> {
    let (old, new) = (Resources::of(Some(given?)), Resources::of(container.resources.as_ref()));
    if old == new {
        return None;
    }
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
    };
    let cpu = |of: &Resources| (of.cpu_request_milli, of.cpu_limit_milli);
    let memory = |of: &Resources| (of.memory_request_bytes, of.memory_limit_bytes);
    let restart = cpu(&old) != cpu(&new) && restarts("cpu") || memory(&old) != memory(&new) && restarts("memory");
    Some(if restart { Way::Restart } else { Way::InPlace })
}

/// What is told of a pod's resources in events of its resize, as the kubelet's `podResourceSummary` has it.
pub fn summary(pod: &Pod, error: &str) -> String {
    let list = |containers: &[Container]| {
        containers
            .iter()
            .map(|one| json!({"name": one.name, "resources": one.resources.clone().unwrap_or_default()}))
            .collect::<Vec<_>>()
    };
    let mut summary = json!({"generation": pod.metadata.generation.unwrap_or(0)});
    if let Some(spec) = &pod.spec {
        summary["containers"] = list(&spec.containers).into();
        if let Some(init) = &spec.init_containers {
            summary["initContainers"] = list(init).into();
        }
    }
    if !error.is_empty() {
        summary["error"] = error.into();
    }
    summary.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { pods: 10, cpu_milli: 2000, memory_bytes: 1 << 30 };

    fn pod(cpu: &str, policy: &str) -> Arc<Pod> {
        let spec = json!({"containers": [{
            "name": "c",
            "resources": {"requests": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
        }]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_resize_waits_for_room_and_is_refused_beyond_the_node() {
        let other = pod("1500m", "NotRequired");
        let decide = |cpu: &str| match allocate(&pod(cpu, "NotRequired"), &[&other], CAPACITY) {
            Ok(()) => "allocated".to_owned(),
            Err(pending) => format!("{}: {}", pending.reason, pending.message),
        };
        assert_eq!(decide("500m"), "allocated");
        assert_eq!(
            decide("501m"),
            "Deferred: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert_eq!(decide("3"), "Infeasible: Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000");
    }

    #[test]
    fn a_pod_goes_on_with_what_was_allocated() {
        let before = allocation(pod("1", "NotRequired").spec.as_ref().unwrap());
        let asked = pod("2", "NotRequired");
        let kept = allocated(&asked, &before);
        assert_eq!(allocation(kept.spec.as_ref().unwrap()), before);
        let same = pod("1000m", "NotRequired");
        assert!(Arc::ptr_eq(&allocated(&same, &before), &same), "equal amounts are no change");
    }

    #[test]
    fn the_policy_of_what_changes_decides_about_a_restart() {
        let given = allocation(pod("1", "NotRequired").spec.as_ref().unwrap());
        let way_of = |cpu, policy| way(&pod(cpu, policy).spec.as_ref().unwrap().containers[0], given.get("c"));
        assert_eq!(way_of("1000m", "RestartContainer"), None);
        assert_eq!(way_of("2", "NotRequired"), Some(Way::InPlace));
        assert_eq!(way_of("2", "RestartContainer"), Some(Way::Restart));
    }
}
