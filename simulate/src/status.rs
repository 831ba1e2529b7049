//! The status that a node writes for a pod, as a strategic merge patch.

use std::net::Ipv4Addr;

use api_client::Metadata;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::objects::{ContainerSpec, Pod};
use crate::progress::{Report, State};

/// The patch; its `metadata.uid` keeps it from a later pod of the same name.
pub fn patch(pod: &Pod, report: &Report, node: Ipv4Addr, address: Ipv4Addr, now: Timestamp) -> Value {
    let address = if pod.host_network { node } else { address };
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let before = pod.reported.as_ref();
    let conditions: Vec<Value> = CONDITIONS
        .iter()
        .map(|kind| {
            let holds = report.holds(kind);
            let changed = before.is_none_or(|before| before.holds(kind) != holds);
            condition(kind, holds, report, changed.then_some(&time))
        })
        .collect();
    let statuses: Vec<Value> = pod.containers.iter().map(|c| container(c, report, &time)).collect();
    let init: Vec<Value> = pod.init_containers.iter().map(|c| init(c, &time)).collect();
    let mut status = json!({
        "phase": report.phase, "hostIP": node, "hostIPs": [{ "ip": node }],
        "podIP": address, "podIPs": [{ "ip": address }],
        "startTime": pod.start_time.as_deref().unwrap_or(&time),
        "conditions": conditions, "containerStatuses": statuses,
    });
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    json!({ "metadata": { "uid": pod.metadata.uid() }, "status": status })
}

/// The conditions that a node sets.
const CONDITIONS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

impl Report {
    fn holds(&self, condition: &str) -> bool {
        match condition {
            "Ready" | "ContainersReady" => self.ready,
            "PodReadyToStartContainers" => !matches!(self.state, State::Exited { .. }),
            "Initialized" => self.state != State::Creating,
            _ => true,
        }
    }
}

/// Without `changed` the time of its last change stays as it is.
fn condition(kind: &str, holds: bool, report: &Report, changed: Option<&String>) -> Value {
    let status = if holds { "True" } else { "False" };
    let reason = match (kind, holds) {
        (_, true) => None,
        ("Ready" | "ContainersReady", _) if report.phase == "Succeeded" => Some("PodCompleted"),
        ("Ready" | "ContainersReady", _) if report.phase == "Failed" => Some("PodFailed"),
        ("Ready" | "ContainersReady", _) => Some("ContainersNotReady"),
        _ => None,
    };
    let mut condition = json!({ "type": kind, "status": status, "reason": reason });
    if let Some(time) = changed {
        condition["lastTransitionTime"] = time.as_str().into();
    }
    condition
}

fn container(spec: &ContainerSpec, report: &Report, time: &str) -> Value {
    let ended = |code: i32| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        json!({ "exitCode": code, "reason": reason, "startedAt": time, "finishedAt": time })
    };
    let (state, last) = match report.state {
        State::Creating => (json!({ "waiting": { "reason": "ContainerCreating" } }), json!({})),
        State::Running => (json!({ "running": { "startedAt": time } }), json!({})),
        State::BackOff { code } => {
            (json!({ "waiting": { "reason": "CrashLoopBackOff" } }), json!({ "terminated": ended(code) }))
        }
        State::Exited { code } => (json!({ "terminated": ended(code) }), json!({})),
    };
    json!({
        "name": spec.name, "image": spec.image, "imageID": "", "containerID": "",
        "ready": report.ready, "started": report.state == State::Running, "restartCount": report.restarts,
        // A merge would keep the former state beside the new one.
        "state": with_replace(state), "lastState": with_replace(last),
    })
}

fn with_replace(mut state: Value) -> Value {
    state["$patch"] = "replace".into();
    state
}

fn init(spec: &ContainerSpec, time: &str) -> Value {
    let ended = json!({ "exitCode": 0, "reason": "Completed", "startedAt": time, "finishedAt": time });
    json!({
        "name": spec.name, "image": spec.image, "imageID": "", "containerID": "",
        "ready": true, "restartCount": 0, "state": with_replace(json!({ "terminated": ended })),
    })
}
