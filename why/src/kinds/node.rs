//! Why a node takes no pods, or is not ready.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, condition, condition_is, items, text};
use crate::world::Found;

pub fn state(node: &Value) -> String {
    let ready = match condition(node, "Ready").map(|c| text(&c["status"])) {
        Some("True") => "Ready",
        Some("False") => "not Ready",
        Some(_) => "silent",
        None => "not yet reporting",
    };
    let cordoned = if node["spec"]["unschedulable"] == true { ", cordoned" } else { "" };
    format!("{ready}{cordoned}")
}

pub fn causes(look: &Look, node: &Value) -> Vec<Cause> {
    let name = api::meta::name(node);
    let mut causes = Vec::new();
    match condition(node, "Ready") {
        None => {
            let message = "its agent has never said how it is";
            causes.push(
                Cause::new("NeverReported", message)
                    .about(node)
                    .fix("on the node", "journalctl -u keelson -u kubelet -e"),
            );
        }
        Some(c) if c["status"] == "Unknown" => causes.push(silent(look, node, c)),
        Some(c) if c["status"] == "False" => {
            let message = format!("its agent says {}: {}", text(&c["reason"]), text(&c["message"]));
            causes.push(
                Cause::new("AgentNotReady", message)
                    .about(node)
                    .fix("on the node", "journalctl -u keelson -u kubelet -e"),
            );
        }
        Some(_) => {}
    }
    let pressures = [
        ("MemoryPressure", "memory", "kubectl top pods -A --sort-by=memory"),
        ("DiskPressure", "disk space", "df -h"),
        ("PIDPressure", "process ids", "ps -e --no-headers | wc -l"),
    ];
    for (kind, what, command) in pressures {
        if let Some(c) = condition_is(node, kind, "True") {
            let message = format!("it is short of {what} ({kind}): {}", text(&c["message"]));
            causes.push(Cause::new(kind, message).about(node).fix("", command));
        }
    }
    if let Some(c) = condition_is(node, "NetworkUnavailable", "True") {
        causes.push(
            Cause::new("NetworkUnavailable", format!("its network is not set up: {}", text(&c["message"]))).about(node),
        );
    }
    if node["spec"]["unschedulable"] == true {
        causes.push(
            Cause::new("Cordoned", "it is cordoned: no new pods")
                .about(node)
                .fix("", format!("kubectl uncordon {name}")),
        );
    }
    let own = |taint: &&Value| {
        let key = text(&taint["key"]);
        !key.starts_with("node.kubernetes.io/") && text(&taint["effect"]) != "PreferNoSchedule"
    };
    for taint in items(&node["spec"]["taints"]).filter(own) {
        let (key, effect) = (text(&taint["key"]), text(&taint["effect"]));
        if key == "node.cloudprovider.kubernetes.io/uninitialized" {
            causes.push(Cause::new("CloudUninitialized", "the cloud's controller has yet to prepare it").about(node));
            continue;
        }
        let message = format!("it is tainted {key}:{effect}: only pods that tolerate it come here");
        causes.push(
            Cause::new("Tainted", message).about(node).fix("", format!("kubectl taint nodes {name} {key}:{effect}-")),
        );
    }
    causes
}

fn silent(look: &Look, node: &Value, condition: &Value) -> Cause {
    let name = api::meta::name(node);
    let renewed = match look.world.get("leases.coordination.k8s.io", "kube-node-lease", name) {
        Found::Here(lease) => look.since(&lease["spec"]["renewTime"]),
        Found::Absent | Found::Unknown => look.since(&condition["lastHeartbeatTime"]),
    };
    let since = renewed.map(|s| format!(" for {s}")).unwrap_or_default();
    let message =
        format!("nothing was heard of its agent{since}: the machine is off, cut off, or its agent does not run");
    Cause::new("AgentSilent", message)
        .about(node)
        .fix("on the node", "systemctl status keelson kubelet")
        .fix("if the machine is gone for good", format!("kubectl delete node {name}"))
}
