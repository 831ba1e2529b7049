//! What must not get through, and how its sender is told.

use std::io::ErrorKind;

use serde_json::json;

use crate::proxy::{Given, Proxy, service, slice};
use crate::world::{Namespace, World, ask_udp};

const POD: &str = "10.244.0.2";
const POD_V6: &str = "fd00:10::2";

fn given(endpoints: bool) -> Given {
    let ports = json!([
        { "name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080 },
        { "name": "dns", "protocol": "UDP", "port": 53 },
    ]);
    let spec = json!({ "type": "NodePort", "ports": ports, "clusterIPs": ["10.96.0.7", "fd00:96::7"] });
    let slices = match endpoints {
        true => vec![slice("web", "TCP", &[(POD, "here")]), slice("web", "TCP", &[(POD_V6, "here")])],
        false => Vec::new(),
    };
    Given { service: service("web", spec), slices }
}

fn world() -> (World, Namespace, Namespace) {
    let world = World::new();
    let pod = world.attach(POD, Some(POD_V6));
    pod.serve_tcp("a", "[::]:8080");
    let client = world.attach("10.244.0.9", Some("fd00:10::9"));
    (world, pod, client)
}

#[test]
fn cluster_addresses_that_nobody_has_lead_nowhere() {
    let (world, _pod, client) = world();
    // Somebody out there answers for two of them, which is where the default route would lead.
    world.uplink.sh(
        "ip addr add 10.96.0.99/32 dev lo; ip addr add 10.97.0.1/32 dev lo; ip addr add fd00:96::99/128 dev lo nodad
         ip route add 198.51.100.1 dev eth0; ip route add default via 198.51.100.1
         ip -6 addr add fe80::2/64 dev eth0 nodad; ip -6 route add default via fe80::3 dev eth0",
    );
    world.node.sh(
        "ip -6 addr add fe80::3/64 dev up0 nodad; ip -6 route replace default via fe80::2 dev up0 src 2001:db8:1::1",
    );
    world.uplink.serve_tcp("uplink", "[::]:80");
    let proxy = Proxy::start(&world.node, &[given(true)]);
    for to in ["10.96.0.99:80", "10.97.0.1:80", "[fd00:96::99]:80"] {
        assert!(client.ask_tcp(to).unwrap().starts_with("uplink "), "{to}");
    }
    proxy.set_ranges(&["10.96.0.0/16", "fd00:96::/112"]);
    for (from, to) in [(&client, "10.96.0.99:80"), (&world.node, "10.96.0.99:80"), (&client, "[fd00:96::99]:80")] {
        assert_eq!(from.ask_tcp(to).unwrap_err().kind(), ErrorKind::TimedOut, "{to}");
    }
    assert!(client.ask_tcp("10.97.0.1:80").is_ok(), "outside the range");
    for to in ["10.96.0.7:80", "[fd00:96::7]:80"] {
        assert!(client.ask_tcp(to).unwrap().starts_with("a "), "{to}");
    }
    for to in ["10.96.0.7:81", "[fd00:96::7]:81"] {
        assert_eq!(client.refusal(to), ErrorKind::ConnectionRefused, "a Service's other port: {to}");
    }
    // A start finds them as they are, and repairs what was taken away.
    let generation = || world.node.run(|| nftables::Socket::open().unwrap().generation().unwrap());
    let before = generation();
    proxy.reconcile(&[given(true)]);
    assert_eq!(generation(), before, "nothing was written");
    world.node.sh("nft flush chain ip kept unassigned");
    proxy.reconcile(&[given(true)]);
    assert_eq!(client.ask_tcp("10.96.0.99:80").unwrap_err().kind(), ErrorKind::TimedOut);
    // A range that is no longer one of Services is everybody's.
    proxy.set_ranges(&["10.97.0.0/16"]);
    assert!(client.ask_tcp("10.96.0.99:80").is_ok());
    assert_eq!(client.ask_tcp("10.97.0.1:80").unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn refusals_reach_clients_of_both_families() {
    let (world, _pod, client) = world();
    let _proxy = Proxy::start(&world.node, &[given(false)]);
    for (from, to) in [
        (&client, "[fd00:96::7]:80"),
        (&client, "10.96.0.7:80"),
        (&world.node, "[fd00:96::7]:80"),
        (&client, "[2001:db8:1::1]:30080"),
        (&client, "198.51.100.1:30080"),
        // Ports that the Service does not have.
        (&client, "[fd00:96::7]:81"),
        (&client, "10.96.0.7:81"),
    ] {
        assert_eq!(from.refusal(to), ErrorKind::ConnectionRefused, "{to}");
    }
    for to in ["[fd00:96::7]:53", "10.96.0.7:53"] {
        assert_eq!(ask_udp(&client.udp(to)).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn nobody_else_reaches_the_hosts_loopback() {
    let (world, _pod, _client) = world();
    let neighbour = world.attach("192.0.2.10", None);
    // Its kernel lets it send to 127.0.0.1 by the wire.
    neighbour.sh("ip addr del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1
         ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null || true
         ip route add 127.0.0.1/32 via 169.254.1.1 dev eth0 src 192.0.2.10");
    world.node.serve_tcp("private", "127.0.0.1:7000");
    assert!(neighbour.ask_tcp("127.0.0.1:7000").is_ok(), "without the proxy's rule it would get there");
    let _proxy = Proxy::start(&world.node, &[given(true)]);
    assert_eq!(neighbour.ask_tcp("127.0.0.1:7000").unwrap_err().kind(), ErrorKind::TimedOut);
    for to in ["127.0.0.1:7000", "127.0.0.1:30080"] {
        assert!(world.node.ask_tcp(to).is_ok(), "the node itself does, and its own node port: {to}");
    }
}
