//! Nodes that fall silent and come back.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use serde_json::json;

use super::plan::{self, Eviction, Ready};
use crate::objects::Node;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn node(ready: &str, taints: serde_json::Value) -> Node {
    let conditions = json!([
        {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T11:59:00Z"},
        {"type": "DiskPressure", "status": "True"},
    ]);
    let object = json!({
        "metadata": {"name": "n1", "creationTimestamp": "2026-01-01T11:00:00Z"},
        "spec": {"taints": taints},
        "status": {"conditions": conditions},
    });
    serde_json::from_value(object).unwrap()
}

fn check(node: &Node, eviction: Eviction, expected: Expect) {
    let shown = match plan::taints(node, Ready::of(node), eviction, now()) {
        None => "unchanged".to_owned(),
        Some(taints) => taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>().join(" "),
    };
    expected.assert_eq(&shown);
}

#[test]
fn a_silent_node_becomes_unknown_once() {
    let silent = plan::silence(&node("True", json!([])), now()).expect("changes");
    let shown: Vec<String> = silent["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {} {} {}", c["type"], c["status"], c["reason"], c["lastHeartbeatTime"]))
        .collect();
    expect![[r#"
        "Ready" "Unknown" "NodeStatusUnknown" "2026-01-01T11:59:00Z"
        "MemoryPressure" "Unknown" "NodeStatusNeverUpdated" "2026-01-01T11:00:00Z"
        "DiskPressure" "Unknown" "NodeStatusUnknown" null
        "PIDPressure" "Unknown" "NodeStatusNeverUpdated" "2026-01-01T11:00:00Z""#]]
    .assert_eq(&shown.join("\n"));
    let mut known = node("Unknown", json!([]));
    for kind in ["MemoryPressure", "PIDPressure"] {
        known.status.conditions.push(serde_json::from_value(json!({"type": kind, "status": "Unknown"})).unwrap());
    }
    known.status.conditions[1].status = "Unknown".into();
    assert_eq!(plan::silence(&known, now()), None);
}

#[test]
fn taints_follow_conditions_and_leave_others_alone() {
    let own = json!({"key": "dedicated", "effect": "NoExecute", "value": "x"});
    check(
        &node("True", json!([own])),
        Eviction::Now,
        expect!["dedicated:NoExecute node.kubernetes.io/disk-pressure:NoSchedule"],
    );
    let pressed = json!({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"});
    check(&node("True", json!([own, pressed])), Eviction::Now, expect!["unchanged"]);
    check(
        &node("Unknown", json!([pressed])),
        Eviction::Now,
        expect![
            "node.kubernetes.io/disk-pressure:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute"
        ],
    );
    check(
        &node("Unknown", json!([pressed])),
        Eviction::Later,
        expect!["node.kubernetes.io/disk-pressure:NoSchedule node.kubernetes.io/unreachable:NoSchedule"],
    );
    // From not ready to unreachable without waiting for a turn; and back to ready.
    let executed = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
    check(
        &node("Unknown", json!([pressed, executed])),
        Eviction::Later,
        expect![
            "node.kubernetes.io/disk-pressure:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute"
        ],
    );
    check(
        &node("True", json!([pressed, executed])),
        Eviction::Later,
        expect!["node.kubernetes.io/disk-pressure:NoSchedule"],
    );
    check(
        &node("False", json!([pressed, executed])),
        Eviction::Never,
        expect!["node.kubernetes.io/disk-pressure:NoSchedule node.kubernetes.io/not-ready:NoSchedule"],
    );
}

#[test]
fn evictions_slow_down_and_stop_with_the_zone() {
    let nodes = |zone: &str, ready: usize, unready: usize| {
        let make = |status: &str| {
            let mut node = node(status, json!([]));
            node.metadata.labels.insert("topology.kubernetes.io/zone".into(), zone.into());
            node
        };
        let mut nodes: Vec<Node> = (0..ready).map(|_| make("True")).collect();
        nodes.extend((0..unready).map(|_| make("Unknown")));
        nodes
    };
    let rates = |nodes: Vec<Node>| {
        let mut zones = plan::Zones::default();
        // One more of each zone that has come and gone.
        nodes.iter().chain(&nodes).for_each(|node| zones.add(node));
        nodes.iter().for_each(|node| zones.remove(node));
        zones.eviction_rates().map(|rates| rates.into_values().collect::<Vec<_>>())
    };
    assert_eq!(rates(nodes("a", 0, 1)), None, "the only node is silent: more likely we are");
    assert_eq!(rates(nodes("a", 2, 2)), Some(vec![0.1]));
    assert_eq!(rates(nodes("a", 2, 3)), Some(vec![0.0]));
    assert_eq!(rates(nodes("a", 30, 40)), Some(vec![0.01]));
    assert_eq!(rates([nodes("a", 0, 3), nodes("b", 3, 0)].concat()), Some(vec![0.1, 0.1]));
}

#[test]
fn only_what_counts_moves_a_node() {
    let (ready, silent) = (node("True", json!([])), node("Unknown", json!([])));
    let mut elsewhere = ready.clone();
    elsewhere.metadata.labels.insert("topology.kubernetes.io/zone".into(), "b".into());
    let mut heartbeat = ready.clone();
    heartbeat.metadata.labels.insert("of".into(), "no interest".into());
    let moved = |old: &Node, new: &Node| plan::Zones::is_moved(Some(old), Some(new));
    assert_eq!([moved(&ready, &heartbeat), moved(&ready, &silent), moved(&ready, &elsewhere)], [false, true, true]);
    assert!(plan::Zones::is_moved(None, Some(&ready)) && plan::Zones::is_moved(Some(&ready), None));
}
