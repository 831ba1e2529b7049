//! Decisions as tables: nodes and pods in a few words, the answer in upstream's words.

use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::config::Config;
use crate::cycle::schedule;
use crate::objects::{Node, Pod};

/// A node with 2 cores, 4 GiB and 10 pods, changed by `patch`.
fn node(name: &str, patch: Value) -> Value {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "10" } },
    });
    merge(&mut node, &patch);
    node
}

/// A pod with one container that asks for 100m CPU, changed by `patch` (of its spec).
fn pod(name: &str, patch: Value) -> Value {
    let mut spec = json!({
        "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": "100m" } } }],
    });
    merge(&mut spec, &patch);
    json!({ "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" } }, "spec": spec })
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

fn check(nodes: &[Value], running: &[Value], pod: Value, expected: Expect) {
    let mut cluster = Cluster::default();
    for node in nodes {
        let node: Node = serde_json::from_value(node.clone()).expect("a Node");
        cluster.set_node(Arc::new(node));
    }
    for running in running {
        let running: Pod = serde_json::from_value(running.clone()).expect("a Pod");
        cluster.set_pod(&Arc::new(running));
    }
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let config = Config::default();
    let answer = match schedule(&pod, &config, &config.profiles[0], &mut cluster, &mut 0, 0) {
        Ok(choice) => choice.node.metadata.name.clone(),
        Err(failure) => failure.error.to_string(),
    };
    expected.assert_eq(&answer);
}

#[test]
fn no_nodes() {
    check(&[], &[], pod("p", json!({})), expect!["no nodes available to schedule pods"]);
}

#[test]
fn reasons_are_counted_and_sorted() {
    let nodes = [
        node("a", json!({ "spec": { "unschedulable": true } })),
        node("b", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })),
        node("c", json!({ "status": { "allocatable": { "cpu": "50m" } } })),
        node("d", json!({ "status": { "allocatable": { "cpu": "50m", "memory": "1Mi" } } })),
    ];
    let hungry =
        json!({ "containers": [{ "image": "i", "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }] });
    check(
        &nodes,
        &[],
        pod("p", hungry),
        expect![
            "0/4 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
        ],
    );
}

#[test]
fn tolerations_open_tainted_nodes() {
    let tainted = node("a", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } }));
    let tolerant =
        json!({ "tolerations": [{ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }] });
    check(&[tainted.clone()], &[], pod("p", tolerant), expect!["a"]);
    let wrong = json!({ "tolerations": [{ "key": "k", "operator": "Equal", "value": "w" }] });
    check(&[tainted], &[], pod("p", wrong), expect!["0/1 nodes are available: 1 node(s) had untolerated taint(s)."]);
}

#[test]
fn the_emptier_node_wins() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let big = json!({ "nodeName": "a", "containers": [{ "image": "i", "resources": { "requests": { "cpu": "1" } } }] });
    check(&nodes, &[pod("r", big)], pod("p", json!({})), expect!["b"]);
}

#[test]
fn a_full_node_is_full() {
    let small = node("a", json!({ "status": { "allocatable": { "pods": "1" } } }));
    let running = pod("r", json!({ "nodeName": "a" }));
    check(&[small], &[running], pod("p", json!({})), expect!["0/1 nodes are available: 1 Too many pods."]);
}

#[test]
fn host_ports_conflict() {
    let port = json!({ "containers": [{ "image": "i", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    let mut running = pod("r", port.clone());
    running["spec"]["nodeName"] = "a".into();
    let expected = expect!["0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."];
    check(&[node("a", json!({}))], &[running], pod("p", port), expected);
}

#[test]
fn node_selectors_and_affinity() {
    let nodes = [node("a", json!({ "metadata": { "labels": { "disk": "ssd", "size": "3" } } })), node("b", json!({}))];
    check(&nodes, &[], pod("p", json!({ "nodeSelector": { "disk": "ssd" } })), expect!["a"]);
    check(
        &nodes,
        &[],
        pod("p", json!({ "nodeSelector": { "disk": "nvme" } })),
        expect!["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."],
    );
    let required = |expression: Value| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } } } })
    };
    check(&nodes, &[], pod("p", required(json!({ "key": "disk", "operator": "DoesNotExist" }))), expect!["b"]);
    check(&nodes, &[], pod("p", required(json!({ "key": "size", "operator": "Gt", "values": ["2"] }))), expect!["a"]);
    let preferred = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 100, "preference": { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] } }] } } });
    check(&nodes, &[], pod("p", preferred), expect!["a"]);
}

#[test]
fn anti_affinity_keeps_pods_apart_both_ways() {
    let apart = json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "kubernetes.io/hostname" }] } } });
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let running = pod("r", json!({ "nodeName": "a" }));
    check(&nodes, &[running], pod("p", apart.clone()), expect!["b"]);
    let mut hermit = pod("r", apart);
    hermit["spec"]["nodeName"] = "a".into();
    check(
        &nodes[..1],
        &[hermit],
        pod("p", json!({})),
        expect!["0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."],
    );
}

#[test]
fn affinity_lets_the_first_of_a_group_in() {
    let together = json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "kubernetes.io/hostname" }] } } });
    let nodes = [node("a", json!({})), node("b", json!({}))];
    check(&nodes, &[], pod("p", together.clone()), expect!["a"]);
    check(&nodes, &[pod("r", json!({ "nodeName": "b" }))], pod("p", together), expect!["b"]);
}

#[test]
fn hard_spread_limits_skew() {
    let spread = json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] });
    let full = node("b", json!({ "spec": { "unschedulable": true } }));
    let nodes = [node("a", json!({})), full];
    let expected = expect![
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
    ];
    check(&nodes, &[pod("r", json!({ "nodeName": "a" }))], pod("p", spread), expected);
}

#[test]
fn pods_of_one_controller_spread_by_default() {
    let owned = |name: &str, node: &str| {
        let mut pod = pod(name, json!({ "nodeName": node }));
        pod["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }]);
        pod
    };
    // The node with the sibling is a little emptier, which spreading outweighs.
    let nodes = [node("a", json!({ "status": { "allocatable": { "cpu": "2100m" } } })), node("b", json!({}))];
    let mut other = pod("o", json!({ "nodeName": "b" }));
    other["metadata"]["ownerReferences"] = json!([]);
    check(&nodes, &[owned("s", "a"), other], owned("p", ""), expect!["b"]);
}

#[test]
fn names_in_match_fields_keep_others_from_being_looked_at() {
    let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({ "spec": { "unschedulable": true } }))];
    let named = |names: &[&str]| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": names }] }] } } } })
    };
    check(&nodes, &[], pod("p", named(&["b"])), expect!["b"]);
    // `findNodesThatFitPod`: the absent nodes' status.
    check(
        &nodes,
        &[],
        pod("p", named(&["c"])),
        expect![
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        ],
    );
    check(
        &nodes,
        &[],
        pod("p", named(&["nowhere"])),
        expect!["0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."],
    );
}

#[test]
fn spread_counts_domains_that_are_missing() {
    let zone = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let spread = |min: i32, policy: &str| {
        json!({ "nodeSelector": { "kubernetes.io/os": "linux" }, "topologySpreadConstraints": [{ "maxSkew": 1,
            "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": min,
            "nodeAffinityPolicy": policy, "labelSelector": { "matchLabels": { "app": "web" } } }] })
    };
    let linux = |mut node: Value| {
        node["metadata"]["labels"]["kubernetes.io/os"] = "linux".into();
        node
    };
    let nodes = [linux(zone("a", "1")), linux(zone("b", "2")), zone("c", "3")];
    let one_each = [pod("r", json!({ "nodeName": "a" })), pod("s", json!({ "nodeName": "b" }))];
    // Zone 3 has no node for the pod: by default it does not take part, and both others are level.
    check(&nodes, &one_each, pod("p", spread(1, "Honor")), expect!["a"]);
    let refused = expect![
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match pod topology spread constraints."
    ];
    check(&nodes, &one_each, pod("p", spread(1, "Ignore")), refused);
    // Three domains are asked for and two take part: the least is none.
    let refused = expect![
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match pod topology spread constraints."
    ];
    check(&nodes, &one_each, pod("p", spread(3, "Honor")), refused);
}

#[test]
fn a_pod_of_the_next_revision_is_spread_by_itself() {
    let spread = json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["hash"],
        "labelSelector": { "matchLabels": { "app": "web" } } }] });
    let roomy = json!({ "status": { "allocatable": { "cpu": "64", "memory": "64Gi" } } });
    let nodes = [node("a", roomy), node("b", json!({}))];
    let labelled = |name: &str, hash: &str, spec: Value| {
        let mut pod = pod(name, spec);
        pod["metadata"]["labels"]["hash"] = hash.into();
        pod
    };
    let old = [labelled("r", "1", json!({ "nodeName": "a" }))];
    check(&nodes, &old, labelled("p", "2", spread.clone()), expect!["a"]);
    check(&nodes, &old, labelled("p", "1", spread), expect!["b"]);
}

/// Pods of one ReplicaSet, decided one after another and assumed only; the node of each. `ties`: what decides between
/// equal nodes.
fn place(nodes: &[Value], specs: &[Value], tie: usize) -> Vec<String> {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(Arc::new(serde_json::from_value(node.clone()).expect("a Node")));
    }
    let (config, mut start) = (Config::default(), 0);
    let mut decide = |(index, spec): (usize, &Value)| {
        let mut pod = pod(&format!("web-{index}"), spec.clone());
        let owner =
            json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true });
        pod["metadata"]["ownerReferences"] = json!([owner]);
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).expect("a Pod"));
        let choice = schedule(&pod, &config, &config.profiles[0], &mut cluster, &mut start, tie + index)
            .unwrap_or_else(|failure| panic!("{}", failure.error));
        cluster.assume(&pod, &choice.node.metadata.name);
        choice.node.metadata.name.clone()
    };
    specs.iter().enumerate().map(&mut decide).collect()
}

#[test]
fn a_sibling_goes_to_the_other_of_two_equal_nodes() {
    // So large that what one pod asks for is less than a point of LeastAllocated.
    let huge = json!({ "status": { "allocatable": { "cpu": "640", "memory": "4Ti", "pods": "110" } } });
    let without_requests = json!({ "containers": [{ "name": "c", "image": "i" }] });
    for shape in [json!({}), huge] {
        let nodes = [node("a", shape.clone()), node("b", shape)];
        for spec in [json!({}), without_requests.clone()] {
            for tie in 0..4 {
                let mut placed = place(&nodes, &[spec.clone(), spec.clone(), spec.clone(), spec.clone()], tie);
                placed[..2].sort();
                placed[2..].sort();
                assert_eq!(placed, ["a", "b", "a", "b"], "tie {tie}");
            }
        }
    }
}

#[test]
fn preferences_of_running_pods_count_where_the_label_leads() {
    let zone = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let nodes = [zone("a", "1"), zone("b", "1"), zone("c", "2")];
    let near = |weight: i32| {
        json!({ "nodeName": "c", "affinity": { "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": weight, "podAffinityTerm": { "labelSelector": { "matchLabels": { "app": "web" } },
                "topologyKey": "zone" } }] } } })
    };
    check(&nodes, &[pod("r", near(100))], pod("p", json!({})), expect!["c"]);
    // Two that want it nowhere near outweigh one that does.
    let away = |name: &str| {
        let mut spec = near(60);
        let terms = spec["affinity"]["podAffinity"].take();
        spec["affinity"] = json!({ "podAntiAffinity": terms });
        pod(name, spec)
    };
    check(&nodes, &[pod("r", near(100)), away("s"), away("t")], pod("p", json!({})), expect!["a"]);
}
