//! Each rule of the plan with the smallest network that shows it.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

use expect_test::{Expect, expect};

use super::*;

fn range(text: &str) -> Range {
    Range::parse(text).unwrap()
}

fn here() -> Here {
    Here { range: range("10.244.0.0/24"), address: "192.168.0.1".parse().unwrap(), mtu: 1500 }
}

fn peer(name: &str, pods: &str, address: &str, reach: Reach) -> Peer {
    Peer { name: name.into(), range: range(pods), address: address.parse().unwrap(), reach }
}

const LINK: Reach = Reach::Link { interface: 2 };

fn check(peers: &[Peer], found: &Found, expected: Expect) {
    let wanted = wanted(&here(), peers);
    let mut text = String::new();
    for change in changes(&here(), &wanted, found) {
        text += &match change {
            Change::SetRoute(r) => {
                format!("route {} via {} dev {} src {}\n", r.range, r.gateway, r.interface, r.source)
            }
            Change::RemoveRoute(r) => format!("no route {}\n", r.range),
            Change::SetForwarding { interface, entry } => {
                format!("behind {} is {} dev {interface}\n", short(entry.mac), entry.host)
            }
            Change::RemoveForwarding { interface, entry } => {
                format!("no more behind {} is {} dev {interface}\n", short(entry.mac), entry.host)
            }
            Change::SetNeighbor { interface, entry } => {
                format!("{} is at {} dev {interface}\n", entry.address, short(entry.mac))
            }
            Change::RemoveNeighbor { interface, entry } => format!("{} left dev {interface}\n", entry.address),
            Change::AddTunnel(d) => format!("tunnel from {} mtu {}\n", d.vxlan.local, d.mtu),
            Change::SetUpTunnel { interface, address } => format!("tunnel {interface} up with {address}\n"),
            Change::SetTunnelMtu { interface, mtu } => format!("tunnel {interface} mtu {mtu}\n"),
            Change::RemoveTunnel { interface } => format!("no tunnel {interface}\n"),
        };
    }
    for refused in &wanted.refused {
        text += &format!("refused {}: {}\n", refused.node, refused.problem);
    }
    expected.assert_eq(&text);
}

fn short(mac: [u8; 6]) -> String {
    format!("{:02x}{:02x}", mac[4], mac[5])
}

/// What the kernel has after all changes for these peers were made.
fn settled(peers: &[Peer]) -> Found {
    let wanted = wanted(&here(), peers);
    let device = device(&here());
    let mut found = Found::default();
    let mut tunnel = Tunnel {
        link: Link { index: 9, mtu: device.mtu, is_up: true, mac: Some(device.mac), vxlan: Some(device.vxlan) },
        addresses: vec![device.address],
        neighbors: Vec::new(),
        forwardings: Vec::new(),
    };
    for change in changes(&here(), &wanted, &Found::default()) {
        match change {
            Change::SetRoute(mut route) => {
                if route.interface == 0 {
                    route.interface = 9;
                }
                found.routes.push(route);
            }
            Change::SetForwarding { entry, .. } => tunnel.forwardings.push(entry),
            Change::SetNeighbor { entry, .. } => tunnel.neighbors.push(entry),
            _ => {}
        }
    }
    found.tunnel = (!wanted.wrapped.is_empty()).then_some(tunnel);
    found
}

#[test]
fn neighbours_are_routed_to_and_others_wrapped() {
    let peers = [
        peer("b", "10.244.1.0/24", "192.168.0.2", LINK),
        peer("c", "10.244.2.0/24", "172.16.0.3", Reach::Routed),
        peer("same-host", "10.244.3.0/24", "192.168.0.1", Reach::Here),
    ];
    check(
        &peers,
        &Found::default(),
        expect![[r#"
            tunnel from 192.168.0.1 mtu 1450
            tunnel 0 up with 10.244.0.0
            behind 5981 is 172.16.0.3 dev 0
            10.244.2.0 is at 5981 dev 0
            route 10.244.1.0/24 via 192.168.0.2 dev 2 src 10.244.0.1
            route 10.244.2.0/24 via 10.244.2.0 dev 0 src 10.244.0.1
        "#]],
    );
    check(&peers, &settled(&peers), expect![""]);
}

#[test]
fn without_peers_nothing_is_there() {
    let before = settled(&[
        peer("b", "10.244.1.0/24", "192.168.0.2", LINK),
        peer("c", "10.244.2.0/24", "172.16.0.3", Reach::Routed),
    ]);
    check(
        &[],
        &before,
        expect![[r#"
            no route 10.244.1.0/24
            no route 10.244.2.0/24
            no tunnel 9
        "#]],
    );
}

#[test]
fn a_peer_that_moves_is_followed_without_a_moment_between() {
    let before = settled(&[peer("b", "10.244.1.0/24", "192.168.0.2", LINK)]);
    check(
        &[peer("b", "10.244.1.0/24", "192.168.0.7", LINK)],
        &before,
        expect![[r#"
            route 10.244.1.0/24 via 192.168.0.7 dev 2 src 10.244.0.1
        "#]],
    );
    let before = settled(&[peer("c", "10.244.2.0/24", "172.16.0.3", Reach::Routed)]);
    check(
        &[peer("c", "10.244.2.0/24", "172.16.0.4", Reach::Routed)],
        &before,
        expect![[r#"
            no more behind 5981 is 172.16.0.3 dev 9
            behind 5981 is 172.16.0.4 dev 9
        "#]],
    );
    // From the same link to behind a router.
    check(
        &[peer("c", "10.244.2.0/24", "192.168.0.9", LINK)],
        &before,
        expect![[r#"
            no tunnel 9
            route 10.244.2.0/24 via 192.168.0.9 dev 2 src 10.244.0.1
        "#]],
    );
}

#[test]
fn a_tunnel_of_another_address_or_damaged_is_made_right() {
    let peers = [peer("c", "10.244.2.0/24", "172.16.0.3", Reach::Routed)];
    let mut moved = settled(&peers);
    moved.tunnel.as_mut().unwrap().link.vxlan.as_mut().unwrap().local = "192.168.0.99".parse().unwrap();
    check(
        &peers,
        &moved,
        expect![[r#"
            no tunnel 9
            tunnel from 192.168.0.1 mtu 1450
            tunnel 0 up with 10.244.0.0
            behind 5981 is 172.16.0.3 dev 0
            10.244.2.0 is at 5981 dev 0
            route 10.244.2.0/24 via 10.244.2.0 dev 0 src 10.244.0.1
        "#]],
    );
    let mut damaged = settled(&peers);
    let tunnel = damaged.tunnel.as_mut().unwrap();
    (tunnel.link.is_up, tunnel.link.mtu) = (false, 1500);
    tunnel.neighbors.clear();
    damaged.routes.clear();
    check(
        &peers,
        &damaged,
        expect![[r#"
            tunnel 9 mtu 1450
            tunnel 9 up with 10.244.0.0
            10.244.2.0 is at 5981 dev 9
            route 10.244.2.0/24 via 10.244.2.0 dev 9 src 10.244.0.1
        "#]],
    );
}

#[test]
fn a_node_cannot_take_what_is_not_its_own() {
    check(
        &[
            peer("b", "10.244.1.0/24", "192.168.0.2", LINK),
            peer("c", "10.244.1.128/25", "192.168.0.3", LINK),
            peer("d", "10.244.0.0/16", "192.168.0.4", LINK),
            peer("e", "192.168.0.0/24", "192.168.0.5", LINK),
            peer("f", "10.244.5.0/24", "192.168.9.9", Reach::Not),
            peer("g", "10.244.6.0/24", "fd00::7", Reach::Routed),
        ],
        &Found::default(),
        expect![[r#"
            route 10.244.1.0/24 via 192.168.0.2 dev 2 src 10.244.0.1
            refused c: its pod range 10.244.1.128/25 overlaps 10.244.1.0/24 of node b
            refused d: its pod range 10.244.0.0/16 overlaps this node's 10.244.0.0/24
            refused e: its pod range 192.168.0.0/24 contains the address of a node, 192.168.0.1
            refused f: no route leads to its address 192.168.9.9
            refused g: its address fd00::7 is of another family than this node's 192.168.0.1
        "#]],
    );
}

#[test]
fn version_6_pods_between_version_4_hosts_are_wrapped() {
    let here = Here { range: range("fd00:1::/64"), ..here() };
    let wanted = wanted(&here, &[peer("b", "fd00:2::/64", "192.168.0.2", LINK)]);
    assert!(wanted.direct.is_empty() && wanted.refused.is_empty());
    assert_eq!(wanted.wrapped.len(), 1);
    let outer = Here { address: "fd01::1".parse().unwrap(), ..here };
    assert_eq!(device(&outer).mtu, 1430);
}
