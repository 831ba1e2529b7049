//! Which routes, neighbours and forwarding entries this node needs so that its pods reach the pods of all others, and
//! what has to change for that.
//!
//! A peer on the same link is the next hop for its pods: nothing is wrapped. A peer behind a router gets its packets
//! wrapped (VXLAN), because routers in between know nothing of pods. Each end decides for itself; what comes the other
//! way is accepted either way.
//!
//! The far end's part follows from what its Node says, so that nobody has to publish anything: the first address of its
//! pod range is its end of the tunnel, and the hardware address there is a hash of the range.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Range,
    bridge::mac,
    netlink::{Forwarding, Link, Neighbor, Reach, Route, Vxlan},
};

/// Tells this network from other VXLAN networks on the same hosts.
const VXLAN_ID: u32 = 0x006b_656c;
/// The same for pods' version 6 addresses.
const VXLAN_ID_V6: u32 = VXLAN_ID + 1;
/// The port that Kubernetes networks use for VXLAN, and that firewalls are opened for.
pub const VXLAN_PORT: u16 = 8472;
/// What wrapping adds to a packet: Ethernet, VXLAN and UDP headers, and the outer address header.
const VXLAN_BYTES: u32 = 14 + 8 + 8;
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;
/// The smallest MTU an IPv6 link may have.
const MTU_MIN: u32 = 1280;

/// This node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    pub range: Range,
    pub address: IpAddr,
    /// Of the link that leads to other nodes.
    pub mtu: u32,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    pub range: Range,
    pub address: IpAddr,
    pub reach: Reach,
}

/// The state to be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Peers on the same link, by range: interface and next hop.
    pub direct: BTreeMap<Range, (u32, IpAddr)>,
    /// Peers behind routers, by range: their hosts. Empty: no tunnel is needed.
    pub wrapped: BTreeMap<Range, IpAddr>,
    /// Peers that cannot be served, and why.
    pub refused: Vec<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub node: String,
    pub problem: String,
}

/// What the kernel has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub routes: Vec<Route>,
    pub tunnel: Option<Tunnel>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub link: Link,
    pub addresses: Vec<IpAddr>,
    pub neighbors: Vec<Neighbor>,
    pub forwardings: Vec<Forwarding>,
}

/// The VXLAN device this node should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub vxlan: Vxlan,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub address: IpAddr,
}

/// In the order they are made. `interface` 0 stands for the tunnel that an earlier change of the list makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    RemoveRoute(Route),
    RemoveTunnel {
        interface: u32,
    },
    AddTunnel(Device),
    /// It is up and has its address.
    SetUpTunnel {
        interface: u32,
        address: IpAddr,
    },
    SetTunnelMtu {
        interface: u32,
        mtu: u32,
    },
    RemoveForwarding {
        interface: u32,
        entry: Forwarding,
    },
    RemoveNeighbor {
        interface: u32,
        entry: Neighbor,
    },
    SetForwarding {
        interface: u32,
        entry: Forwarding,
    },
    SetNeighbor {
        interface: u32,
        entry: Neighbor,
    },
    SetRoute(Route),
}

/// The hardware address of a node's end of the tunnel.
fn tunnel_mac(range: Range) -> [u8; 6] {
    mac(&format!("tunnel {range}"))
}

/// Sorts peers by how they are reached. A Node object may say anything: what would take packets away from this node,
/// from another node's pods or from a node itself is refused.
pub fn wanted(here: &Here, peers: &[Peer]) -> Wanted {
    let mut wanted = Wanted::default();
    let mut sorted = peers.iter().collect::<Vec<_>>();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut taken: Vec<(&str, Range)> = Vec::new();
    for peer in sorted {
        let mut refuse = |problem: String| wanted.refused.push(Refused { node: peer.name.clone(), problem });
        if peer.reach == Reach::Here {
            // Another node of the same host: the kernel has the way to its bridge.
            continue;
        }
        if peer.range.overlaps(here.range) {
            refuse(format!("its pod range {} overlaps this node's {}", peer.range, here.range));
            continue;
        }
        if let Some((other, range)) = taken.iter().find(|(_, range)| range.overlaps(peer.range)) {
            refuse(format!("its pod range {} overlaps {range} of node {other}", peer.range));
            continue;
        }
        let node = std::iter::once(here.address).chain(peers.iter().map(|peer| peer.address));
        if let Some(address) = node.into_iter().find(|address| peer.range.contains(*address)) {
            refuse(format!("its pod range {} contains the address of a node, {address}", peer.range));
            continue;
        }
        let same_family = peer.range.base().is_ipv4() == peer.address.is_ipv4();
        match peer.reach {
            Reach::Link { interface } if same_family => {
                wanted.direct.insert(peer.range, (interface, peer.address));
            }
            Reach::Link { .. } | Reach::Routed if peer.address.is_ipv4() == here.address.is_ipv4() => {
                wanted.wrapped.insert(peer.range, peer.address);
            }
            Reach::Link { .. } | Reach::Routed => {
                refuse(format!("its address {} is of another family than this node's {}", peer.address, here.address));
                continue;
            }
            Reach::Not => {
                refuse(format!("no route leads to its address {}", peer.address));
                continue;
            }
            Reach::Here => continue,
        }
        taken.push((&peer.name, peer.range));
    }
    wanted
}

pub fn device(here: &Here) -> Device {
    let outer = if here.address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    Device {
        vxlan: Vxlan {
            id: if here.range.base().is_ipv4() { VXLAN_ID } else { VXLAN_ID_V6 },
            port: VXLAN_PORT,
            local: here.address,
        },
        mac: tunnel_mac(here.range),
        mtu: here.mtu.saturating_sub(VXLAN_BYTES + outer).max(MTU_MIN),
        address: here.range.base(),
    }
}

/// From what is found to what is wanted. Nothing to do gives no changes.
pub fn changes(here: &Here, wanted: &Wanted, found: &Found) -> Vec<Change> {
    let mut changes = Vec::new();
    let device = device(here);
    let fits = |tunnel: &Tunnel| tunnel.link.vxlan == Some(device.vxlan) && tunnel.link.mac == Some(device.mac);
    let tunnel = found.tunnel.as_ref().filter(|tunnel| fits(tunnel) && !wanted.wrapped.is_empty());
    let interface = tunnel.map_or(0, |tunnel| tunnel.link.index);

    let gone = found.tunnel.as_ref().filter(|_| tunnel.is_none());
    let source = here.range.gateway();
    let direct = wanted.direct.iter().map(|(range, (interface, gateway))| Route {
        range: *range,
        gateway: *gateway,
        interface: *interface,
        source,
    });
    let wrapped = wanted.wrapped.keys().map(|range| Route { range: *range, gateway: range.base(), interface, source });
    let routes = direct.chain(wrapped).map(|route| (route.range, route)).collect::<BTreeMap<_, _>>();
    for route in &found.routes {
        // One that changes is replaced below, without a moment between.
        if !routes.contains_key(&route.range) {
            changes.push(Change::RemoveRoute(*route));
        }
    }
    if let Some(gone) = gone {
        changes.push(Change::RemoveTunnel { interface: gone.link.index });
    }
    if !wanted.wrapped.is_empty() {
        tunnel_changes(&mut changes, &device, wanted, tunnel);
    }
    for route in routes.values() {
        // Routes go with their interface: those through a tunnel that is made anew are made anew too.
        if route.interface == 0 || !found.routes.contains(route) {
            changes.push(Change::SetRoute(*route));
        }
    }
    changes
}

fn tunnel_changes(changes: &mut Vec<Change>, device: &Device, wanted: &Wanted, tunnel: Option<&Tunnel>) {
    let interface = tunnel.map_or(0, |tunnel| tunnel.link.index);
    match tunnel {
        None => {
            changes.push(Change::AddTunnel(*device));
            changes.push(Change::SetUpTunnel { interface, address: device.address });
        }
        Some(tunnel) => {
            if tunnel.link.mtu != device.mtu {
                changes.push(Change::SetTunnelMtu { interface, mtu: device.mtu });
            }
            if !tunnel.link.is_up || !tunnel.addresses.contains(&device.address) {
                changes.push(Change::SetUpTunnel { interface, address: device.address });
            }
        }
    }
    let entries = |peer: (&Range, &IpAddr)| {
        let (range, host) = (*peer.0, *peer.1);
        let mac = tunnel_mac(range);
        (Forwarding { mac, host }, Neighbor { address: range.base(), mac })
    };
    let (forwardings, neighbors): (BTreeSet<_>, BTreeSet<_>) = wanted.wrapped.iter().map(entries).unzip();
    let had_forwardings = tunnel.iter().flat_map(|tunnel| tunnel.forwardings.iter().copied()).collect::<BTreeSet<_>>();
    let had_neighbors = tunnel.iter().flat_map(|tunnel| tunnel.neighbors.iter().copied()).collect::<BTreeSet<_>>();
    // An entry for a host that a peer has left goes before the one for its new host comes.
    changes.extend(
        had_forwardings.difference(&forwardings).map(|entry| Change::RemoveForwarding { interface, entry: *entry }),
    );
    changes
        .extend(had_neighbors.difference(&neighbors).map(|entry| Change::RemoveNeighbor { interface, entry: *entry }));
    changes.extend(
        forwardings.difference(&had_forwardings).map(|entry| Change::SetForwarding { interface, entry: *entry }),
    );
    changes.extend(neighbors.difference(&had_neighbors).map(|entry| Change::SetNeighbor { interface, entry: *entry }));
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
