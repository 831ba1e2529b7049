//! Which endpoints of a Service port this node uses: by readiness, place and hints. Pure. The rules are those of
//! upstream's `proxy.CategorizeEndpoints`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::objects::{Endpoint, EndpointSlice, Named, ServicePort};

/// An address and a port that a connection can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub node: String,
    /// Empty when nothing says.
    pub zone: String,
    /// Addresses of pods here that have stopped taking connections, as the node itself knows: before the API server
    /// does, and without it.
    pub unready: Arc<BTreeSet<IpAddr>>,
}

/// Endpoints of one Service port, each list in order and without repetition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usable {
    /// For traffic that may go to any node.
    pub cluster: Vec<Backend>,
    /// For traffic that stays on this node.
    pub local: Vec<Backend>,
    /// Those of both lists that are on this node.
    pub here: Vec<Backend>,
    /// Endpoints that take connections, wherever they are and whoever may use them.
    pub serving: Vec<Backend>,
    /// There is an endpoint somewhere that traffic could go to.
    pub any: bool,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    backend: Backend,
    endpoint: &'a Endpoint,
    is_here: bool,
    /// By what the node knows itself.
    is_unready: bool,
}

impl Candidate<'_> {
    fn is_ready(&self) -> bool {
        !self.is_unready && self.endpoint.conditions.ready.unwrap_or(true)
    }

    fn is_serving(&self) -> bool {
        !self.is_unready && self.endpoint.conditions.serving.unwrap_or(true)
    }

    /// On its way out, but still answering: better than nothing.
    fn is_last_resort(&self) -> bool {
        !self.is_ready() && self.is_serving() && self.endpoint.conditions.terminating.unwrap_or(false)
    }

    fn is_for_node(&self, node: &str) -> bool {
        self.node_hints().iter().any(|hint| &*hint.name == node)
    }

    fn is_for_zone(&self, zone: &str) -> bool {
        self.zone_hints().iter().any(|hint| &*hint.name == zone)
    }

    fn node_hints(&self) -> &[Named] {
        self.endpoint.hints.as_ref().map_or(&[], |hints| &hints.for_nodes)
    }

    fn zone_hints(&self) -> &[Named] {
        self.endpoint.hints.as_ref().map_or(&[], |hints| &hints.for_zones)
    }
}

/// `uses_cluster`, `uses_local`: which lists anything is sent to.
pub fn usable(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    place: &Place,
    ipv6: bool,
    (uses_cluster, uses_local): (bool, bool),
) -> Usable {
    let all = candidates(slices, port, place, ipv6);
    let select = |wanted: &dyn Fn(&Candidate<'_>) -> bool| {
        let mut found: Vec<Backend> = all.iter().filter(|one| wanted(one)).map(|one| one.backend).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let mut usable = Usable { serving: select(&|one| one.is_serving()), ..Usable::default() };
    if uses_cluster {
        let ready: Vec<Candidate<'_>> = all.iter().copied().filter(Candidate::is_ready).collect();
        usable.cluster = match hinted(&ready, place) {
            Hinted::No => select(&|one| one.is_ready()),
            Hinted::Node => select(&|one| one.is_ready() && one.is_for_node(&place.node)),
            Hinted::Zone => select(&|one| one.is_ready() && one.is_for_zone(&place.zone)),
        };
        if usable.cluster.is_empty() {
            usable.cluster = select(&|one| one.is_last_resort());
        }
        usable.any = !usable.cluster.is_empty();
    }
    if uses_local {
        usable.any |= all.iter().any(|one| one.is_ready() || one.is_last_resort());
        usable.local = select(&|one| one.is_here && one.is_ready());
        if usable.local.is_empty() {
            usable.local = select(&|one| one.is_here && one.is_last_resort());
        }
    }
    let used = |backend: &Backend| usable.cluster.contains(backend) || usable.local.contains(backend);
    usable.here = select(&|one| one.is_here).into_iter().filter(used).collect();
    usable
}

/// How many endpoints of a Service this node has, for load balancers that ask.
pub fn local_ready(slices: &[&EndpointSlice], place: &Place) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let here = endpoints.filter(|e| *e.node_name == *place.node && e.conditions.ready.unwrap_or(true));
    let serving = here.filter_map(|e| e.address).filter(|address| !place.unready.contains(address));
    serving.collect::<BTreeSet<_>>().len()
}

enum Hinted {
    No,
    Node,
    Zone,
}

/// Hints count when every ready endpoint has some, and some endpoint is for here (`topologyModeFromHints`).
fn hinted(ready: &[Candidate<'_>], place: &Place) -> Hinted {
    let all = |has: fn(&Candidate<'_>) -> bool| !ready.is_empty() && ready.iter().all(has);
    if all(|one| !one.node_hints().is_empty()) && ready.iter().any(|one| one.is_for_node(&place.node)) {
        Hinted::Node
    } else if all(|one| !one.zone_hints().is_empty()) && ready.iter().any(|one| one.is_for_zone(&place.zone)) {
        Hinted::Zone
    } else {
        Hinted::No
    }
}

fn candidates<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, place: &Place, ipv6: bool) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| slice.is_of(ipv6)) {
        let matching = slice.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol);
        let Some(number) = matching.and_then(|p| p.port) else { continue };
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.address else { continue };
            let is_here = !endpoint.node_name.is_empty() && *endpoint.node_name == *place.node;
            let is_unready = is_here && place.unready.contains(&address);
            found.push(Candidate { backend: Backend { address, port: number }, endpoint, is_here, is_unready });
        }
    }
    found
}
