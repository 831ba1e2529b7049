//! The built-in network: a bridge on the host, a pair of interfaces per pod, addresses from the node's pod range. What
//! the CNI plugins `bridge` and `host-local` do, without starting them: that is most of the time an attachment takes.
//!
//! Addresses in use are files named by the address, holding the pod's uid: they outlive the agent and nothing else has
//! to be remembered.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::node::facts;

use super::{
    Range, act,
    bandwidth::{Bandwidth, Bucket},
    netlink::{Link, Pair, Socket},
    range,
};

/// The pod's interface.
const INTERFACE: &str = "eth0";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Range(#[from] range::Error),
    #[error("no free address in {range}")]
    Full { range: String },
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{action} {name}")]
    Link { action: &'static str, name: String, source: io::Error },
}

/// The network of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    pub name: String,
    pub range: Range,
    /// Of the other address family, where pods have two addresses.
    #[serde(default)]
    pub second: Option<Range>,
    /// Files of addresses in use.
    pub directory: PathBuf,
}

/// Where the search for a free address goes on: addresses are used again as late as possible.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A locally administered hardware address that follows from `what`: an address that is used again then belongs to the
/// same hardware address, and no neighbour has to forget anything.
pub(super) fn mac(what: &str) -> [u8; 6] {
    let digest = Sha256::digest(what.as_bytes());
    [0x0a, 0x58, digest[0], digest[1], digest[2], digest[3]]
}

pub(super) fn host_interface(uid: &str) -> String {
    let digest = Sha256::digest(uid.as_bytes());
    let hex = digest[..5].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("veth{hex}")
}

pub(super) fn link_error(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Link { action, name, source }
}

fn index(name: &str) -> io::Result<u32> {
    Ok(if_nametoindex(name)?)
}

/// The first interface that is none of `own` and has an address of the range: it may get what is meant for pods.
fn rival(range: Range, own: &[String], addresses: impl Iterator<Item = (String, IpAddr)>) -> Option<(String, IpAddr)> {
    let mut others = addresses.filter(|(name, _)| !own.contains(name));
    others.find(|(_, address)| range.contains(*address))
}

impl Bridge {
    /// Who else on this host has addresses of the range, such as the bridge of another server.
    pub fn rival(&self) -> Option<(String, IpAddr)> {
        let addresses = getifaddrs().ok()?.filter_map(|interface| {
            let address = facts::ip(&interface)?;
            Some((interface.interface_name, address))
        });
        let addresses = addresses.collect::<Vec<_>>();
        // The tunnel has the range's first address.
        let own = std::iter::once(self.name.clone()).chain(act::tunnel_names(&self.name)).collect::<Vec<_>>();
        self.ranges().find_map(|range| rival(range, &own, addresses.iter().cloned()))
    }

    /// The first is that of pods' primary addresses.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        std::iter::once(self.range).chain(self.second)
    }

    /// Reserves an address of each range for a pod.
    pub fn reserve(&self, uid: &str) -> Result<Vec<IpAddr>, Error> {
        let mut reserved = Vec::new();
        for range in self.ranges() {
            match self.reserve_in(range, uid) {
                Ok(address) => reserved.push(address),
                Err(error) => {
                    for address in reserved {
                        self.free(uid, address)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    fn reserve_in(&self, range: Range, uid: &str) -> Result<IpAddr, Error> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        fs::create_dir_all(&self.directory).map_err(failed("create", &self.directory))?;
        let offsets = range.offsets();
        let count = offsets.end - offsets.start;
        for _ in 0..count {
            let offset = offsets.start + NEXT.fetch_add(1, Ordering::Relaxed) % count;
            let address = range.at(offset);
            let path = self.directory.join(address.to_string());
            match File::create_new(&path) {
                Ok(mut file) => {
                    file.write_all(uid.as_bytes()).map_err(failed("write", &path))?;
                    return Ok(address);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("reserve", &path)(error)),
            }
        }
        Err(Error::Full { range: range.to_string() })
    }

    /// Takes an address for the pod that has it already, in case its file was lost.
    pub fn hold(&self, uid: &str, address: IpAddr) -> Result<(), Error> {
        let path = self.directory.join(address.to_string());
        if path.exists() {
            return Ok(());
        }
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        fs::create_dir_all(&self.directory).map_err(failed("create the directory of"))?;
        fs::write(&path, uid).map_err(failed("write"))
    }

    /// Whether a pod's interface is there.
    pub fn has(&self, uid: &str) -> bool {
        index(&host_interface(uid)).is_ok()
    }

    /// Gives back whatever a pod has that nothing else tells of. Safe to repeat.
    pub fn forget(&self, uid: &str) -> Result<(), Error> {
        remove_interface(uid)?;
        self.sweep(|owner| owner != uid)
    }

    /// Gives back addresses whose pods are none of these: left by an agent that ended between reserving and noting it.
    pub fn sweep(&self, known: impl Fn(&str) -> bool) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| Error::Io { action: "list", path: self.directory.clone(), source })?,
        };
        for entry in entries.flatten() {
            if fs::read_to_string(entry.path()).is_ok_and(|uid| !known(&uid)) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
            }
        }
        Ok(())
    }

    /// Gives a pod's interface and address back. Safe to repeat.
    pub fn release(&self, uid: &str, address: IpAddr) -> Result<(), Error> {
        remove_interface(uid)?;
        self.free(uid, address)
    }

    fn free(&self, uid: &str, address: IpAddr) -> Result<(), Error> {
        let path = self.directory.join(address.to_string());
        // Released before, it may be another pod's by now.
        if fs::read_to_string(&path).is_ok_and(|owner| owner == uid) {
            fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
        }
        Ok(())
    }

    /// The bridge as an interface; made if it is not there. In the host's namespace. A bridge that has the address of
    /// an earlier range keeps it: there may be pods that use it.
    pub fn ensure(&self, socket: &mut Socket, mtu: u32) -> Result<Link, Error> {
        let failed = |action| link_error(action, &self.name);
        let add_addresses = |socket: &mut Socket, link: &Link| {
            let mut add = |range: Range| socket.add_address(link.index, range.gateway(), range.prefix());
            self.ranges().try_for_each(&mut add).map_err(failed("give an address to bridge"))
        };
        if let Some(link) = socket.link(Some(&self.name), 0).map_err(failed("find bridge"))? {
            add_addresses(socket, &link)?;
            return Ok(link);
        }
        match socket.add_bridge(&self.name, mac(&self.name), mtu) {
            // Another pod was faster.
            Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
            other => other.map_err(failed("create bridge"))?,
        }
        let link = socket.link(Some(&self.name), 0).map_err(failed("find bridge"))?;
        let link = link.ok_or_else(|| failed("find bridge")(io::ErrorKind::NotFound.into()))?;
        add_addresses(socket, &link)?;
        for range in self.ranges() {
            let forwarding = match range.base() {
                IpAddr::V4(_) => "/proc/sys/net/ipv4/ip_forward",
                IpAddr::V6(_) => "/proc/sys/net/ipv6/conf/all/forwarding",
            };
            fs::write(forwarding, "1").map_err(|source| Error::Io {
                action: "enable forwarding in",
                path: forwarding.into(),
                source,
            })?;
        }
        Ok(link)
    }
}

/// Version 6 on a pod's interface, where the host starts without. In the pod's namespace.
fn enable_v6() -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(INTERFACE).join("disable_ipv6");
    if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "0") {
        return Ok(());
    }
    fs::write(&path, "0").map_err(|source| Error::Io { action: "enable version 6 in", path, source })
}

/// A pod's end on the host, and with it the pod's own. Success when there is none.
fn remove_interface(uid: &str) -> Result<(), Error> {
    let name = host_interface(uid);
    if let Ok(index) = index(&name) {
        let failed = || link_error("delete interface", &name);
        // It may be gone with the pod's namespace meanwhile, which is fine.
        Socket::open().map_err(failed())?.delete_link(index).map_err(failed())?;
    }
    Ok(())
}

/// Removes a bridge and all address files. Success when there are none.
pub fn remove(name: &str, directory: &Path) -> Result<(), Error> {
    if let Ok(index) = index(name) {
        let failed = || link_error("delete bridge", name);
        Socket::open().map_err(failed())?.delete_link(index).map_err(failed())?;
    }
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// An attachment half-made: what was done in the host's namespace before this thread leaves it.
pub struct Host {
    socket: Socket,
    bridge: Link,
}

/// To be called on a thread of its own: first in the host's namespace, then in the pod's.
#[derive(Clone)]
pub struct Attach {
    pub bridge: Bridge,
    pub uid: String,
    /// One of each range.
    pub addresses: Vec<IpAddr>,
    pub bandwidth: Bandwidth,
    /// For a bridge that is yet to be made.
    pub mtu: u32,
}

impl Attach {
    pub fn on_host(&self) -> Result<Host, Error> {
        let mut socket = Socket::open().map_err(link_error("open netlink for", &self.bridge.name))?;
        let bridge = self.bridge.ensure(&mut socket, self.mtu)?;
        Ok(Host { socket, bridge })
    }

    pub fn in_pod(&self, mut host: Host) -> Result<(), Error> {
        let name = host_interface(&self.uid);
        let failed = |action| link_error(action, &name);
        let own = Path::new("/proc/thread-self/ns/net");
        let namespace =
            File::open(own).map_err(|source| Error::Io { action: "open namespace", path: own.to_owned(), source })?;
        host.socket
            .add_pair(&Pair {
                name: &name,
                bridge: host.bridge.index,
                mtu: host.bridge.mtu,
                peer: INTERFACE,
                peer_mac: mac(&self.addresses.first().map(ToString::to_string).unwrap_or_default()),
                peer_namespace: namespace.as_fd(),
            })
            .map_err(failed("create interfaces"))?;
        // A pod that reaches itself through a Service needs frames to leave by the port they came in.
        let port = host.socket.link(Some(&name), 0).map_err(failed("find interface"))?;
        let port = port.ok_or_else(|| failed("find interface")(io::ErrorKind::NotFound.into()))?;
        host.socket.set_hairpin(port.index).map_err(failed("prepare interface"))?;
        if let Some(bits) = self.bandwidth.ingress {
            host.socket.limit(port.index, Bucket::of(bits)).map_err(failed("limit what leaves"))?;
        }
        let mut socket = Socket::open().map_err(failed("open netlink for the peer of"))?;
        let index = index(INTERFACE).map_err(failed("find the peer of"))?;
        socket.set_up(index).map_err(failed("bring up the peer of"))?;
        for (range, address) in self.bridge.ranges().zip(&self.addresses) {
            if address.is_ipv6() {
                enable_v6()?;
            }
            socket.add_address(index, *address, range.prefix()).map_err(failed("give an address to the peer of"))?;
            socket.add_default_route(index, range.gateway()).map_err(failed("add a route for the peer of"))?;
        }
        match self.bandwidth.egress {
            Some(bits) => socket.limit(index, Bucket::of(bits)).map_err(failed("limit the peer of")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Bridge, Range, rival};

    fn bridge(range: &str, directory: &std::path::Path) -> Bridge {
        let directory = directory.join("addresses");
        Bridge { name: "br-test".into(), range: Range::parse(range).unwrap(), second: None, directory }
    }

    #[test]
    fn addresses_are_handed_out_once_and_again_after_release() {
        let directory = tempfile::tempdir().unwrap();
        let bridge = bridge("10.9.0.77/29", directory.path());
        assert_eq!(bridge.range.to_string(), "10.9.0.72/29");
        let addresses = (0..5).flat_map(|pod| bridge.reserve(&format!("u{pod}")).unwrap()).collect::<HashSet<_>>();
        // Eight, without the network's own, the bridge's and the broadcast address.
        let expected = (74..79).map(|last| format!("10.9.0.{last}").parse().unwrap()).collect::<HashSet<_>>();
        assert_eq!(addresses, expected);
        assert_eq!(bridge.reserve("u9").unwrap_err().to_string(), "no free address in 10.9.0.72/29");
        let first = addresses
            .iter()
            .copied()
            .find(|address| std::fs::read_to_string(bridge.directory.join(address.to_string())).unwrap() == "u1");
        let first = first.unwrap();
        bridge.release("u2", first).unwrap();
        assert!(bridge.reserve("u9").is_err(), "only its own pod gives an address back");
        bridge.release("u1", first).unwrap();
        assert_eq!(bridge.reserve("u9").unwrap(), [first]);
        bridge.sweep(|uid| uid == "u9").unwrap();
        assert_eq!(std::fs::read_dir(&bridge.directory).unwrap().count(), 1);
    }

    #[test]
    fn ranges_of_both_families() {
        let directory = tempfile::tempdir().unwrap();
        let address = bridge("fd00:1::/64", directory.path()).reserve("u1").unwrap()[0];
        assert!(address.is_ipv6() && address.to_string().starts_with("fd00:1::"), "{address}");
    }

    #[test]
    fn a_pod_has_an_address_of_both_ranges_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let both = Bridge { second: Range::parse("10.9.0.0/30").ok(), ..bridge("fd00:1::/64", directory.path()) };
        let addresses = both.reserve("u1").unwrap();
        assert!(addresses[0].is_ipv6() && addresses[1].to_string() == "10.9.0.2", "{addresses:?}");
        assert_eq!(both.reserve("u2").unwrap_err().to_string(), "no free address in 10.9.0.0/30");
        assert_eq!(std::fs::read_dir(&both.directory).unwrap().count(), 2, "nothing stays reserved for u2");
    }

    #[test]
    fn another_interface_in_the_range_is_found_and_our_own_is_not() {
        let found = |range: &str| {
            let host = [("eth0", "192.168.1.9"), ("br-test", "10.9.0.1"), ("br-other", "10.9.1.1"), ("lo", "fe80::1")];
            let addresses = host.into_iter().map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
            rival(Range::parse(range).unwrap(), &["br-test".to_owned()], addresses).map(|(name, _)| name)
        };
        assert_eq!(found("10.9.0.0/24"), None);
        assert_eq!(found("10.9.1.0/24").as_deref(), Some("br-other"));
        assert_eq!(found("10.9.0.0/16").as_deref(), Some("br-other"));
        assert_eq!(found("192.168.0.0/16").as_deref(), Some("eth0"));
    }
}
