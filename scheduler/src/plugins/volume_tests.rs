//! Volumes as tables: claims, volumes and classes in a few words, then where the pod goes and what is bound there.
//! Expectations follow `volumebinding.FindPodVolumes`, `FindMatchingVolume`, `CSILimits.Filter` and `VolumeZone`.

use std::sync::Arc;

use api_client::ObjectKey;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::config::Config;
use crate::cycle::schedule;
use crate::objects::{Pod, Volume};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// Nodes a and b of zones 1 and 2, and the classes `late` (driver.example.com) and `local` (no provisioner), which
/// both wait for consumers.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a", "1"), ("b", "2")] {
        cluster.set_node(read(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone } },
            "status": { "allocatable": { "cpu": "4", "memory": "4Gi", "pods": "10" } },
        })));
    }
    for (name, provisioner) in [("late", "driver.example.com"), ("local", "kubernetes.io/no-provisioner")] {
        let class = json!({ "metadata": { "name": name }, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer" });
        cluster.storage.set_class(name, Some(read(class)));
    }
    cluster
}

fn claim(cluster: &mut Cluster, name: &str, size: &str, patch: Value) {
    let mut claim = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": { "requests": { "storage": size } } },
    });
    merge(&mut claim, &patch);
    cluster.storage.set_claim(&ObjectKey::new("default", name), Some(read(claim)));
}

fn bound_to(volume: &str) -> Value {
    json!({ "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } }, "spec": { "volumeName": volume } })
}

fn volume(cluster: &mut Cluster, name: &str, size: &str, node: &str, patch: Value) {
    let mut volume = json!({
        "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "capacity": { "storage": size } },
        "status": { "phase": "Available" },
    });
    if !node.is_empty() {
        volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] = json!([
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }]);
    }
    merge(&mut volume, &patch);
    cluster.storage.set_volume(name, Some(read::<Volume>(volume)));
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn pod(name: &str, claims: &[&str]) -> Arc<Pod> {
    let volumes: Vec<Value> =
        claims.iter().map(|c| json!({ "name": c, "persistentVolumeClaim": { "claimName": c } })).collect();
    read(json!({ "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": { "volumes": volumes } }))
}

fn check(cluster: &mut Cluster, claims: &[&str], expected: Expect) {
    let config = Config::default();
    let answer = match schedule(&pod("p", claims), &config, &config.profiles[0], cluster, &mut 0, 0) {
        Ok(choice) => {
            let volumes = choice.bindings.volumes.iter();
            let volumes = volumes.map(|(v, c)| format!(" {}={}", c.metadata.name, v.metadata.name));
            let made = choice.bindings.provisions.iter().map(|c| format!(" {}=new", c.metadata.name));
            volumes.chain(made).fold(choice.node.metadata.name.clone(), |all, one| all + &one)
        }
        Err(failure) => failure.error.to_string(),
    };
    expected.assert_eq(&answer);
}

#[test]
fn the_smallest_volume_the_node_reaches_is_taken() {
    let mut cluster = cluster();
    volume(&mut cluster, "big", "10Gi", "b", json!({}));
    volume(&mut cluster, "fit", "2Gi", "b", json!({}));
    volume(&mut cluster, "small", "1Gi", "a", json!({}));
    claim(&mut cluster, "data", "2Gi", json!({}));
    check(&mut cluster, &["data"], expect!["b data=fit"]);
    claim(&mut cluster, "more", "1Gi", json!({}));
    // Both claims need a volume of their own on one node.
    check(&mut cluster, &["data", "more"], expect!["b more=fit data=big"]);
}

#[test]
fn volumes_that_will_not_do_are_passed_over() {
    let mut cluster = cluster();
    claim(&mut cluster, "data", "1Gi", json!({ "spec": { "selector": { "matchLabels": { "disk": "ssd" } } } }));
    volume(
        &mut cluster,
        "taken",
        "1Gi",
        "a",
        json!({ "spec": { "claimRef": { "namespace": "default", "name": "other" } } }),
    );
    volume(&mut cluster, "block", "1Gi", "a", json!({ "spec": { "volumeMode": "Block" } }));
    volume(&mut cluster, "hdd", "1Gi", "a", json!({ "metadata": { "labels": { "disk": "hdd" } } }));
    let refused = expect!["0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."];
    check(&mut cluster, &["data"], refused);
    volume(&mut cluster, "ssd", "1Gi", "b", json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    check(&mut cluster, &["data"], expect!["b data=ssd"]);
    let reserved = json!({ "spec": { "claimRef": { "namespace": "default", "name": "data", "uid": "data" } } });
    volume(&mut cluster, "mine", "5Gi", "a", reserved);
    // The one that is reserved for the claim, though it is larger; its node is the only one.
    check(&mut cluster, &["data"], expect!["a data=mine"]);
}

#[test]
fn a_provisioner_is_asked_where_it_can_help() {
    let mut cluster = cluster();
    let late = json!({ "spec": { "storageClassName": "late" } });
    claim(&mut cluster, "data", "1Gi", late.clone());
    check(&mut cluster, &["data"], expect!["a data=new"]);
    let selected = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "b" } } });
    let mut chosen = late.clone();
    merge(&mut chosen, &selected);
    claim(&mut cluster, "data", "1Gi", chosen);
    check(&mut cluster, &["data"], expect!["b data=new"]);
    // The driver tells how much is left, and where.
    claim(&mut cluster, "data", "1Gi", late);
    let driver = json!({ "metadata": { "name": "driver.example.com" }, "spec": { "storageCapacity": true } });
    cluster.storage.set_driver("driver.example.com", Some(read(driver)));
    let refused = expect!["0/2 nodes are available: 2 node(s) did not have enough free storage."];
    check(&mut cluster, &["data"], refused);
    let capacity = json!({ "metadata": { "name": "c", "namespace": "d" }, "storageClassName": "late", "capacity": "5Gi",
        "nodeTopology": { "matchLabels": { "kubernetes.io/hostname": "b" } } });
    cluster.storage.set_capacity(&ObjectKey::new("d", "c"), Some(read(capacity)));
    check(&mut cluster, &["data"], expect!["b data=new"]);
}

#[test]
fn what_a_pod_on_its_way_has_reserved_is_not_given_twice() {
    let mut cluster = cluster();
    volume(&mut cluster, "only", "1Gi", "a", json!({}));
    claim(&mut cluster, "one", "1Gi", json!({}));
    claim(&mut cluster, "two", "1Gi", json!({}));
    let config = Config::default();
    let first = schedule(&pod("first", &["one"]), &config, &config.profiles[0], &mut cluster, &mut 0, 0);
    let first = first.unwrap_or_else(|failure| panic!("{}", failure.error));
    cluster.storage.reserve("first", "a", first.bindings);
    let refused = expect!["0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."];
    check(&mut cluster, &["two"], refused);
    cluster.storage.release("first");
    check(&mut cluster, &["two"], expect!["a two=only"]);
}

#[test]
fn bound_volumes_hold_the_pod() {
    let mut cluster = cluster();
    volume(&mut cluster, "v", "1Gi", "b", json!({}));
    claim(&mut cluster, "data", "1Gi", bound_to("v"));
    check(&mut cluster, &["data"], expect!["b"]);
    volume(
        &mut cluster,
        "z",
        "1Gi",
        "",
        json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "1__3" } } }),
    );
    claim(&mut cluster, "zoned", "1Gi", bound_to("z"));
    check(&mut cluster, &["zoned"], expect!["a"]);
    let refused = expect![
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had no available volume zone."
    ];
    check(&mut cluster, &["data", "zoned"], refused);
    claim(&mut cluster, "lost", "1Gi", bound_to("nowhere"));
    check(&mut cluster, &["lost"], expect![[r#"0/2 nodes are available: persistentvolume "nowhere" not found."#]]);
}

#[test]
fn a_node_attaches_so_many_volumes_of_a_driver() {
    let mut cluster = cluster();
    for (node, limit) in [("a", 1), ("b", 2)] {
        let csi = json!({ "metadata": { "name": node },
            "spec": { "drivers": [{ "name": "driver.example.com", "allocatable": { "count": limit } }] } });
        cluster.storage.set_csi_node(node, Some(read(csi)));
    }
    for name in ["v1", "v2", "v3"] {
        let csi = json!({ "spec": { "csi": { "driver": "driver.example.com", "volumeHandle": name } } });
        volume(&mut cluster, name, "1Gi", "", csi);
        claim(&mut cluster, name, "1Gi", bound_to(name));
    }
    check(&mut cluster, &["v1", "v2"], expect!["b"]);
    check(&mut cluster, &["v1", "v2", "v3"], expect!["0/2 nodes are available: 2 node(s) exceed max volume count."]);
    cluster.assume(&pod("r", &["v1"]), "b");
    // A volume that is there already counts once.
    check(&mut cluster, &["v1", "v2"], expect!["b"]);
}

#[test]
fn a_claim_for_one_pod_is_used_by_one() {
    let mut cluster = cluster();
    volume(&mut cluster, "v", "1Gi", "", json!({}));
    let mut exclusive = bound_to("v");
    merge(&mut exclusive, &json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } }));
    claim(&mut cluster, "data", "1Gi", exclusive);
    check(&mut cluster, &["data"], expect!["a"]);
    cluster.assume(&pod("r", &["data"]), "a");
    let refused = expect![
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod."
    ];
    check(&mut cluster, &["data"], refused);
}
