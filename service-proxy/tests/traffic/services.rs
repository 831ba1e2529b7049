//! What each kind of Service does to a connection.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use serde_json::json;

use crate::proxy::{Given, Proxy, service, slice};
use crate::world::{NODE, Namespace, World, ask_udp};

/// Enough connections to see every one of a few endpoints: one of three is missed by chance once in 10^14 runs.
const MANY: usize = 80;

fn web(spec: serde_json::Value, endpoints: &[(&str, &str)]) -> Given {
    Given { service: service("web", spec), slices: vec![slice("web", "TCP", endpoints)] }
}

/// Three pods that serve, one that asks, and a client outside.
struct Cluster {
    world: World,
    pods: Vec<Namespace>,
    client: Namespace,
    outside: Namespace,
}

const PODS: [&str; 3] = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
const OUTSIDE: &str = "192.0.2.10";

fn cluster() -> Cluster {
    let world = World::new();
    let pods: Vec<Namespace> =
        PODS.iter().enumerate().map(|(at, v4)| world.attach(v4, Some(&format!("fd00:10::{}", at + 2)))).collect();
    for (pod, name) in pods.iter().zip(["a", "b", "c"]) {
        pod.serve_tcp(name, "[::]:8080");
        pod.serve_udp(name, "0.0.0.0:8080");
    }
    let client = world.attach("10.244.0.9", Some("fd00:10::9"));
    let outside = world.attach(OUTSIDE, None);
    Cluster { world, pods, client, outside }
}

fn names(client: &Namespace, to: &str, times: usize) -> BTreeSet<String> {
    (0..times).map(|_| client.ask_tcp(to).unwrap()).collect()
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn a_cluster_address_reaches_every_endpoint_and_keeps_pods_addresses() {
    let c = cluster();
    let all: Vec<(&str, &str)> = PODS.iter().map(|pod| (*pod, "here")).collect();
    let proxy = Proxy::start(&c.world.node, &[web(json!({}), &all)]);
    let seen = set(&["a ::ffff:10.244.0.9", "b ::ffff:10.244.0.9", "c ::ffff:10.244.0.9"]);
    assert_eq!(names(&c.client, "10.96.0.7:80", MANY), seen);
    // The node and clients outside the pod network are masqueraded: answers must come back this way.
    let from_gateway: BTreeSet<String> = names(&c.world.node, "10.96.0.7:80", 1);
    assert!(from_gateway.iter().all(|greeting| !greeting.contains("10.244")), "{from_gateway:?}");
    assert!(!c.outside.ask_tcp("10.96.0.7:80").unwrap().contains(OUTSIDE));
    // A port that the Service does not have is refused at once.
    assert_eq!(c.client.ask_tcp("10.96.0.7:81").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // A pod that is its own endpoint sees another address than its own.
    proxy.set(&web(json!({}), &[(PODS[0], "here")]));
    let own = c.pods[0].ask_tcp("10.96.0.7:80").unwrap();
    assert!(own.starts_with("a ") && !own.contains(PODS[0]), "{own}");
}

#[test]
fn more_endpoints_than_there_are_chains_at_hand() {
    let c = cluster();
    let proxy = Proxy::start(&c.world.node, &[]);
    // Eleven endpoints, of which all but one are the same pod by other ports.
    let slices = [slice("web", "TCP", &[(PODS[0], "here"), (PODS[1], "here"), (PODS[2], "here")])];
    let mut many = web(json!({}), &[]);
    many.slices = slices.to_vec();
    for port in 9000..9008 {
        let mut more = slice("web", "TCP", &[(PODS[0], "here")]);
        more["ports"][0]["port"] = json!(port);
        c.pods[0].serve_tcp("a", &format!("0.0.0.0:{port}"));
        many.slices.push(more);
    }
    proxy.set(&many);
    assert_eq!(names(&c.client, "10.96.0.7:80", 4 * MANY).len(), 4, "a by both kinds of socket, b and c");
    proxy.set(&web(json!({}), &[(PODS[1], "here")]));
    proxy.tidy();
    assert_eq!(names(&c.client, "10.96.0.7:80", 4), set(&["b ::ffff:10.244.0.9"]));
    assert!(!proxy.listed().iter().any(|line| line.contains("pick-11")), "the chain for eleven is gone");
}

#[test]
fn without_endpoints_clients_are_refused() {
    let c = cluster();
    let ports = json!([{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 }]);
    let spec = json!({ "type": "NodePort", "ports": ports, "externalIPs": ["203.0.113.5"] });
    let proxy = Proxy::start(&c.world.node, &[web(spec.clone(), &[])]);
    for (from, to) in [
        (&c.client, "10.96.0.7:80"),
        (&c.world.node, "10.96.0.7:80"),
        (&c.outside, "203.0.113.5:80"),
        (&c.outside, "198.51.100.1:30080"),
    ] {
        assert_eq!(from.ask_tcp(to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    proxy.set(&web(spec, &[(PODS[0], "here")]));
    for (from, to) in [(&c.client, "10.96.0.7:80"), (&c.outside, "203.0.113.5:80"), (&c.outside, "198.51.100.1:30080")]
    {
        assert!(from.ask_tcp(to).unwrap().starts_with("a "), "{to}");
    }
}

#[test]
fn node_ports_answer_everywhere_on_the_node_and_hide_the_client() {
    let c = cluster();
    let ports = json!([{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 }]);
    let all = [(PODS[0], "here"), (PODS[1], "there")];
    let _proxy = Proxy::start(&c.world.node, &[web(json!({ "type": "NodePort", "ports": ports }), &all)]);
    let port = format!("{NODE}:30080");
    let greetings = names(&c.outside, &port, MANY);
    assert_eq!(greetings.len(), 2);
    assert!(greetings.iter().all(|greeting| !greeting.contains(OUTSIDE)), "{greetings:?}");
    assert!(c.client.ask_tcp(&port).is_ok());
    assert!(c.world.node.ask_tcp(&port).is_ok());
    assert!(c.world.node.ask_tcp("127.0.0.1:30080").is_ok(), "localhost");
    // The node's own use of its loopback goes on.
    c.world.node.serve_tcp("private", "127.0.0.1:7000");
    assert!(c.world.node.ask_tcp("127.0.0.1:7000").is_ok());
}

#[test]
fn local_traffic_keeps_the_client_and_stays_here() {
    let c = cluster();
    let ports = json!([{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 }]);
    let spec = json!({ "type": "LoadBalancer", "ports": ports, "externalTrafficPolicy": "Local" });
    let mut given = web(spec, &[(PODS[0], "here"), (PODS[1], "there")]);
    given.service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.8" }] } });
    let proxy = Proxy::start(&c.world.node, &[given.clone()]);
    for to in ["198.51.100.1:30080", "203.0.113.8:80"] {
        assert_eq!(names(&c.outside, to, MANY), set(&["a ::ffff:192.0.2.10"]), "{to}");
        // Pods and the node itself reach all endpoints, as if they had gone out and come back.
        assert_eq!(names(&c.client, to, MANY), set(&["a ::ffff:10.244.0.9", "b ::ffff:10.244.0.9"]), "{to}");
        assert_eq!(names(&c.world.node, to, MANY).len(), 2, "{to}");
    }
    // Without an endpoint here, clients outside hear nothing, so that a balancer looks elsewhere.
    given.slices = vec![slice("web", "TCP", &[(PODS[1], "there")])];
    proxy.set(&given);
    assert_eq!(c.outside.ask_tcp("203.0.113.8:80").unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(c.outside.ask_tcp("198.51.100.1:30080").unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(c.client.ask_tcp("203.0.113.8:80").unwrap().starts_with("b "));
    // The cluster address is not concerned, unless it has a policy of its own.
    assert!(c.client.ask_tcp("10.96.0.7:80").unwrap().starts_with("b "));
    given.service["spec"]["internalTrafficPolicy"] = json!("Local");
    proxy.set(&given);
    assert_eq!(c.client.ask_tcp("10.96.0.7:80").unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn source_ranges_close_a_load_balancer_to_others() {
    let c = cluster();
    let spec = json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/28", "198.18.0.0/15"] });
    let mut given = web(spec, &[(PODS[0], "here")]);
    given.service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.8" }] } });
    let proxy = Proxy::start(&c.world.node, &[given.clone()]);
    assert!(c.outside.ask_tcp("203.0.113.8:80").is_ok());
    assert!(c.client.ask_tcp("203.0.113.8:80").is_err(), "a pod is not in these ranges");
    assert!(c.client.ask_tcp("10.96.0.7:80").is_ok(), "the cluster address has no ranges");
    given.service["spec"]["loadBalancerSourceRanges"] = json!(["10.244.0.9/32"]);
    proxy.set(&given);
    assert!(c.outside.ask_tcp("203.0.113.8:80").is_err());
    assert!(c.client.ask_tcp("203.0.113.8:80").is_ok());
    given.service["spec"]["loadBalancerSourceRanges"] = json!([]);
    proxy.set(&given);
    assert!(c.outside.ask_tcp("203.0.113.8:80").is_ok());
}

#[test]
fn a_client_with_affinity_stays_with_its_endpoint() {
    let c = cluster();
    let all: Vec<(&str, &str)> = PODS.iter().map(|pod| (*pod, "here")).collect();
    let timeout = json!({ "clientIP": { "timeoutSeconds": 100 } });
    let spec = json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout });
    let proxy = Proxy::start(&c.world.node, &[web(spec.clone(), &all)]);
    let first = names(&c.client, "10.96.0.7:80", MANY);
    assert_eq!(first.len(), 1, "{first:?}");
    let name = first.first().unwrap()[..1].to_owned();
    // One that goes takes its clients along to another one, where they stay.
    let gone = ["a", "b", "c"].iter().position(|other| **other == name).unwrap();
    let rest: Vec<(&str, &str)> = all.iter().copied().filter(|(pod, _)| *pod != PODS[gone]).collect();
    proxy.set(&web(spec.clone(), &rest));
    let second = names(&c.client, "10.96.0.7:80", MANY);
    assert!(second.len() == 1 && second != first, "{second:?}");
    // It survives a restart of the proxy, and endpoints that come back.
    drop(proxy);
    let proxy = Proxy::start(&c.world.node, &[web(spec, &all)]);
    assert_eq!(names(&c.client, "10.96.0.7:80", MANY), second);
    proxy.delete("web");
    assert_eq!(c.world.node.sh("nft list map ip kept affinity").matches("10.244").count(), 0);
}

#[test]
fn an_affinity_ends_with_its_time() {
    let c = cluster();
    let all: Vec<(&str, &str)> = PODS.iter().map(|pod| (*pod, "here")).collect();
    let spec =
        json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 1 } } });
    let _proxy = Proxy::start(&c.world.node, &[web(spec, &all)]);
    c.client.ask_tcp("10.96.0.7:80").unwrap();
    let listed = || c.world.node.sh("nft list map ip kept affinity");
    assert!(listed().contains("timeout 1s"), "{}", listed());
    while listed().contains("10.244.0.9") {
        std::thread::yield_now();
    }
}

#[test]
fn version_6_does_the_same() {
    let c = cluster();
    let ports = json!([{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 }]);
    let spec = json!({ "type": "NodePort", "ports": ports, "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "sessionAffinity": "ClientIP" });
    let mut given = web(spec, &[(PODS[0], "here")]);
    given.slices.push(slice("web", "TCP", &[("fd00:10::3", "here"), ("fd00:10::4", "here")]));
    let proxy = Proxy::start(&c.world.node, &[given.clone()]);
    assert_eq!(names(&c.client, "10.96.0.7:80", 3), set(&["a ::ffff:10.244.0.9"]));
    let greetings = names(&c.client, "[fd00:96::7]:80", MANY);
    assert_eq!(greetings.len(), 1, "{greetings:?}");
    assert!(greetings.first().unwrap().ends_with("fd00:10::9"), "{greetings:?}");
    assert!(c.world.node.ask_tcp("[2001:db8:1::1]:30080").is_ok());
    given.slices.pop();
    proxy.set(&given);
    assert!(c.client.ask_tcp("[fd00:96::7]:80").is_err());
    let refused = c.world.node.sh("nft -n list set ip6 kept refused");
    assert!(refused.contains("fd00:96::7 . 6 . 80"), "{refused}");
}

#[test]
fn udp_flows_leave_an_endpoint_that_is_gone() {
    let c = cluster();
    let ports = json!([{ "name": "http", "protocol": "UDP", "port": 80, "nodePort": 30080 }]);
    let spec = json!({ "type": "NodePort", "ports": ports });
    let given = |endpoints: &[(&str, &str)]| Given {
        service: service("web", spec.clone()),
        slices: vec![slice("web", "UDP", endpoints)],
    };
    let proxy = Proxy::start(&c.world.node, &[given(&[])]);
    let (flow, node_flow) = (c.client.udp("10.96.0.7:80"), c.outside.udp("198.51.100.1:30080"));
    assert!(ask_udp(&flow).is_err() && ask_udp(&node_flow).is_err(), "refused");
    proxy.set(&given(&[(PODS[0], "here")]));
    assert_eq!(ask_udp(&flow).unwrap(), "a 10.244.0.9");
    assert!(ask_udp(&node_flow).unwrap().starts_with("a "));
    proxy.set(&given(&[(PODS[1], "here")]));
    assert_eq!(ask_udp(&flow).unwrap(), "b 10.244.0.9");
    assert!(ask_udp(&node_flow).unwrap().starts_with("b "));
    proxy.delete("web");
    let left = c.world.node.sh("conntrack -L -p udp");
    assert!(!left.contains("dport=80 ") && !left.contains("dport=30080 "), "{left}");
}
