//! What survives: restarts, changes by others, live connections, and a thousand Services that come and go.

use std::io::{Read, Write};

use serde_json::json;

use crate::proxy::{Given, Proxy, service, slice};
use crate::world::{Namespace, World, read_greeting};

fn given(name: &str, ip: &str, endpoints: &[(&str, &str)]) -> Given {
    let spec = json!({ "clusterIP": ip, "clusterIPs": [ip] });
    Given { service: service(name, spec), slices: vec![slice(name, "TCP", endpoints)] }
}

fn world() -> (World, Vec<Namespace>, Namespace) {
    let world = World::new();
    let pods = [("a", "10.244.0.2"), ("b", "10.244.0.3")].map(|(name, address)| {
        let pod = world.attach(address, None);
        pod.serve_tcp(name, "0.0.0.0:8080");
        pod
    });
    let client = world.attach("10.244.0.9", None);
    (world, pods.into(), client)
}

const BOTH: [(&str, &str); 2] = [("10.244.0.2", "here"), ("10.244.0.3", "here")];

/// Elements, rules and chains, with their number in the kernel: what was made anew has another one.
fn handles(node: &Namespace) -> String {
    node.sh("nft -a list table ip kept")
}

#[test]
fn a_restart_adopts_what_is_there() {
    let (world, _pods, client) = world();
    let services = [given("web", "10.96.0.7", &BOTH), given("other", "10.96.0.8", &BOTH[..1])];
    drop(Proxy::start(&world.node, &services));
    let before = handles(&world.node);
    let generation = |node: &Namespace| node.run(|| nftables::Socket::open().unwrap().generation().unwrap());
    let at = generation(&world.node);
    drop(Proxy::start(&world.node, &services));
    assert_eq!(handles(&world.node), before);
    assert_eq!(generation(&world.node), at, "nothing was written");
    // What changed while the proxy was away is changed, and only that.
    let proxy = Proxy::start(&world.node, &[given("web", "10.96.0.7", &BOTH[1..]), given("new", "10.96.0.9", &BOTH)]);
    assert_eq!(generation(&world.node), at + 1);
    assert!(client.ask_tcp("10.96.0.7:80").unwrap().starts_with("b "));
    assert!(client.ask_tcp("10.96.0.9:80").is_ok());
    assert!(client.ask_tcp("10.96.0.8:80").is_err());
    drop(proxy);
}

#[test]
fn a_table_of_another_shape_is_replaced_at_once() {
    let (world, _pods, client) = world();
    world.node.sh("nft 'add table ip kept; add chain ip kept old { type nat hook output priority 0; }'");
    drop(Proxy::start(&world.node, &[given("web", "10.96.0.7", &BOTH)]));
    assert!(!handles(&world.node).contains("chain old"));
    assert!(client.ask_tcp("10.96.0.7:80").is_ok());
}

#[test]
fn every_harm_done_by_hand_is_repaired() {
    let (world, _pods, client) = world();
    let services = [given("web", "10.96.0.7", &BOTH)];
    let proxy = Proxy::start(&world.node, &services);
    for harm in [
        "flush ruleset",
        "delete table ip kept",
        "flush chain ip kept services",
        "flush chain ip kept pick-2",
        "flush map ip kept frontends",
        "flush map ip kept endpoints",
        "flush map ip kept picks",
        "flush map ip kept kinds",
        "add element ip kept frontends { 10.96.0.99 . tcp . 80 : 0x40080001 }",
        "insert rule ip kept services drop",
    ] {
        let (untouched, lines) = (proxy.listed(), world.node.sh("nft -n list ruleset").lines().count());
        world.node.sh(&format!("nft '{harm}'"));
        assert_ne!(world.node.sh("nft -n list ruleset").lines().count(), lines, "{harm}");
        proxy.reconcile(&services);
        assert_eq!(proxy.listed().len(), untouched.len(), "{harm}");
        assert!(client.ask_tcp("10.96.0.7:80").is_ok(), "{harm}");
    }
}

#[test]
fn connections_outlive_changes_restarts_and_repairs() {
    let (world, _pods, client) = world();
    let proxy = Proxy::start(&world.node, &[given("web", "10.96.0.7", &BOTH[..1])]);
    let mut stream = client.open_tcp("10.96.0.7:80").unwrap();
    read_greeting(&mut stream).unwrap();
    let mut echo = |what: &str| {
        stream.write_all(b"x").unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    echo("at first");
    proxy.set(&given("web", "10.96.0.7", &BOTH));
    echo("after another endpoint came");
    proxy.set(&given("web", "10.96.0.7", &BOTH[1..]));
    echo("after its own endpoint was taken out");
    world.node.sh("nft flush ruleset");
    proxy.reconcile(&[given("web", "10.96.0.7", &BOTH)]);
    echo("after a repair");
    drop(proxy);
    let proxy = Proxy::start(&world.node, &[given("web", "10.96.0.7", &BOTH)]);
    echo("after a restart");
    proxy.delete("web");
    echo("after the Service was deleted");
}

#[test]
fn no_connection_fails_while_endpoints_come_and_go() {
    let (world, _pods, client) = world();
    let proxy = Proxy::start(&world.node, &[given("web", "10.96.0.7", &BOTH)]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| (0..400).filter(|_| client.ask_tcp("10.96.0.7:80").is_err()).count());
        let mut turn = 0;
        while !asking.is_finished() {
            turn += 1;
            proxy.set(&given("web", "10.96.0.7", if turn % 2 == 0 { &BOTH } else { &BOTH[..1] }));
        }
        assert_eq!(asking.join().unwrap(), 0);
        assert!(turn > 10, "only {turn} changes were made meanwhile");
    });
}

#[test]
fn a_thousand_services_leave_nothing_behind() {
    let (world, _pods, _client) = world();
    let proxy = Proxy::start(&world.node, &[]);
    let before = proxy.listed();
    let name = |n: usize| format!("web-{n}");
    let many = |n: usize| {
        let ports = json!([{ "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30000 + n }]);
        let spec = json!({ "type": "LoadBalancer", "clusterIP": format!("10.96.{}.{}", n / 250 + 1, n % 250 + 1),
            "clusterIPs": [], "ports": ports, "externalIPs": ["203.0.113.77"],
            "loadBalancerSourceRanges": [format!("10.{}.0.0/{}", n % 200, 16 + n % 8)],
            "externalTrafficPolicy": if n % 2 == 0 { "Local" } else { "Cluster" },
            "sessionAffinity": if n % 3 == 0 { "ClientIP" } else { "None" } });
        let endpoints: Vec<String> = (0..n % 23).map(|at| format!("10.244.7.{}", at + 1)).collect();
        let endpoints: Vec<(&str, &str)> = endpoints.iter().map(|a| (a.as_str(), ["here", "there"][n % 2])).collect();
        let mut given = Given { service: service(&name(n), spec), slices: vec![slice(&name(n), "TCP", &endpoints)] };
        given.service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.8" }] } });
        given
    };
    for n in 0..1000 {
        proxy.set(&many(n));
    }
    assert!(proxy.listed().len() > before.len() + 1000);
    // A restart in between changes nothing.
    drop(proxy);
    let proxy = Proxy::start(&world.node, &(0..1000).map(many).collect::<Vec<_>>());
    for n in 0..1000 {
        proxy.delete(&name(n));
    }
    proxy.tidy();
    assert_eq!(proxy.listed(), before);
}
