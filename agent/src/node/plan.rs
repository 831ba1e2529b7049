//! The node's status as a pure function of facts and health.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};

use super::{
    facts::Facts,
    thresholds::{Amount, Thresholds},
};
use crate::runtime::image::Listed;

/// A lease renewed within this time has somebody who renews it (the kubelet's lease duration).
const LEASE_FRESH: SignedDuration = SignedDuration::from_secs(40);
/// Images listed in the status, largest first (kubelet's `nodeStatusMaxImages`).
const IMAGES_MAX: usize = 50;
/// Names listed of one image (kubelet's `MaxNamesPerImageInNodeStatus`), those with its digest first.
const NAMES_MAX: usize = 5;

#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why containerd can't be used.
    pub runtime: Option<String>,
    /// Why pods can't be attached to a network.
    pub network: Option<String>,
    pub memory_available_bytes: u64,
    /// Bytes of the disk, all and available; `None` when they can't be read.
    pub disk: Option<(u64, u64)>,
    /// Used and most.
    pub pids: (u64, u64),
}

pub struct Input<'a> {
    pub name: &'a str,
    pub addresses: &'a [IpAddr],
    pub port: u16,
    pub max_pods: u32,
    pub thresholds: &'a Thresholds,
    pub facts: &'a Facts,
    pub runtime_version: &'a str,
    pub images: &'a [Listed],
    pub health: &'a Health,
    pub before: Option<&'a NodeStatus>,
    pub now: Timestamp,
}

/// Labels a node has by itself, and those it was given.
pub fn labels(name: &str, given: &[(String, String)]) -> BTreeMap<String, String> {
    let architecture = crate::image::platform::architecture();
    let own = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ];
    own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).chain(given.iter().cloned()).collect()
}

/// Why this machine must not be the node of its name: the Node that is there belongs to another key, or another machine
/// keeps it alive. `renewed` is when its lease was last renewed.
pub fn taken(
    node: &Node,
    key: Option<&str>,
    machine_id: &str,
    renewed: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let theirs = node.metadata.annotations.as_ref().and_then(|a| a.get(crate::certificates::NODE_KEY));
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let other = info.map(|info| info.machine_id.as_str()).filter(|id| !id.is_empty() && *id != machine_id);
    let alive = renewed.is_some_and(|at| now.duration_since(at) < LEASE_FRESH);
    let why = match (theirs, key) {
        (Some(theirs), Some(own)) if theirs != own => "it was registered with another key".to_owned(),
        (Some(theirs), Some(own)) if theirs == own => return None,
        _ => format!("the machine with id {} keeps it alive", other.filter(|_| alive)?),
    };
    Some(format!(
        "node name {name:?} is taken: {why}. Give this machine another name (--node-name), or, if that machine is gone, \
         delete its Node (kubectl delete node {name})"
    ))
}

/// Annotations a node has by itself.
pub fn annotations(key: Option<&str>) -> BTreeMap<&'static str, String> {
    key.map(|key| (crate::certificates::NODE_KEY, key.to_owned())).into_iter().collect()
}

pub fn status(input: &Input<'_>) -> Value {
    let facts = input.facts;
    let resources = json!({
        "cpu": facts.cpus.to_string(),
        "memory": format!("{}Ki", facts.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", facts.disk_bytes / 1024),
        "pods": input.max_pods.to_string(),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    });
    let mut allocatable = resources.clone();
    // What eviction keeps free can't be given to pods.
    let memory = facts.memory_bytes.saturating_sub(input.thresholds.memory.of(facts.memory_bytes));
    allocatable["memory"] = format!("{}Ki", memory / 1024).into();
    let disk = facts.disk_bytes.saturating_sub(input.thresholds.disk.of(facts.disk_bytes));
    allocatable["ephemeral-storage"] = disk.to_string().into();
    let mut addresses =
        input.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect::<Vec<_>>();
    addresses.push(json!({"type": "Hostname", "address": input.name}));
    json!({
        "addresses": addresses,
        "capacity": resources,
        "allocatable": allocatable,
        "conditions": conditions(input),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": input.port}},
        "nodeInfo": {
            "architecture": facts.architecture,
            "bootID": facts.boot_id,
            "containerRuntimeVersion": format!("containerd://{}", input.runtime_version.trim_start_matches('v')),
            "kernelVersion": facts.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": api::KUBERNETES_VERSION,
            "machineID": facts.machine_id,
            "operatingSystem": "linux",
            "osImage": facts.os_image,
            "systemUUID": facts.system_uuid,
        },
        "images": images(input.images),
        "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": false}}],
    })
}

/// One entry per image, with all its names.
fn images(listed: &[Listed]) -> Vec<Value> {
    let mut by_target: BTreeMap<&str, (i64, Vec<&str>)> = BTreeMap::new();
    for image in listed {
        let entry = by_target.entry(&image.target).or_insert((image.size, Vec::new()));
        entry.1.push(&image.name);
    }
    for (_, names) in by_target.values_mut() {
        names.sort_by_key(|name| (!name.contains('@'), *name));
        names.truncate(NAMES_MAX);
    }
    let mut images = by_target.into_values().collect::<Vec<_>>();
    images.sort_by_key(|(size, names)| (std::cmp::Reverse(*size), names.clone()));
    let shown = images.into_iter().take(IMAGES_MAX);
    shown.map(|(size, names)| json!({"names": names, "sizeBytes": size})).collect()
}

fn conditions(input: &Input<'_>) -> Vec<Value> {
    let health = input.health;
    let thresholds = input.thresholds;
    // The kubelet's words and the threshold; what is available changes all the time, and so would the status.
    let pressure = |kind, signal, all_and_available: Option<(u64, u64)>, least: Amount, words: [[&str; 2]; 2]| {
        let holds = all_and_available.is_some_and(|(all, available)| available < least.of(all));
        let [yes, no] = words;
        let ([reason, message], why) =
            if holds { (yes, format!(": {signal} is below {least}")) } else { (no, String::new()) };
        condition(input, kind, holds, reason, &format!("{message}{why}"))
    };
    let (used, most) = health.pids;
    let problems = [&health.runtime, &health.network].into_iter().flatten().cloned().collect::<Vec<_>>();
    let ready = problems.is_empty();
    let (reason, message) = match ready {
        true => ("KubeletReady", "keelson agent is posting ready status".to_owned()),
        false => ("KubeletNotReady", problems.join("; ")),
    };
    vec![
        pressure(
            "MemoryPressure",
            "memory.available",
            Some((input.facts.memory_bytes, health.memory_available_bytes)),
            thresholds.memory,
            [
                ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
                ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ],
        ),
        pressure(
            "DiskPressure",
            "nodefs.available",
            health.disk,
            thresholds.disk,
            [
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ],
        ),
        pressure(
            "PIDPressure",
            "pid.available",
            Some((most, most.saturating_sub(used))),
            thresholds.pids,
            [
                ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
                ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ],
        ),
        condition(input, "Ready", ready, reason, &message),
    ]
}

fn condition(input: &Input<'_>, kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let old = input.before.and_then(|before| before.conditions.as_ref());
    let old = old.and_then(|list| list.iter().find(|condition| condition.type_ == kind && condition.status == status));
    let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(input.now));
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": Time(input.now), "lastTransitionTime": since,
    })
}

/// Is there anything to tell beside the time of the last look?
pub fn differs(before: Option<&NodeStatus>, status: &Value) -> bool {
    let Ok(mut after) = serde_json::from_value::<NodeStatus>(status.clone()) else { return true };
    let Some(before) = before else { return true };
    let told = |status: &NodeStatus| {
        let list = status.conditions.iter().flatten();
        let told = |condition: &NodeCondition| {
            (condition.type_.clone(), condition.status.clone(), condition.reason.clone(), condition.message.clone())
        };
        list.map(told).collect::<std::collections::BTreeSet<_>>()
    };
    if !told(before).is_superset(&told(&after)) {
        return true;
    }
    after.conditions.clone_from(&before.conditions);
    let fields = |status: &NodeStatus| serde_json::to_value(status).unwrap_or_default();
    let (before, after) = (fields(before), fields(&after));
    let changed = |(key, value): (&String, &Value)| before.get(key) != Some(value);
    after.as_object().is_some_and(|after| after.iter().any(changed))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use k8s_openapi::api::core::v1::{Node, NodeStatus};
    use serde_json::Value;

    use super::{Health, Input, differs, labels, status, taken};
    use crate::{
        node::{facts::Facts, thresholds::Thresholds},
        runtime::image::Listed,
    };

    fn facts() -> Facts {
        Facts { cpus: 2, memory_bytes: 4 << 30, disk_bytes: 10 << 30, ..Facts::default() }
    }

    fn healthy() -> Health {
        Health {
            memory_available_bytes: 1 << 30,
            disk: Some((10 << 30, 5 << 30)),
            pids: (100, 32768),
            ..Health::default()
        }
    }

    fn of(health: &Health, before: Option<&NodeStatus>, now: &str) -> Value {
        let image = |name: &str, target: &str, size| Listed {
            name: name.into(),
            target: target.into(),
            size,
            ..Listed::default()
        };
        status(&Input {
            name: "n1",
            addresses: &["192.168.0.2".parse().unwrap()],
            port: 10250,
            max_pods: 110,
            thresholds: &Thresholds::default(),
            facts: &facts(),
            runtime_version: "v1.6.20",
            images: &[image("a:1", "x", 5), image("b:1", "y", 9), image("a:2", "x", 5), image("b@sha256:y", "y", 9)],
            health,
            before,
            now: now.parse().unwrap(),
        })
    }

    fn parsed(status: &Value) -> NodeStatus {
        serde_json::from_value(status.clone()).unwrap()
    }

    #[test]
    fn resources_leave_room_for_the_node() {
        let status = of(&healthy(), None, "2026-01-01T00:00:00Z");
        expect![[r#"{"cpu":"2","ephemeral-storage":"10485760Ki","hugepages-1Gi":"0","hugepages-2Mi":"0","memory":"4194304Ki","pods":"110"}"#]]
            .assert_eq(&status["capacity"].to_string());
        assert_eq!(status["allocatable"]["memory"], "4091904Ki");
        expect![[r#"[{"names":["b@sha256:y","b:1"],"sizeBytes":9},{"names":["a:1","a:2"],"sizeBytes":5}]"#]]
            .assert_eq(&status["images"].to_string());
    }

    #[test]
    fn a_node_without_network_or_runtime_is_not_ready_and_says_why() {
        let bad = Health {
            runtime: Some("containerd does not answer".into()),
            network: Some("no range".into()),
            memory_available_bytes: 1,
            ..healthy()
        };
        let status = of(&bad, None, "2026-01-01T00:00:00Z");
        let told = |index: usize| {
            let condition = &status["conditions"][index];
            format!("{} {} {}", condition["type"], condition["status"], condition["message"]).replace('"', "")
        };
        assert_eq!(told(3), "Ready False containerd does not answer; no range");
        assert_eq!(
            told(0),
            "MemoryPressure True kubelet has insufficient memory available: memory.available is below 104857600"
        );
    }

    #[test]
    fn only_a_change_is_told_and_transitions_keep_their_time() {
        let first = of(&healthy(), None, "2026-01-01T00:00:00Z");
        let later = of(&healthy(), Some(&parsed(&first)), "2026-01-01T00:01:00Z");
        assert!(!differs(Some(&parsed(&first)), &later));
        assert_eq!(later["conditions"][3]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(later["conditions"][3]["lastHeartbeatTime"], "2026-01-01T00:01:00Z");
        let sick =
            of(&Health { network: Some("x".into()), ..healthy() }, Some(&parsed(&later)), "2026-01-01T00:02:00Z");
        assert!(differs(Some(&parsed(&later)), &sick));
        assert_eq!(sick["conditions"][3]["lastTransitionTime"], "2026-01-01T00:02:00Z");
    }

    #[test]
    fn a_name_is_taken_by_another_key_or_a_living_machine() {
        let node = |key: Option<&str>| -> Node {
            let annotations = key.map(|key| serde_json::json!({"keelson.io/node-key": key}));
            let status = serde_json::json!({"nodeInfo": {
                "machineID": "m1", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                "architecture": "",
            }});
            let metadata = serde_json::json!({"name": "n1", "annotations": annotations});
            serde_json::from_value(serde_json::json!({"metadata": metadata, "status": status})).unwrap()
        };
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let (fresh, stale) =
            (Some("2026-01-01T00:00:50Z".parse().unwrap()), Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert!(taken(&node(Some("a")), Some("b"), "m1", stale, now).unwrap().contains("another key"));
        assert_eq!(taken(&node(Some("a")), Some("a"), "m2", fresh, now), None, "the disk moved with its key");
        assert!(taken(&node(None), None, "m2", fresh, now).unwrap().contains("id m1 keeps it alive"));
        assert_eq!(taken(&node(None), None, "m1", fresh, now), None, "our own, from before a restart");
        assert_eq!(taken(&node(None), None, "m2", stale, now), None, "a server that moved to another machine");
    }

    #[test]
    fn given_labels_join_the_nodes_own() {
        let labels = labels("n1", &[("disk".into(), "ssd".into())]);
        assert_eq!(labels["kubernetes.io/hostname"], "n1");
        assert_eq!(labels["disk"], "ssd");
    }
}
