//! Tests of [`super`]: what one Service makes of its endpoints.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn check(service: Value, slices: &[Value], expected: Expect) {
    check_without(&[], service, slices, expected);
}

/// `unready`: addresses that the node knows not to answer.
fn check_without(unready: &[&str], service: Value, slices: &[Value], expected: Expect) {
    let service: Service = serde_json::from_value(service).expect("a Service");
    let slices: Vec<EndpointSlice> =
        slices.iter().map(|slice| serde_json::from_value(slice.clone()).expect("an EndpointSlice")).collect();
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    let unready = unready.iter().map(|address| address.parse().expect("an address")).collect();
    let place = Place { node: "here".into(), zone: "z1".into(), unready: Arc::new(unready) };
    let dns = Some(SocketAddrV4::new([169, 254, 20, 10].into(), 53));
    let node = Node { place, dns, addresses: vec!["192.0.2.1".parse().unwrap()] };
    let mut text = String::new();
    for ipv6 in [false, true] {
        for port in plan(&service, &slices, &node, ipv6).into_iter().flat_map(|plan| plan.ports) {
            let list = |all: &[Backend]| {
                all.iter()
                    .map(|b| std::net::SocketAddr::new(b.address, b.port).to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let Usable { cluster, local, here, .. } = &port.endpoints;
            text += &format!("cluster [{}] local [{}] here [{}]\n", list(cluster), list(local), list(here));
            for entry in &port.entries {
                let frontend = std::net::SocketAddr::new(entry.frontend.address, entry.frontend.port);
                let sources: Vec<String> =
                    entry.sources.iter().map(|range| format!("{}/{}", range.base, range.prefix)).collect();
                text += &format!("{frontend} {:?} {:?} served={}", entry.kind, entry.list, entry.is_served);
                text += &entry.unserved.map(|unserved| format!(" {unserved:?}")).unwrap_or_default();
                text += &if sources.is_empty() { "\n".to_owned() } else { format!(" from {}\n", sources.join(" ")) };
            }
        }
    }
    expected.assert_eq(&text);
}

fn service(spec: Value) -> Value {
    let mut all = json!({ "type": "ClusterIP", "clusterIP": "10.96.0.7",
        "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }] });
    for (field, value) in spec.as_object().expect("an object") {
        all[field] = value.clone();
    }
    json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": all })
}

fn slice(endpoints: Value) -> Value {
    json!({ "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }] })
}

#[test]
fn endpoints_that_are_ready_are_used() {
    let endpoints = json!([
        { "addresses": ["10.244.0.5"], "nodeName": "here" },
        { "addresses": ["10.244.0.6"], "conditions": { "ready": false } },
        { "addresses": ["10.244.1.5"], "nodeName": "there" },
    ]);
    check(
        service(json!({})),
        &[slice(endpoints)],
        expect![[r#"
            cluster [10.244.0.5:8080 10.244.1.5:8080] local [] here [10.244.0.5:8080]
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn what_the_node_knows_to_be_dead_is_not_used_whatever_slices_say() {
    let endpoints = json!([
        { "addresses": ["10.244.0.5"], "nodeName": "here" },
        { "addresses": ["10.244.0.6"], "nodeName": "here" },
        { "addresses": ["10.244.0.7"], "nodeName": "here",
          "conditions": { "ready": false, "serving": true, "terminating": true } },
        // Of the same address, but not ours to know about.
        { "addresses": ["10.244.0.8"] },
    ]);
    let unready = ["10.244.0.6", "10.244.0.7", "10.244.0.8"];
    check_without(
        &unready,
        service(json!({})),
        &[slice(endpoints.clone())],
        expect![[r#"
            cluster [10.244.0.5:8080 10.244.0.8:8080] local [] here [10.244.0.5:8080]
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    check_without(
        &unready,
        service(json!({ "publishNotReadyAddresses": true })),
        &[slice(endpoints)],
        expect![[r#"
            cluster [10.244.0.5:8080 10.244.0.6:8080 10.244.0.8:8080] local [] here [10.244.0.5:8080 10.244.0.6:8080]
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn endpoints_that_terminate_are_used_when_there_are_no_others() {
    let endpoints = json!([
        { "addresses": ["10.244.0.5"], "conditions": { "ready": false, "serving": true, "terminating": true } },
        { "addresses": ["10.244.0.6"], "conditions": { "ready": false, "serving": false, "terminating": true } },
    ]);
    check(
        service(json!({})),
        &[slice(endpoints)],
        expect![[r#"
            cluster [10.244.0.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn without_endpoints_all_is_refused() {
    check(
        service(json!({ "externalIPs": ["192.0.2.7"] })),
        &[slice(Value::Null)],
        expect![[r#"
            cluster [] local [] here []
            10.96.0.7:80 Internal Cluster served=false Refused
            192.0.2.7:80 External Cluster served=false Refused
        "#]],
    );
}

#[test]
fn local_policy_without_a_local_endpoint_drops_what_comes_from_outside() {
    let ports = json!([{ "name": "http", "port": 80, "nodePort": 30080 }]);
    let mut given = service(json!({ "type": "LoadBalancer", "ports": ports, "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": [" 192.0.2.0/24", "fd00::/8"] }));
    given["status"] = json!({ "loadBalancer": { "ingress": [
        { "ip": "203.0.113.8" }, { "ip": "203.0.113.9", "ipMode": "Proxy" }] } });
    check(
        given,
        &[slice(json!([{ "addresses": ["10.244.1.5"], "nodeName": "there" }]))],
        expect![[r#"
            cluster [10.244.1.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
            203.0.113.8:80 ExternalLocal Local served=true Dropped from 192.0.2.0/24 203.0.113.8/32
            0.0.0.0:30080 ExternalLocal Local served=true Dropped
        "#]],
    );
}

#[test]
fn hints_count_when_every_endpoint_has_some() {
    let zone =
        |address: &str, zone: &str| json!({ "addresses": [address], "hints": { "forZones": [{ "name": zone }] } });
    let both = json!([zone("10.244.0.5", "z1"), zone("10.244.1.5", "z2")]);
    check(
        service(json!({})),
        &[slice(both)],
        expect![[r#"
            cluster [10.244.0.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    let one = json!([zone("10.244.0.5", "z1"), { "addresses": ["10.244.1.5"] }]);
    check(
        service(json!({})),
        &[slice(one)],
        expect![[r#"
            cluster [10.244.0.5:8080 10.244.1.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    let node = json!([{ "addresses": ["10.244.0.5"], "hints": { "forNodes": [{ "name": "there" }] } },
        { "addresses": ["10.244.0.6"], "hints": { "forNodes": [{ "name": "here" }] } }]);
    check(
        service(json!({})),
        &[slice(node)],
        expect![[r#"
            cluster [10.244.0.6:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

/// Endpoints with a hint each, for nodes and for zones, as `trafficDistribution` makes the controller write them.
fn near(endpoints: &[(&str, &str, &str)]) -> Value {
    let hint = |name: &str| if name.is_empty() { Value::Null } else { json!([{ "name": name }]) };
    let one = |(address, node, zone): &(&str, &str, &str)| json!({ "addresses": [address], "hints": { "forNodes": hint(node), "forZones": hint(zone) } });
    slice(endpoints.iter().map(one).collect())
}

#[test]
fn the_same_node_is_preferred_to_the_same_zone_and_that_to_all() {
    let used =
        |endpoints: &[(&str, &str, &str)], expected: Expect| check(service(json!({})), &[near(endpoints)], expected);
    let all = [("10.244.0.5", "here", "z1"), ("10.244.0.6", "there", "z1"), ("10.244.1.5", "far", "z2")];
    used(
        &all,
        expect![[r#"
            cluster [10.244.0.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    // No endpoint is for this node: those of its zone.
    used(
        &all[1..],
        expect![[r#"
            cluster [10.244.0.6:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    // One without a hint for nodes: again those of its zone, with or without such a hint.
    used(
        &[all[0], all[2], ("10.244.0.7", "", "z1")],
        expect![[r#"
            cluster [10.244.0.5:8080 10.244.0.7:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
    // Nothing is for here at all.
    used(
        &[all[2], ("10.244.2.5", "far", "z3")],
        expect![[r#"
            cluster [10.244.1.5:8080 10.244.2.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn hints_count_among_endpoints_that_are_ready() {
    let mut given = near(&[("10.244.0.5", "", "z1"), ("10.244.1.5", "", "z2")]);
    given["endpoints"].as_array_mut().expect("a list").push(
        json!({ "addresses": ["10.244.0.9"], "conditions": { "ready": false, "serving": true, "terminating": true } }),
    );
    check(
        service(json!({})),
        &[given],
        expect![[r#"
            cluster [10.244.0.5:8080] local [] here []
            10.96.0.7:80 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn the_dns_service_is_the_nodes_own_server_unless_it_has_endpoints() {
    let mut dns =
        service(json!({ "clusterIP": "10.96.0.10", "ports": [{ "name": "dns", "protocol": "UDP", "port": 53 }] }));
    dns["metadata"] = json!({ "name": "kube-dns", "namespace": "kube-system" });
    check(
        dns,
        &[],
        expect![[r#"
            cluster [169.254.20.10:53] local [169.254.20.10:53] here []
            10.96.0.10:53 Internal Cluster served=true
        "#]],
    );
}

#[test]
fn headless_foreign_and_external_services_are_not_served() {
    check(service(json!({ "clusterIP": "None" })), &[], expect![""]);
    check(service(json!({ "type": "ExternalName", "clusterIP": "" })), &[], expect![""]);
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut labelled = service(json!({}));
        labelled["metadata"]["labels"] = json!({ label: "" });
        check(labelled, &[], expect![""]);
    }
}
