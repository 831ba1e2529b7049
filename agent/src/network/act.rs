//! The kernel's side of the plan: what there is, and the changes made. Blocking; a few requests per other node.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    Range,
    bridge::Bridge,
    netlink::{Reach, Socket},
    plan::{Change, Found, Here, Tunnel},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action}")]
    Kernel { action: String, source: io::Error },
    #[error(transparent)]
    Bridge(#[from] super::bridge::Error),
}

pub fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Kernel { action, source }
}

/// The tunnel's name follows from the bridge's, so that each network of a host has its own, one for pods of each
/// family. At most 15 bytes.
fn tunnel_name(bridge: &str, family: IpAddr) -> String {
    const NAME_BYTES_MAX: usize = 15;
    let suffix = if family.is_ipv4() { "-vx" } else { "-vx6" };
    if bridge.len() + suffix.len() <= NAME_BYTES_MAX {
        return format!("{bridge}{suffix}");
    }
    let [.., a, b, c, d] = super::bridge::mac(bridge);
    format!("kl{a:02x}{b:02x}{c:02x}{d:02x}{suffix}")
}

/// Names of all tunnels of a bridge's network.
pub fn tunnel_names(bridge: &str) -> [String; 2] {
    [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(|family| tunnel_name(bridge, family))
}

/// The way to other nodes, one after the other.
pub fn reach(socket: &mut Socket, address: IpAddr, own: &[u32]) -> Result<Reach, Error> {
    match socket.reach(address).map_err(failed(format!("look up the route to {address}")))? {
        // Through our own network a node must not be looked for.
        Reach::Link { interface } if own.contains(&interface) => Ok(Reach::Not),
        reach => Ok(reach),
    }
}

/// What is ours: the tunnel by its name, routes by the address they send with, which is the bridge's.
pub fn look(socket: &mut Socket, bridge: &str, range: Range) -> Result<Found, Error> {
    let look = |what: &str| failed(format!("look at {what} of {bridge}"));
    let name = tunnel_name(bridge, range.base());
    let sources = match socket.link(Some(bridge), 0).map_err(look("the interface"))? {
        Some(link) => socket.addresses(link.index).map_err(look("addresses"))?,
        None => Vec::new(),
    };
    let mut routes = socket.routes(range.base()).map_err(look("routes"))?;
    routes.retain(|route| sources.contains(&route.source));
    let tunnel = match socket.link(Some(&name), 0).map_err(look("the tunnel"))? {
        None => None,
        Some(link) => Some(Tunnel {
            addresses: socket.addresses(link.index).map_err(look("the tunnel's addresses"))?,
            neighbors: socket.neighbors(link.index, range.base()).map_err(look("the tunnel's neighbours"))?,
            forwardings: socket.forwardings(link.index).map_err(look("the tunnel's forwarding table"))?,
            link,
        }),
    };
    Ok(Found { routes, tunnel })
}

/// Makes all changes that can be made; returns the failures.
pub fn apply(socket: &mut Socket, bridge: &Bridge, here: &Here, changes: &[Change]) -> Vec<Error> {
    let name = tunnel_name(&bridge.name, here.range.base());
    let mut failures = Vec::new();
    // Routes send with the bridge's address, which must be there before them.
    if changes.iter().any(|change| matches!(change, Change::SetRoute(_)))
        && let Err(error) = bridge.ensure(socket, here.mtu)
    {
        return vec![error.into()];
    }
    let mut made = 0;
    for change in changes {
        if let Err(source) = make(socket, &name, change, &mut made) {
            failures.push(failed(format!("network change {change:?}"))(source));
        }
    }
    failures
}

/// `made` is the tunnel's index once this list of changes has made one.
fn make(socket: &mut Socket, name: &str, change: &Change, made: &mut u32) -> io::Result<()> {
    let or_made = |interface: u32| if interface == 0 { *made } else { interface };
    match change {
        Change::RemoveRoute(route) => socket.delete_route(route),
        Change::RemoveTunnel { interface } => socket.delete_link(*interface),
        Change::AddTunnel(device) => {
            socket.add_vxlan(name, device.vxlan, device.mac, device.mtu)?;
            let link = socket.link(Some(name), 0)?.ok_or(io::ErrorKind::NotFound)?;
            *made = link.index;
            Ok(())
        }
        Change::SetUpTunnel { interface, address } => {
            let interface = or_made(*interface);
            socket.set_up(interface)?;
            socket.add_address(interface, *address, if address.is_ipv4() { 32 } else { 128 })
        }
        Change::SetTunnelMtu { interface, mtu } => socket.set_mtu(*interface, *mtu),
        Change::RemoveForwarding { interface, entry } => socket.delete_forwarding(*interface, entry),
        Change::RemoveNeighbor { interface, entry } => socket.delete_neighbor(*interface, entry),
        Change::SetForwarding { interface, entry } => socket.set_forwarding(or_made(*interface), entry),
        Change::SetNeighbor { interface, entry } => socket.set_neighbor(or_made(*interface), entry),
        Change::SetRoute(route) => {
            let mut route = *route;
            route.interface = or_made(route.interface);
            socket.set_route(&route)
        }
    }
}

/// Removes all that `apply` makes, but the bridge. Success when there is nothing.
pub fn remove(bridge: &str) -> Result<(), Error> {
    let mut socket = Socket::open().map_err(failed("open netlink"))?;
    let any = |text: &str| Range::parse(text).ok();
    for like in [any("10.0.0.0/8"), any("fd00::/8")].into_iter().flatten() {
        let found = look(&mut socket, bridge, like)?;
        for route in found.routes {
            socket.delete_route(&route).map_err(failed(format!("remove the route to {}", route.range)))?;
        }
        if let Some(tunnel) = found.tunnel {
            socket
                .delete_link(tunnel.link.index)
                .map_err(failed(format!("remove {}", tunnel_name(bridge, like.base()))))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tunnel_names;

    #[test]
    fn names_fit_the_kernel_and_keep_networks_apart() {
        assert_eq!(tunnel_names("keelson0"), ["keelson0-vx", "keelson0-vx6"]);
        let all = [tunnel_names("br-of-some-node"), tunnel_names("br-of-other-nod")].concat();
        let different = all.iter().collect::<std::collections::BTreeSet<_>>();
        assert!(different.len() == 4 && all.iter().all(|name| name.len() <= 15), "{all:?}");
    }
}
