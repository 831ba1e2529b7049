//! Host ports: what comes to a port of this host goes to a pod of the built-in network. One nftables table per address
//! family, with maps from port to pod, so that a pod's ports are elements and no rules.
//!
//! The maps are the state: an element belongs to the pod whose address it holds. What records of sandboxes ask for is
//! compared with them at the agent's start and whenever somebody else has changed the tables.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use nftables::{
    Batch, Chain, Ct, Data, Element, Expr, Family, FibOf, Hook, Meta, Monitor, Nat, Register, Rule, Set, Socket, Table,
    Type, Value, Verdict, destination_address, destination_port, equals, in_range, l4proto, source_address,
};

use crate::sandbox::cni::PortMapping;

/// `protocol . port` on any address of the host, to `address . port` of a pod.
const ANY: &str = "any";
/// The same for ports of one address of the host.
const BOUND: &str = "bound";
/// Pods that have host ports, by their address twice: one that reaches itself must not see its own address.
const SELF: &str = "self";
const COMMENT: &str = "host ports of pods; kept by keelson, changes are undone";
/// After the service proxy's own chains (`NF_IP_PRI_NAT_DST` + 1): a Service's port comes before a pod's.
const DESTINATION_PRIORITY: i32 = -99;
const SOURCE_PRIORITY: i32 = 100;
/// Before connection tracking (`NF_IP_PRI_RAW`).
const RAW_PRIORITY: i32 = -300;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
const R: Register = Register(0);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("host ports")]
    Kernel(#[from] nftables::Error),
    #[error("host port {port}/{protocol} is in use by the pod with address {by}")]
    Taken { port: u16, protocol: String, by: IpAddr },
    #[error("set {path}, which host ports need")]
    Parameter { path: String, source: std::io::Error },
}

/// The host ports of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub mappings: Vec<PortMapping>,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug)]
pub struct HostPorts {
    table: String,
    /// The interface that pods are behind.
    bridge: String,
    /// Held over each look and the change that follows from it. One for all changes, so that others' can be told from
    /// our own.
    socket: Mutex<Option<Socket>>,
}

/// Elements that belong into the maps of one family.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    any: Vec<(Value, Value)>,
    bound: Vec<(Value, Value)>,
    own: BTreeSet<Value>,
}

fn kernel_protocol(name: &str) -> Option<u8> {
    match name {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ip } else { Family::Ip6 }
}

fn wanted<'a>(family: Family, pods: impl IntoIterator<Item = &'a Ports>) -> Wanted {
    let mut wanted = Wanted::default();
    for pod in pods {
        for address in pod.addresses.iter().filter(|address| family_of(**address) == family) {
            for mapping in &pod.mappings {
                let Some(protocol) = kernel_protocol(&mapping.protocol) else { continue };
                let to = Value::new().address(*address).port(mapping.container_port);
                let port = |value: Value| value.protocol(protocol).port(mapping.host_port);
                match mapping.host_ip.parse::<IpAddr>() {
                    Ok(host) if host.is_unspecified() && family_of(host) == family => {
                        wanted.any.push((port(Value::new()), to));
                    }
                    Ok(host) if !host.is_unspecified() && family_of(host) == family => {
                        wanted.bound.push((port(Value::new().address(host)), to));
                    }
                    // An address of the other family.
                    Ok(_) => continue,
                    Err(_) => wanted.any.push((port(Value::new()), to)),
                }
                wanted.own.insert(Value::new().address(*address).address(*address));
            }
        }
    }
    wanted
}

impl HostPorts {
    pub fn new(table: &str, bridge: &str) -> Self {
        Self { table: table.to_owned(), bridge: bridge.to_owned(), socket: Mutex::new(None) }
    }

    /// Runs `work` on the socket, which is opened in the network namespace of the first caller.
    fn locked<T>(&self, work: impl FnOnce(&mut Socket) -> Result<T, Error>) -> Result<T, Error> {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(socket) => work(socket),
            none => work(none.insert(Socket::open()?)),
        }
    }

    /// Hears of changes that somebody else makes. Must be called inside a tokio runtime.
    pub fn listen(&self) -> Result<Monitor, Error> {
        self.locked(|socket| Ok(Monitor::open(&[socket.port()?])?))
    }

    /// Returns when somebody else has changed the tables.
    pub async fn changed(&self, monitor: &Monitor) -> Result<(), Error> {
        Ok(monitor.changed(&self.tables()).await?)
    }

    fn tables(&self) -> [Table<'_>; 2] {
        [Family::Ip, Family::Ip6].map(|family| Table { family, name: &self.table })
    }

    /// Opens a pod's ports. Success when they are open already; what leads to another pod is an error.
    pub fn open(&self, pod: &Ports) -> Result<(), Error> {
        self.locked(|socket| self.open_by(socket, pod))
    }

    fn open_by(&self, socket: &mut Socket, pod: &Ports) -> Result<(), Error> {
        let mut batch = Batch::new();
        for table in self.tables() {
            let wanted = wanted(table.family, [pod]);
            if wanted == Wanted::default() {
                continue;
            }
            if socket.table(table)?.is_none() {
                frame(&mut batch, table);
                allow_loopback(&self.bridge, table.family)?;
            }
            for (map, entries) in [(ANY, &wanted.any), (BOUND, &wanted.bound)] {
                let found = socket.elements(table, map)?;
                for (key, to) in entries {
                    match found.iter().find(|element| element.key == *key).map(|element| &element.data) {
                        Some(Some(Data::Value(data))) if data == to => {}
                        Some(data) => return Err(taken(key, data.as_ref())),
                        None => batch.add_elements(table, map, [Element::with_data(key.clone(), to.clone())]),
                    }
                }
            }
            let found = socket.elements(table, SELF)?;
            let new = wanted.own.into_iter().filter(|key| found.iter().all(|element| element.key != *key));
            batch.add_elements(table, SELF, new.map(Element::new).collect::<Vec<_>>());
        }
        Ok(socket.commit(&mut batch)?)
    }

    /// Closes whatever leads to these addresses. Success when nothing does.
    pub fn close(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        let gone = |address: &IpAddr| addresses.contains(address);
        self.locked(|socket| {
            let mut batch = Batch::new();
            for table in self.tables() {
                if socket.table(table)?.is_some() {
                    remove(socket, &mut batch, table, &gone)?;
                }
            }
            if batch.is_empty() { Ok(()) } else { Ok(socket.commit(&mut batch)?) }
        })
    }

    /// Makes the tables what these pods want, and nothing else.
    pub fn restore(&self, pods: &[Ports]) -> Result<(), Error> {
        self.locked(|socket| self.restore_by(socket, pods))
    }

    fn restore_by(&self, socket: &mut Socket, pods: &[Ports]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for table in self.tables() {
            batch.add_table(table, None);
            batch.delete_table(table);
            let wanted = wanted(table.family, pods);
            if wanted == Wanted::default() {
                continue;
            }
            frame(&mut batch, table);
            allow_loopback(&self.bridge, table.family)?;
            for (map, mut entries) in [(ANY, wanted.any), (BOUND, wanted.bound)] {
                // Of two pods with one port the first has it.
                entries.sort();
                entries.dedup_by(|a, b| a.0 == b.0);
                batch.add_elements(table, map, entries.into_iter().map(|(key, to)| Element::with_data(key, to)));
            }
            batch.add_elements(table, SELF, wanted.own.into_iter().map(Element::new));
        }
        Ok(socket.commit(&mut batch)?)
    }
}

/// Removes elements that lead to addresses of which `gone` is true, and with the last of them the table.
fn remove(
    socket: &mut Socket,
    batch: &mut Batch,
    table: Table<'_>,
    gone: &dyn Fn(&IpAddr) -> bool,
) -> Result<(), Error> {
    let is_gone = |bytes: &[u8]| address(table.family, bytes).is_some_and(|address| gone(&address));
    let (own, others) =
        socket.elements(table, SELF)?.into_iter().partition::<Vec<_>, _>(|element| is_gone(&element.key.0));
    if others.is_empty() {
        batch.delete_table(table);
        return Ok(());
    }
    for map in [ANY, BOUND] {
        let found = socket.elements(table, map)?.into_iter();
        let leading = found.filter(|element| match &element.data {
            Some(Data::Value(to)) => is_gone(&to.0),
            _ => false,
        });
        batch.delete_elements(table, map, leading.collect::<Vec<_>>());
    }
    batch.delete_elements(table, SELF, own);
    Ok(())
}

/// The address a value begins with.
fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ip6 => bytes.get(..16).and_then(|octets| <[u8; 16]>::try_from(octets).ok()).map(IpAddr::from),
        _ => bytes.get(..4).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(IpAddr::from),
    }
}

fn taken(key: &Value, data: Option<&Data>) -> Error {
    let bytes = &key.0;
    // The last two registers of either key.
    let port = bytes.len().checked_sub(4).map_or(0, |at| u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let protocol = match bytes.len().checked_sub(8).map(|at| bytes[at]) {
        Some(17) => "udp",
        Some(132) => "sctp",
        _ => "tcp",
    };
    let by = match data {
        Some(Data::Value(to)) if to.0.len() > 8 => address(Family::Ip6, &to.0),
        Some(Data::Value(to)) => address(Family::Ip, &to.0),
        _ => None,
    };
    let by = by.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    Error::Taken { port, protocol: protocol.to_owned(), by }
}

/// Removes the tables. Success when there are none.
pub fn cleanup(table: &str) -> Result<(), Error> {
    HostPorts::new(table, "").restore(&[])
}

/// A connection of the host itself to one of its own loopback addresses may then leave through the bridge. What comes
/// from outside for these addresses is dropped by the table.
fn allow_loopback(bridge: &str, family: Family) -> Result<(), Error> {
    if family != Family::Ip {
        return Ok(());
    }
    let path = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    std::fs::write(&path, "1").map_err(|source| Error::Parameter { path, source })
}

fn frame(batch: &mut Batch, table: Table<'_>) {
    let family = table.family;
    let kind = if family == Family::Ip6 { Type::Ipv6 } else { Type::Ipv4 };
    let (after, to_port) = (R.plus(kind.registers()), R.plus(kind.registers()));
    batch.add_table(table, Some(COMMENT));
    batch.add_set(table, &Set::map(ANY, &[Type::Protocol, Type::Port], &[kind, Type::Port]));
    batch.add_set(table, &Set::map(BOUND, &[kind, Type::Protocol, Type::Port], &[kind, Type::Port]));
    batch.add_set(table, &Set::new(SELF, &[kind, kind]));
    let nat = || Expr::Nat { kind: Nat::Destination, family, address: R, port: Some(to_port) };
    let to_host = || [Expr::FibType { of: FibOf::Destination, to: R }, equals(R, LOCAL.to_ne_bytes())];
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.add_chain(table, &Chain::base(chain, "nat", hook, DESTINATION_PRIORITY));
        let mut bound = to_host().to_vec();
        bound.extend([destination_address(family, R), l4proto(after), destination_port(after.plus(1))]);
        bound.extend([Expr::load(BOUND, R, R), nat()]);
        batch.add_rule(table, &Rule::new(chain, bound));
        let mut any = to_host().to_vec();
        any.extend([l4proto(R), destination_port(R.plus(1)), Expr::load(ANY, R, R), nat()]);
        batch.add_rule(table, &Rule::new(chain, any));
    }
    batch.add_chain(table, &Chain::base("postrouting", "nat", Hook::Postrouting, SOURCE_PRIORITY));
    let itself = vec![source_address(family, R), destination_address(family, after), Expr::lookup(SELF, R)];
    batch.add_rule(table, &Rule::new("postrouting", [itself, vec![Expr::Masquerade]].concat()));
    if family == Family::Ip {
        let loopback = |scratch| in_range(R, std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8, true, scratch);
        let mut from_loopback = Ct::Status.has(Ct::DNAT, R);
        from_loopback.push(source_address(family, R));
        from_loopback.extend(loopback(R.plus(1)));
        from_loopback.push(Expr::Masquerade);
        batch.add_rule(table, &Rule::new("postrouting", from_loopback));
        // Nobody outside reaches what listens on loopback addresses alone.
        batch.add_chain(table, &Chain::base("foreign", "filter", Hook::Prerouting, RAW_PRIORITY));
        let mut foreign = vec![destination_address(family, R)];
        foreign.extend(loopback(R.plus(1)));
        foreign.push(Expr::Meta { key: Meta::InName, to: R });
        let lo = Value::new().interface("lo").0;
        foreign.push(Expr::Compare { op: nftables::Compare::NotEqual, from: R, value: lo });
        foreign.push(Expr::Verdict(Verdict::Drop));
        batch.add_rule(table, &Rule::new("foreign", foreign));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(mappings: &[(u16, u16, &str, &str)], addresses: &[&str]) -> Ports {
        let mapping = |(host_port, container_port, protocol, host_ip): &(u16, u16, &str, &str)| PortMapping {
            host_port: *host_port,
            container_port: *container_port,
            protocol: (*protocol).to_owned(),
            host_ip: (*host_ip).to_owned(),
        };
        Ports {
            mappings: mappings.iter().map(mapping).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_port_is_of_all_addresses_or_of_one_in_its_family() {
        let pod = ports(
            &[
                (80, 8080, "tcp", ""),
                (53, 53, "udp", "192.0.2.1"),
                (9, 9, "sctp", "::"),
                (7, 7, "tcp", "0.0.0.0"),
                (5, 5, "icmp", ""),
            ],
            &["10.0.0.1", "fd00::1"],
        );
        let v4 = wanted(Family::Ip, [&pod]);
        assert_eq!((v4.any.len(), v4.bound.len(), v4.own.len()), (2, 1, 1));
        let v6 = wanted(Family::Ip6, [&pod]);
        assert_eq!((v6.any.len(), v6.bound.len(), v6.own.len()), (2, 0, 1));
    }

    #[test]
    fn a_taken_port_is_named() {
        let wanted = wanted(Family::Ip, [&ports(&[(53, 5353, "udp", "192.0.2.1")], &["10.0.0.1"])]);
        let (key, to) = wanted.bound[0].clone();
        let error = taken(&key, Some(&Data::Value(to)));
        assert_eq!(error.to_string(), "host port 53/udp is in use by the pod with address 10.0.0.1");
    }
}
