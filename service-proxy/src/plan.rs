//! From one Service and its EndpointSlices to what this node does for it: pure, so that every entry of the table has a
//! reason that a test can show. What is decided follows upstream's nftables proxier (`Proxier.syncProxyRules`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;

use crate::endpoints::{Backend, Place, Usable, usable};
use crate::objects::{EndpointSlice, Service, ServicePort};
use api::cidr::Cidr;

/// Most endpoints of one Service port that take part; the rest is left out. It is what a [`crate::table::Way`] holds.
const ENDPOINTS_MAX: usize = crate::table::Way::COUNT_MAX as usize;
/// The Service that stands for cluster DNS.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// What a node has of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub place: Place,
    /// This node's DNS server: behind the DNS Service as long as that has no endpoints.
    pub dns: Option<SocketAddrV4>,
    /// Addresses of this node, for source ranges that include them.
    pub addresses: Vec<IpAddr>,
}

/// Where clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// The unspecified address (all zeros): a node port, on the node's own addresses.
    pub address: IpAddr,
    pub protocol: u8,
    pub port: u16,
}

/// How traffic to a frontend is treated before an endpoint is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A cluster address: masqueraded when it comes from outside the pod network.
    Internal = 1,
    /// Masqueraded always, as the endpoint may be on another node.
    External = 2,
    /// Keeps the client's address and goes to endpoints on this node. What pods and the node itself send goes to any
    /// endpoint instead, as if it had left the cluster and come back through a balancer.
    ExternalLocal = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum List {
    Cluster,
    Local,
}

/// What becomes of new connections that find no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// There is no endpoint anywhere.
    Refused,
    /// There is none on this node, and traffic must stay here. Another node may well have one.
    Dropped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub frontend: Frontend,
    pub kind: Kind,
    pub list: List,
    /// Without endpoints anywhere there is no way in at all.
    pub is_served: bool,
    pub unserved: Option<Unserved>,
    /// Only these sources may use it; anybody when there are none.
    pub sources: Vec<Cidr>,
}

/// What is done for one port of a Service, in one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub protocol: u8,
    pub port: u16,
    /// How long a client stays with its endpoint; 0: every connection is on its own.
    pub affinity_seconds: u32,
    pub entries: Vec<Entry>,
    pub endpoints: Usable,
}

/// What is done for a Service in one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub cluster_ip: IpAddr,
    pub ports: Vec<Port>,
}

/// `None` when the Service has nothing to do with this family, or with this proxy.
pub fn plan(service: &Service, slices: &[&EndpointSlice], node: &Node, ipv6: bool) -> Option<Plan> {
    if service.is_skipped() {
        return None;
    }
    let cluster_ip = service.cluster_ip(ipv6)?;
    let ports = service.spec.ports.iter().map(|port| plan_port(service, port, slices, node, cluster_ip)).collect();
    Some(Plan { cluster_ip, ports })
}

fn plan_port(
    service: &Service,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node: &Node,
    cluster_ip: IpAddr,
) -> Port {
    let ipv6 = cluster_ip.is_ipv6();
    let external: Vec<Frontend> = external_frontends(service, port, ipv6).collect();
    let balancers: Vec<IpAddr> = service.balancer_ips(ipv6).collect();
    let (internal_local, external_local) = (service.is_internal_local(), service.is_external_local());
    let is_external = !external.is_empty();
    let uses_cluster = !internal_local || is_external;
    let uses_local = internal_local || (external_local && is_external);
    // Who asks for endpoints that are not ready gets them.
    let credulous = Place { unready: Arc::default(), ..node.place.clone() };
    let place = if service.spec.publish_not_ready_addresses { &credulous } else { &node.place };
    let mut endpoints = usable(slices, port, place, ipv6, (uses_cluster, uses_local));
    use_own_dns(service, node, ipv6, &mut endpoints);
    endpoints.cluster.truncate(ENDPOINTS_MAX);
    endpoints.local.truncate(ENDPOINTS_MAX);

    let own = Frontend { address: cluster_ip, protocol: port.protocol.0, port: port.port };
    let mut entries = vec![entry(own, Kind::Internal, internal_local, &endpoints, Vec::new())];
    let sources = allowed_sources(service, node, &balancers);
    for frontend in external {
        let kind = if external_local { Kind::ExternalLocal } else { Kind::External };
        // Node ports and external addresses are open to all, as upstream has them.
        let guarded = balancers.contains(&frontend.address);
        let sources = if guarded { sources.clone() } else { Vec::new() };
        entries.push(entry(frontend, kind, external_local, &endpoints, sources));
    }
    let affinity_seconds = service.affinity_seconds();
    Port { protocol: port.protocol.0, port: port.port, affinity_seconds, entries, endpoints }
}

fn entry(frontend: Frontend, kind: Kind, is_local: bool, endpoints: &Usable, sources: Vec<Cidr>) -> Entry {
    let list = if is_local { List::Local } else { List::Cluster };
    let unserved = match list {
        _ if !endpoints.any => Some(Unserved::Refused),
        List::Local if endpoints.local.is_empty() => Some(Unserved::Dropped),
        _ => None,
    };
    // What must stay here may still be short-circuited to anywhere, if it comes from a pod or the node.
    let is_served = endpoints.any && (unserved.is_none() || kind == Kind::ExternalLocal);
    Entry { frontend, kind, list, is_served, unserved, sources }
}

fn external_frontends<'a>(
    service: &'a Service,
    port: &ServicePort,
    ipv6: bool,
) -> impl Iterator<Item = Frontend> + use<'a> {
    let protocol = port.protocol.0;
    let number = port.port;
    let mut addresses: Vec<IpAddr> = service.external_ips(ipv6).chain(service.balancer_ips(ipv6)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let addresses = addresses.into_iter().map(move |address| Frontend { address, protocol, port: number });
    let node_port = port.node_port;
    addresses.chain((node_port != 0).then_some(Frontend { address: every_address(ipv6), protocol, port: node_port }))
}

/// Stands for all addresses of the node.
fn every_address(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The Service's source ranges. A range with this node in it lets the balancer's own addresses in, too: what the node
/// sends there may come back with that address as its source.
fn allowed_sources(service: &Service, node: &Node, balancers: &[IpAddr]) -> Vec<Cidr> {
    let Some(first) = balancers.first() else { return Vec::new() };
    let mut sources = service.source_ranges(first.is_ipv6());
    if sources.iter().any(|range| node.addresses.iter().any(|address| range.contains(*address))) {
        sources.extend(balancers.iter().map(|address| Cidr::single(*address)));
    }
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn use_own_dns(service: &Service, node: &Node, ipv6: bool, endpoints: &mut Usable) {
    let name = (service.namespace(), service.name());
    let Some(dns) = node.dns.filter(|_| !endpoints.any && !ipv6 && name == DNS_SERVICE) else { return };
    let own = vec![Backend { address: (*dns.ip()).into(), port: dns.port() }];
    *endpoints = Usable { cluster: own.clone(), local: own.clone(), here: Vec::new(), serving: own, any: true };
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
