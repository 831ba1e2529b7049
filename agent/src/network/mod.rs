//! The built-in pod network: a bridge on each node (`bridge`), and between nodes routes where they share a link, VXLAN
//! where they don't (`plan`, pure; `act`, through netlink). A CNI configuration on the host takes over all of it.
//!
//! Nodes tell of each other by their Node objects alone: the pod range a controller gave them, and their address.
//! Nothing is kept on disk; what an earlier run made is found in the kernel, and what somebody else broke is repaired
//! as soon as the kernel tells of it. Without a server everything stays as it is.

pub mod act;
pub mod bandwidth;
pub mod bridge;
pub mod host_address;
pub mod host_ports;
#[cfg(test)]
mod kernel_tests;
pub mod mend;
pub mod netlink;
pub mod plan;
pub mod range;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use api_client::{Cache, Client, ListParams, Meta};
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    node::{self, facts},
    sandbox::cni,
};
use act::failed;
use netlink::{Monitor, Reach, Socket};
use plan::{Here, Peer, Refused, Wanted};
pub use range::Range;

/// The kernel's state is compared this often without any news. A safety net: news come as events.
const AUDIT: Duration = Duration::from_secs(300);
/// After a failed change.
const RETRY: Duration = Duration::from_secs(5);
/// News are gathered for this long: a started pod alone brings a dozen.
const GATHER: Duration = Duration::from_millis(200);
/// Where the link's own is not known.
const MTU_DEFAULT: u32 = 1500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Act(#[from] act::Error),
    #[error("listen for changes of interfaces and routes")]
    Monitor(#[source] std::io::Error),
    #[error("the Node cache ended unexpectedly")]
    CacheEnded,
    #[error("the thread that talks to the kernel ended early")]
    Thread,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// Name of the bridge; the tunnel's follows from it.
    pub bridge: String,
    pub cni_config_dir: PathBuf,
    /// Files of addresses in use; see `bridge::Bridge`.
    pub address_dir: PathBuf,
}

impl Options {
    pub fn of(options: &crate::Options) -> Self {
        Self {
            node_name: options.node_name.clone(),
            bridge: options.bridge.clone(),
            cni_config_dir: options.cni_config_dir.clone(),
            address_dir: crate::paths::Paths::new(options).addresses(),
        }
    }
}

/// What the network reads of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    metadata: Meta,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

api_client::projection!(
    Node as core::Node,
    Meta,
    trim = |node| {
        node.metadata.labels.clear();
        node.status.addresses.retain(|address| address.kind == "InternalIP");
    }
);

/// A node that has a range and an address, as far as its object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    /// One, or one of each family.
    ranges: Vec<Range>,
    addresses: Vec<IpAddr>,
}

impl Member {
    /// The address of this family or, without one, any: pods of one family travel wrapped between hosts of the other.
    fn address(&self, like: IpAddr) -> Option<IpAddr> {
        let same = self.addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
        same.or(self.addresses.first()).copied()
    }

    fn range(&self, like: Range) -> Option<Range> {
        self.ranges.iter().copied().find(|range| range.base().is_ipv4() == like.base().is_ipv4())
    }
}

fn member(node: &Node) -> Option<Member> {
    let addresses = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
    let listed = node.spec.pod_cidrs.iter().filter_map(|range| Range::parse(range).ok());
    let mut ranges = listed.collect::<Vec<_>>();
    if ranges.is_empty() {
        ranges.extend(Range::parse(&node.spec.pod_cidr).ok());
    }
    let addresses = addresses.filter_map(|address| address.address.parse().ok()).collect::<Vec<_>>();
    let complete = !ranges.is_empty() && !addresses.is_empty();
    complete.then(|| Member { name: node.metadata.name.clone(), ranges, addresses })
}

/// Whether pods are attached to the built-in network: no CNI configuration is on the host.
pub fn is_built_in(cni_config_dir: &std::path::Path) -> bool {
    matches!(cni::on_host(cni_config_dir), Ok(None))
}

/// Keeps this node connected to all others until shutdown. Everything stays when it ends: pods go on.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    let caches = shutdown.child_token();
    let _end_caches = caches.clone().drop_guard();
    let nodes = Cache::<Node>::start(&client, ListParams::default(), &tasks, caches);
    let mut news = nodes.subscribe();
    if shutdown.run_until_cancelled(nodes.synced()).await.is_none() {
        return Ok(());
    }
    let monitor = Monitor::open().map_err(Error::Monitor)?;
    let mut told = Vec::new();
    loop {
        let members = nodes.snapshot().iter().filter_map(|node| member(node)).collect::<Vec<_>>();
        let pause = match converge(&options, members.clone()).await {
            Ok(refused) => {
                tell(&refused, &mut told);
                AUDIT
            }
            Err(error) => {
                tracing::warn!(error = node::chain(&error), "the way to other nodes' pods is not as it should be");
                RETRY
            }
        };
        // Most news of nodes are not about their addresses.
        let moved = async {
            loop {
                news.recv().await.ok_or(Error::CacheEnded)?;
                let now = nodes.snapshot().iter().filter_map(|node| member(node)).collect::<Vec<_>>();
                if now.len() != members.len() || now.iter().any(|member| !members.contains(member)) {
                    return Ok::<(), Error>(());
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            moved = moved => moved?,
            changed = monitor.changed() => changed.map_err(Error::Monitor)?,
            () = tokio::time::sleep(pause) => {}
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(GATHER)).await.is_none() {
            return Ok(());
        }
    }
}

/// Tells once of each node that cannot be served.
fn tell(refused: &[Refused], told: &mut Vec<Refused>) {
    for refused in refused.iter().filter(|refused| !told.contains(refused)) {
        tracing::warn!(node = refused.node, "pods of a node are not reached: {}", refused.problem);
    }
    *told = refused.to_vec();
}

async fn converge(options: &Options, members: Vec<Member>) -> Result<Vec<Refused>, Error> {
    let options = options.clone();
    let done = tokio::task::spawn_blocking(move || converge_here(&options, members));
    done.await.map_err(|_| Error::Thread)?
}

/// One comparison of what should be with what is, for each of this node's ranges.
fn converge_here(options: &Options, members: Vec<Member>) -> Result<Vec<Refused>, Error> {
    let mut socket = Socket::open().map_err(failed("open netlink"))?;
    let Some(own) = members.iter().find(|member| member.name == options.node_name).cloned() else {
        // Not registered yet, or without a range: there is nothing to connect.
        return Ok(Vec::new());
    };
    let mut refused = Vec::new();
    for range in &own.ranges {
        refused.extend(converge_range(&mut socket, options, &own, *range, &members)?);
    }
    Ok(refused)
}

fn converge_range(
    socket: &mut Socket,
    options: &Options,
    own: &Member,
    range: Range,
    members: &[Member],
) -> Result<Vec<Refused>, Error> {
    let Some(here) = here(socket, own, range)? else { return Ok(Vec::new()) };
    let wanted = match is_built_in(&options.cni_config_dir) {
        true => plan::wanted(&here, &peers(socket, options, &here, members)?),
        false => Wanted::default(),
    };
    let found = act::look(socket, &options.bridge, here.range)?;
    let changes = plan::changes(&here, &wanted, &found);
    if changes.is_empty() {
        return Ok(wanted.refused);
    }
    tracing::debug!(?changes, "network");
    let (name, directory) = (options.bridge.clone(), options.address_dir.clone());
    let bridge = bridge::Bridge { name, range: here.range, second: None, directory };
    match act::apply(socket, &bridge, &here, &changes).into_iter().next() {
        Some(failure) => Err(failure.into()),
        None => Ok(wanted.refused),
    }
}

fn here(socket: &mut Socket, own: &Member, range: Range) -> Result<Option<Here>, Error> {
    let Some(told) = own.address(range.base()) else { return Ok(None) };
    // An address that others know this node by, but that is translated on the way, is none to send with.
    let address = match act::reach(socket, told, &[])? {
        Reach::Here => told,
        _ => facts::outward_address().unwrap_or(told),
    };
    Ok(Some(Here { range, address, mtu: mtu_of(socket, address) }))
}

fn peers(socket: &mut Socket, options: &Options, here: &Here, members: &[Member]) -> Result<Vec<Peer>, Error> {
    let mut own = Vec::new();
    for name in std::iter::once(options.bridge.clone()).chain(act::tunnel_names(&options.bridge)) {
        own.extend(socket.link(Some(&name), 0).map_err(failed(format!("find {name}")))?.map(|link| link.index));
    }
    let mut peers = Vec::new();
    for member in members.iter().filter(|member| member.name != options.node_name) {
        // Without a range of this family a node has no such pods.
        let (Some(range), Some(address)) = (member.range(here.range), member.address(here.address)) else { continue };
        let reach = act::reach(socket, address, &own)?;
        peers.push(Peer { name: member.name.clone(), range, address, reach });
    }
    Ok(peers)
}

/// MTU of the interface that has this address.
fn mtu_of(socket: &mut Socket, address: IpAddr) -> u32 {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let named =
        interfaces.filter(|interface| facts::ip(interface) == Some(address)).map(|one| one.interface_name).next();
    let link = named.and_then(|name| socket.link(Some(&name), 0).ok().flatten());
    // The loopback interface's is no measure for anything else.
    link.map_or(MTU_DEFAULT, |link| link.mtu).min(if address.is_loopback() { MTU_DEFAULT } else { u32::MAX })
}

/// MTU of the link that leads to other nodes, which is that of pods.
pub fn link_mtu(options: &crate::Options) -> u32 {
    let address = node::own_addresses(options).ok().and_then(|addresses| addresses.first().copied());
    match (Socket::open(), address) {
        (Ok(mut socket), Some(address)) => mtu_of(&mut socket, address),
        _ => MTU_DEFAULT,
    }
}

/// Removes the network of this name from the host, all but pods' own interfaces, which go with them.
pub fn remove(bridge: &str, address_dir: &std::path::Path) -> Result<(), act::Error> {
    act::remove(bridge)?;
    Ok(bridge::remove(bridge, address_dir)?)
}
