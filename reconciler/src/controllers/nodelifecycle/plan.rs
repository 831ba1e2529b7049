//! What a silent, unready or recovered node needs: conditions and taints. Pure; the rules are those of upstream's
//! `nodelifecycle` controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::objects::{Node, Pod};

/// A node that neither renews its lease nor posts its status for this long is Unknown (`--node-monitor-grace-period`).
pub const GRACE: Duration = Duration::from_secs(50);
/// The same for a node that never posted a status (`--node-startup-grace-period`).
pub const STARTUP_GRACE: Duration = Duration::from_secs(60);

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// The conditions that a silent kubelet can't vouch for.
const SILENCED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Taints by condition type and status (`nodeConditionToTaintKeyStatusMap`).
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    True,
    False,
    Unknown,
}

impl Ready {
    pub fn of(node: &Node) -> Self {
        match node.condition("Ready").map_or("Unknown", |c| &c.status) {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

/// How long a node may be silent.
pub fn grace(node: &Node) -> Duration {
    if node.condition("Ready").is_some() { GRACE } else { STARTUP_GRACE }
}

/// The status patch (strategic) for a node that has been silent for too long; `None` if it says so already.
pub fn silence(node: &Node, now: Timestamp) -> Option<Value> {
    let time = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let change = |kind: &&str| match node.condition(kind) {
        None => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node.metadata.creation_timestamp.map(time), "lastTransitionTime": time(now),
        })),
        Some(c) if c.status != "Unknown" => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": c.last_heartbeat_time.map(time), "lastTransitionTime": time(now),
        })),
        Some(_) => None,
    };
    let changes: Vec<Value> = SILENCED.iter().filter_map(change).collect();
    (!changes.is_empty()).then(|| json!({"status": {"conditions": changes}}))
}

/// What is to happen to the pods of a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Taint the node, so that its pods go (when their tolerations run out).
    Now,
    /// Leave the taints as they are: others go first.
    Later,
    /// Take the taints away: the whole cluster is unreachable, so the fault is more likely ours.
    Never,
}

/// The taints a node should have; `None` if it has them. Taints of others are left alone.
pub fn taints(node: &Node, ready: Ready, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in CONDITION_TAINTS {
        let current = match (kind, ready) {
            ("Ready", Ready::True) => "True",
            ("Ready", Ready::False) => "False",
            ("Ready", Ready::Unknown) => "Unknown",
            _ => node.condition(kind).map_or("", |c| &c.status),
        };
        if current == status {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let tainted = node.has_taint(NOT_READY, NO_EXECUTE) || node.has_taint(UNREACHABLE, NO_EXECUTE);
    let execute = match (ready, eviction) {
        (Ready::True, _) | (_, Eviction::Never) => false,
        (_, Eviction::Now) => true,
        (_, Eviction::Later) => tainted,
    };
    if execute {
        wanted.push((if ready == Ready::False { NOT_READY } else { UNREACHABLE }, NO_EXECUTE));
    }
    merge(node, &wanted, now)
}

fn merge(node: &Node, wanted: &[(&str, &str)], now: Timestamp) -> Option<Vec<Taint>> {
    let is_ours = |t: &Taint| {
        let by_condition = CONDITION_TAINTS.iter().any(|(.., key)| t.key == *key) || t.key == UNSCHEDULABLE;
        match t.effect.as_str() {
            NO_SCHEDULE => by_condition,
            NO_EXECUTE => t.key == NOT_READY || t.key == UNREACHABLE,
            _ => false,
        }
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let mut taints: Vec<Taint> = node.spec.taints.iter().filter(|t| !is_ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == *key && t.effect == *effect) {
            let (key, effect, time_added) = ((*key).to_owned(), (*effect).to_owned(), Some(Time(now)));
            taints.push(Taint { key, effect, time_added, value: None });
        }
    }
    (taints != node.spec.taints).then_some(taints)
}

/// Pods of a node that lost readiness which still say that they are ready (`MarkPodsNotReady`). A kubelet that lives
/// may say so again afterwards; it is believed.
pub fn to_mark_unready<'a>(node: &Node, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Arc<Pod>> {
    let since = node.condition("Ready").and_then(|c| c.last_transition_time);
    let is_stale = |pod: &&Arc<Pod>| pod.ready_since().is_some_and(|ready| since.is_none_or(|since| ready <= since));
    pods.filter(is_stale).cloned().collect()
}

/// The state of a zone, by its nodes (`ComputeZoneState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    Normal,
    Partial,
    Full,
}

/// The share of unready nodes from which a zone counts as partially disrupted (`--unhealthy-zone-threshold`).
const UNHEALTHY_ZONE_THRESHOLD: f64 = 0.55;
/// Zones above this size go on evicting slowly while partially disrupted (`--large-cluster-size-threshold`).
const LARGE_ZONE_NODES: usize = 50;
/// Nodes tainted per second and zone (`--node-eviction-rate`, `--secondary-node-eviction-rate`).
const EVICTIONS_PER_SECOND: f64 = 0.1;
const EVICTIONS_PER_SECOND_SLOW: f64 = 0.01;

/// How many nodes of each zone are ready, and how many are not; kept as nodes change, so that a cluster of thousands
/// is not counted for each of its nodes.
#[derive(Clone, Debug, Default)]
pub struct Zones(BTreeMap<String, (usize, usize)>);

impl Zones {
    /// Whether a node's change changes the counts.
    pub fn is_moved(old: Option<&Node>, new: Option<&Node>) -> bool {
        let place = |node: &Node| (zone_key(node), is_excluded(node), Ready::of(node) == Ready::True);
        old.map(place) != new.map(place)
    }

    pub fn add(&mut self, node: &Node) {
        if !is_excluded(node) {
            *self.count(node) += 1;
        }
    }

    pub fn remove(&mut self, node: &Node) {
        if is_excluded(node) {
            return;
        }
        let count = self.count(node);
        *count = count.saturating_sub(1);
        self.0.retain(|_, counts| *counts != (0, 0));
    }

    fn count(&mut self, node: &Node) -> &mut usize {
        let counts = self.0.entry(zone_key(node)).or_default();
        if Ready::of(node) == Ready::True { &mut counts.0 } else { &mut counts.1 }
    }

    /// How fast nodes of each zone may be tainted, in nodes per second; 0 stops. `None`: all zones are fully disrupted.
    pub fn eviction_rates(&self) -> Option<BTreeMap<&str, f64>> {
        let is_full = |(ready, unready): &(usize, usize)| zone_state(*ready, *unready) == ZoneState::Full;
        if !self.0.is_empty() && self.0.values().all(is_full) {
            return None;
        }
        let rate = |(ready, unready): (usize, usize)| match zone_state(ready, unready) {
            ZoneState::Normal | ZoneState::Full => EVICTIONS_PER_SECOND,
            ZoneState::Partial if ready + unready > LARGE_ZONE_NODES => EVICTIONS_PER_SECOND_SLOW,
            ZoneState::Partial => 0.0,
        };
        Some(self.0.iter().map(|(zone, counts)| (zone.as_str(), rate(*counts))).collect())
    }
}

fn zone_state(ready: usize, unready: usize) -> ZoneState {
    // Node counts are far below 2^52, so the conversion is exact.
    let share = unready as f64 / (ready + unready).max(1) as f64;
    match (ready, unready) {
        (0, 1..) => ZoneState::Full,
        (_, 3..) if share >= UNHEALTHY_ZONE_THRESHOLD => ZoneState::Partial,
        _ => ZoneState::Normal,
    }
}

/// Region and zone of a node (`nodetopology.GetZoneKey`).
pub fn zone_key(node: &Node) -> String {
    let label = |name: &str| node.metadata.labels.get(name).map_or("", String::as_str);
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

fn is_excluded(node: &Node) -> bool {
    node.metadata.labels.contains_key("node.kubernetes.io/exclude-disruption")
}
