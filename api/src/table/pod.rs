//! The row of a pod (`printPod`): what its containers say together.

use serde_json::Value;

use super::text::{field, or};
use super::{View, since};
use crate::meta;

/// What the row says about the containers.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: String,
}

pub fn cells(view: &View) -> Vec<Value> {
    let pod = view.object;
    let mut summary = init_containers(view);
    if !summary.1 || condition(view, "Initialized") {
        main_containers(view, &mut summary.0, summary.2);
    }
    let Summary { ready, total, mut reason, restarts, last_restart } = summary.0;
    let phase = view.text("/status/phase");
    if meta::deletion_timestamp(pod).is_some() {
        if view.text("/status/reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            reason = "Terminating".to_owned();
        }
    }
    let mut restarts_text = restarts.to_string();
    if restarts != 0 && !last_restart.is_empty() {
        restarts_text = format!("{restarts} ({} ago)", since(&last_restart, view.now));
    }
    let ip = view.list("/status/podIPs").first().map(|ip| field(ip, "ip")).unwrap_or_default();
    let none = |text: &str| Value::from(or(text, "<none>"));
    vec![
        meta::name(pod).into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts_text.into(),
        view.age(),
        none(ip),
        none(view.text("/spec/nodeName")),
        none(view.text("/status/nominatedNodeName")),
        readiness_gates(view).into(),
    ]
}

fn condition(view: &View, kind: &str) -> bool {
    let found = view.list("/status/conditions").iter().find(|c| field(c, "type") == kind);
    found.is_some_and(|c| field(c, "status") == "True")
}

fn state<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status.get("state")?.get(kind).filter(|s| !s.is_null())
}

fn int(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or(0)
}

/// The later of two canonical times.
fn later(last: &mut String, status: &Value) {
    let finished = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str).unwrap_or_default();
    if finished > last.as_str() {
        *last = finished.to_owned();
    }
}

fn exit(terminated: &Value, prefix: &str) -> String {
    let reason = field(terminated, "reason");
    if !reason.is_empty() {
        format!("{prefix}{reason}")
    } else if int(terminated, "signal") != 0 {
        format!("{prefix}Signal:{}", int(terminated, "signal"))
    } else {
        format!("{prefix}ExitCode:{}", int(terminated, "exitCode"))
    }
}

/// Restarts of sidecars, which count with the main containers.
type SidecarRestarts = (i64, String);

/// The summary so far, whether the pod is still initializing, and the restarts of its sidecars.
fn init_containers(view: &View) -> (Summary, bool, SidecarRestarts) {
    let specs = view.list("/spec/initContainers");
    let is_sidecar =
        |name: &str| specs.iter().any(|c| field(c, "name") == name && field(c, "restartPolicy") == "Always");
    let mut reason = or(view.text("/status/reason"), view.text("/status/phase")).to_owned();
    let gated = |c: &Value| field(c, "type") == "PodScheduled" && field(c, "reason") == "SchedulingGated";
    if view.list("/status/conditions").iter().any(gated) {
        reason = "SchedulingGated".to_owned();
    }
    let sidecars = specs.iter().filter(|c| field(c, "restartPolicy") == "Always").count();
    let total = view.list("/spec/containers").len() + sidecars;
    let mut summary = Summary { ready: 0, total, reason, restarts: 0, last_restart: String::new() };
    let mut own = (0, String::new());
    for (i, status) in view.list("/status/initContainerStatuses").iter().enumerate() {
        summary.restarts += int(status, "restartCount");
        later(&mut summary.last_restart, status);
        let sidecar = is_sidecar(field(status, "name"));
        if sidecar {
            own.0 += int(status, "restartCount");
            later(&mut own.1, status);
        }
        let terminated = state(status, "terminated");
        if terminated.is_some_and(|t| int(t, "exitCode") == 0) {
            continue;
        }
        if sidecar && status.get("started") == Some(&Value::Bool(true)) {
            summary.ready += usize::from(status.get("ready") == Some(&Value::Bool(true)));
            continue;
        }
        let waiting = state(status, "waiting").map(|w| field(w, "reason")).unwrap_or_default();
        summary.reason = match terminated {
            Some(terminated) => exit(terminated, "Init:"),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", specs.len()),
        };
        return (summary, true, own);
    }
    (summary, false, own)
}

fn main_containers(view: &View, summary: &mut Summary, sidecars: SidecarRestarts) {
    (summary.restarts, summary.last_restart) = sidecars;
    let mut running = false;
    let mut failure = String::new();
    for status in view.list("/status/containerStatuses").iter().rev() {
        summary.restarts += int(status, "restartCount");
        later(&mut summary.last_restart, status);
        let waiting = state(status, "waiting").map(|w| field(w, "reason")).unwrap_or_default();
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = state(status, "terminated") {
            summary.reason = exit(terminated, "");
            if int(terminated, "exitCode") != 0 {
                failure = summary.reason.clone();
            }
        } else if status.get("ready") == Some(&Value::Bool(true)) && state(status, "running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && condition(view, "Ready") {
            summary.reason = "Running".to_owned();
        } else if !failure.is_empty() {
            summary.reason = failure;
        } else if running {
            summary.reason = "NotReady".to_owned();
        }
    }
}

fn readiness_gates(view: &View) -> String {
    let gates = view.list("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates.iter().filter(|gate| condition(view, field(gate, "conditionType"))).count();
    format!("{passed}/{}", gates.len())
}
