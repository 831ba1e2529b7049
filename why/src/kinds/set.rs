//! Why a set of equal pods is short of pods, or of ready ones: what Deployments, ReplicaSets and their like share.

use serde_json::Value;

use super::{pod, refusal};
use crate::chain::Cause;
use crate::look::{Look, be, condition_is, count, items, kubectl, text};

/// So many pods of a set are explained; more say the same.
const EXPLAINED_PODS_MAX: usize = 20;

/// A ReplicaSet or ReplicationController.
pub fn causes(look: &Look, set: &Value) -> Vec<Cause> {
    let (spec, status) = (&set["spec"], &set["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let mut causes = unseen(set).into_iter().collect::<Vec<_>>();
    if count(&status["replicas"]) < wanted {
        causes.extend(not_created(look, set));
    }
    if count(&status["readyReplicas"]) < wanted || count(&status["availableReplicas"]) < wanted {
        causes.extend(pods(look, set, &owned(look, set)));
    }
    causes
}

/// Nobody has acted on the newest specification.
pub fn unseen(object: &Value) -> Option<Cause> {
    let (generation, observed) =
        (count(&object["metadata"]["generation"]), count(&object["status"]["observedGeneration"]));
    (observed < generation).then(|| {
        Cause::new("NotObserved", "its controller has not seen its last change: do the controllers run?")
            .about(object)
            .fix(
                "says who leads, where there are several servers",
                "kubectl -n kube-system get lease kube-controller-manager",
            )
    })
}

/// The pods that an object owns, those that go left out.
pub fn owned<'w>(look: &Look<'w>, owner: &Value) -> Vec<&'w Value> {
    let uid = api::meta::uid(owner);
    let mine =
        |pod: &&Value| items(&pod["metadata"]["ownerReferences"]).any(|o| o["controller"] == true && o["uid"] == uid);
    let namespace = api::meta::namespace(owner);
    let mut pods: Vec<&Value> = look.world.list("pods", namespace).iter().filter(mine).collect();
    // Names say nothing. What came first, and of that what has a node, explains what comes after.
    pods.sort_by_key(|pod| {
        (text(&pod["metadata"]["creationTimestamp"]).to_owned(), text(&pod["spec"]["nodeName"]).is_empty())
    });
    pods
}

/// Why pods could not be made, as the controller was told.
pub fn not_created(look: &Look, owner: &Value) -> Option<Cause> {
    let failure = condition_is(owner, "ReplicaFailure", "True").map(|c| text(&c["message"]));
    let message = failure.or_else(|| {
        let event = look.event(owner, &["FailedCreate"])?;
        let message = text(&event["message"]);
        Some(message.split_once("Error creating: ").map_or(message, |(_, told)| told))
    })?;
    let workload = top(look, owner);
    Some(refusal::cause(look, owner, &workload, message))
}

/// The workload a person would change, as kubectl names it.
pub fn top(look: &Look, object: &Value) -> String {
    pod::workload(look, object)
        .unwrap_or_else(|| format!("{}/{}", text(&object["kind"]).to_lowercase(), api::meta::name(object)))
}

/// The pods that are not ready, those with the same trouble told once.
pub fn pods(look: &Look, owner: &Value, pods: &[&Value]) -> Vec<Cause> {
    let mut groups: Vec<(String, Cause, usize)> = Vec::new();
    let troubled = pods.iter().filter(|pod| {
        let done = pod["status"]["phase"] == "Succeeded";
        !done && condition_is(pod, "Ready", "True").is_none()
    });
    for pod in troubled.take(EXPLAINED_PODS_MAX) {
        let state = match api::meta::deletion_timestamp(pod) {
            Some(_) => "is Terminating".to_owned(),
            None => format!("is {}", pod::state(look, pod)),
        };
        let cause = Cause::new("PodNotReady", state).about(pod).because(look.why(pod));
        let signature = cause.signature();
        match groups.iter_mut().find(|(other, ..)| *other == signature) {
            Some((_, _, more)) => *more += 1,
            None => groups.push((signature, cause, 0)),
        }
    }
    let together = |(_, mut cause, more): (String, Cause, usize)| {
        if more > 0 {
            cause.message = format!("{}, and so {} {} more", cause.message, be(more), more);
        }
        cause
    };
    let mut causes: Vec<Cause> = groups.into_iter().map(together).collect();
    let min_ready = count(&owner["spec"]["minReadySeconds"]);
    if causes.is_empty() && min_ready > 0 {
        let message =
            format!("its pods count as available when they have been ready for {min_ready}s (minReadySeconds)");
        causes.push(Cause::new("MinReadySeconds", message).about(owner));
    }
    causes
}

/// `kubectl rollout status` of a workload.
pub fn rollout(object: &Value, verb: &str) -> String {
    let name = format!("{}/{}", text(&object["kind"]).to_lowercase(), api::meta::name(object));
    kubectl(api::meta::namespace(object), &format!("rollout {verb} {name}"))
}
