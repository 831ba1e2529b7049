//! Why a pod does not run, is not ready, or does not go.

mod containers;
mod fit;
mod image;
mod needs;
mod scheduling;

use serde_json::Value;

use super::deletion;
use crate::chain::Cause;
use crate::look::{Look, condition_is, count, counted, items, kubectl, names, span, text};
use crate::world::Found;

/// A binding that no agent has taken note of for so long is worth telling.
const NOTICED_WITHIN_SECONDS: i64 = 10;

pub fn state(look: &Look, pod: &Value) -> String {
    let phase = match text(&pod["status"]["phase"]) {
        "" => "Pending",
        phase => phase,
    };
    let reason = text(&pod["status"]["reason"]);
    let since = look.since(&pod["metadata"]["creationTimestamp"]).map(|age| format!(" for {age}")).unwrap_or_default();
    match phase {
        "Running" if condition_is(pod, "Ready", "True").is_some() => "Running and ready".to_owned(),
        "Running" => "Running, but not ready".to_owned(),
        "Failed" if !reason.is_empty() => format!("Failed ({reason})"),
        "Pending" => format!("Pending{since}"),
        phase => phase.to_owned(),
    }
}

pub fn causes(look: &Look, pod: &Value) -> Vec<Cause> {
    match text(&pod["status"]["phase"]) {
        "Succeeded" => Vec::new(),
        "Failed" => failed(look, pod),
        _ if text(&pod["spec"]["nodeName"]).is_empty() => scheduling::causes(look, pod),
        _ => on_node(look, pod),
    }
}

/// The workload that a person would change: the topmost owner, as `deployment/web`.
pub fn workload(look: &Look, pod: &Value) -> Option<String> {
    let mut owner = controller(pod)?;
    let namespace = api::meta::namespace(pod);
    loop {
        let (api_version, kind, name) = (text(&owner["apiVersion"]), text(&owner["kind"]), text(&owner["name"]));
        let found = look.world.kinds.of_kind(api_version, kind).map(|k| look.world.get_of(k, namespace, name));
        match found.and_then(Found::here).and_then(controller) {
            Some(above) => owner = above,
            None => return Some(format!("{}/{name}", kind.to_lowercase())),
        }
    }
}

fn controller(object: &Value) -> Option<&Value> {
    items(&object["metadata"]["ownerReferences"]).find(|o| o["controller"] == true)
}

fn failed(look: &Look, pod: &Value) -> Vec<Cause> {
    let (reason, message) = (text(&pod["status"]["reason"]), text(&pod["status"]["message"]));
    let again = "a pod that failed stays as it is; its owner, if it has one, makes another";
    let delete = kubectl(api::meta::namespace(pod), &format!("delete pod {}", api::meta::name(pod)));
    let disrupted = condition_is(pod, "DisruptionTarget", "True");
    let cause = match (reason, disrupted) {
        ("Evicted", _) => Cause::new("Evicted", format!("the node ended it to save itself: {message}")),
        ("DeadlineExceeded", _) => {
            let limit = count(&pod["spec"]["activeDeadlineSeconds"]);
            Cause::new("DeadlineExceeded", format!("it ran longer than its activeDeadlineSeconds ({})", span(limit)))
        }
        (_, Some(condition)) => {
            let message = text(&condition["message"]);
            Cause::new(text(&condition["reason"]), format!("it was ended from outside: {message}"))
        }
        ("", None) => {
            let exits = containers::exits(look, pod);
            if !exits.is_empty() {
                return exits;
            }
            Cause::new("Failed", "its containers ended with an error")
        }
        (reason, None) => Cause::new(reason, format!("{reason}: {message}")),
    };
    vec![cause.about(pod).fix(again, delete)]
}

fn on_node(look: &Look, pod: &Value) -> Vec<Cause> {
    let node_name = text(&pod["spec"]["nodeName"]);
    let node = match look.world.get("nodes", "", node_name) {
        Found::Here(node) => node,
        Found::Absent => {
            let message = format!("it is bound to the node {node_name}, which does not exist");
            let delete = kubectl(api::meta::namespace(pod), &format!("delete pod {} --force", api::meta::name(pod)));
            return vec![Cause::new("NodeMissing", message).about(pod).fix("", delete)];
        }
        Found::Unknown => return Vec::new(),
    };
    if condition_is(node, "Ready", "True").is_none() {
        let message = ", which it is on, is not ready, so nobody starts, checks or reports on it";
        return vec![Cause::new("NodeNotReady", message).about(node).because(look.why(node))];
    }
    let mut causes = containers::causes(look, pod);
    if causes.is_empty() {
        causes.extend(gates(pod));
    }
    if causes.is_empty() && text(&pod["status"]["phase"]) != "Running" {
        causes.extend(starting(look, pod, node_name));
    }
    causes
}

/// Conditions of others that readiness waits for (`readinessGates`).
fn gates(pod: &Value) -> Vec<Cause> {
    if condition_is(pod, "Ready", "True").is_some() {
        return Vec::new();
    }
    let gates = items(&pod["spec"]["readinessGates"]).map(|g| text(&g["conditionType"]));
    let closed: Vec<&str> = gates.filter(|gate| condition_is(pod, gate, "True").is_none()).collect();
    if closed.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "its containers are ready; its readiness gate {} is not, which something else must set",
        names(&closed)
    );
    vec![Cause::new("ReadinessGate", message).about(pod)]
}

/// Bound, the node well, and no container says why it does not run.
fn starting(look: &Look, pod: &Value, node: &str) -> Vec<Cause> {
    let needs = needs::causes(look, pod);
    if !needs.is_empty() {
        return needs;
    }
    const TROUBLES: &[&str] = &[
        "FailedMount",
        "FailedAttachVolume",
        "FailedCreatePodSandBox",
        "FailedCreatePodContainer",
        "NetworkNotReady",
        "FailedMapVolume",
        "HostPortConflict",
        "Failed",
        "InspectFailed",
    ];
    if let Some(event) = look.event(pod, TROUBLES) {
        let (reason, message) = (text(&event["reason"]), text(&event["message"]));
        return vec![Cause::new(reason, format!("the node {node} reports {reason}: {message}")).about(pod)];
    }
    let bound = condition_is(pod, "PodScheduled", "True").map(|c| &c["lastTransitionTime"]);
    let waited = bound.and_then(|at| look.seconds_since(at)).unwrap_or_default();
    if pod["status"]["startTime"].is_null() && waited >= NOTICED_WITHIN_SECONDS {
        let message =
            format!("the agent of {node} has not taken note of it for {}, although its node is Ready", span(waited));
        return vec![
            Cause::new("AgentSilent", message).about(pod).fix("on the node", "journalctl -u keelson -u kubelet -e"),
        ];
    }
    vec![Cause::new("Starting", format!("the node {node} is starting it")).about(pod)]
}

/// Why a deleted pod is still there.
pub fn deleted(look: &Look, pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (namespace, name) = (api::meta::namespace(pod), api::meta::name(pod));
    let force = kubectl(namespace, &format!("delete pod {name} --force"));
    let node_name = text(&pod["spec"]["nodeName"]);
    let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    if !node_name.is_empty() && !ended {
        match look.world.get("nodes", "", node_name) {
            Found::Absent => {
                let message =
                    format!("its node {node_name} does not exist any more, so nobody can say that it has ended");
                causes.push(Cause::new("NodeMissing", message).about(pod).fix("", force));
            }
            Found::Here(node) if condition_is(node, "Ready", "True").is_none() => {
                let message = ", which it runs on, is away, and only it can say that the pod has ended";
                let sure = "only if the machine is really off: else the pod may run twice";
                causes.push(Cause::new("NodeNotReady", message).about(node).because(look.why(node)).fix(sure, force));
            }
            Found::Here(_) => causes.extend(stopping(look, pod, &force)),
            Found::Unknown => {}
        }
    }
    if api::meta::finalizers(pod).next().is_some() {
        causes.extend(deletion::causes(look, pod));
    }
    if causes.is_empty() {
        causes.extend(deletion::causes(look, pod));
    }
    causes
}

fn stopping(look: &Look, pod: &Value, force: &str) -> Option<Cause> {
    let running = items(&pod["status"]["containerStatuses"]).filter(|c| !c["state"]["running"].is_null()).count();
    if running == 0 && api::meta::finalizers(pod).next().is_some() {
        return None;
    }
    let grace = count(&pod["metadata"]["deletionGracePeriodSeconds"]);
    let over = look.seconds_since(&pod["metadata"]["deletionTimestamp"]).unwrap_or_default();
    let message = if over < 0 {
        let running = counted(running, "container");
        format!("{running} may take another {} to stop (a grace period of {grace}s)", span(-over))
    } else if let Some(event) = look.event(pod, &["FailedKillPod", "FailedPreStopHook"]) {
        format!("the node cannot stop it: {}", text(&event["message"]))
    } else {
        format!(
            "its grace period of {grace}s is over since {}, and the node has yet to say that it has ended",
            span(over)
        )
    };
    Some(Cause::new("Stopping", message).about(pod).fix("without waiting", force))
}
