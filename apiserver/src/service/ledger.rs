//! Which service holds which address and port. Pure: events and the time come in, answers go out.
//!
//! Invariant: a number is never given to two services. It is taken while the cache shows a service with it, and from
//! the moment it is promised to a write until the cache shows that write's outcome, or until the promise is older than
//! any write can be.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use api::strategy::service::allocation;

/// No write takes longer (requests end after 60 s), so an older promise belongs to one that failed.
pub const PROMISE_MAX: Duration = Duration::from_secs(90);

/// Time as seconds since some start.
pub type Seconds = u64;

#[derive(Debug)]
struct Numbers<N> {
    held: HashMap<N, Box<str>>,
    promised: HashMap<N, (Box<str>, Seconds)>,
}

impl<N> Default for Numbers<N> {
    fn default() -> Self {
        Self { held: HashMap::new(), promised: HashMap::new() }
    }
}

impl<N: Copy + Eq + Hash> Numbers<N> {
    /// Whether `service` may take the number: nobody else has it.
    fn free_for(&self, number: N, service: &str, now: Seconds) -> bool {
        if self.held.get(&number).is_some_and(|holder| **holder != *service) {
            return false;
        }
        let promise = self.promised.get(&number);
        promise.is_none_or(|(other, at)| **other == *service || now.saturating_sub(*at) > PROMISE_MAX.as_secs())
    }

    fn promise(&mut self, number: N, service: &str, now: Seconds) {
        self.promised.retain(|_, (_, at)| now.saturating_sub(*at) <= PROMISE_MAX.as_secs());
        self.promised.insert(number, (service.into(), now));
    }

    fn hold(&mut self, number: N, service: &str) {
        if self.promised.get(&number).is_some_and(|(other, _)| **other == *service) {
            self.promised.remove(&number);
        }
        self.held.entry(number).or_insert_with(|| service.into());
    }

    fn release(&mut self, number: N, service: &str) {
        if self.held.get(&number).is_some_and(|holder| **holder == *service) {
            self.held.remove(&number);
        }
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    addresses: Numbers<IpAddr>,
    ports: Numbers<u16>,
    /// What each service in the cache has, to release it.
    by_service: HashMap<Box<str>, (Vec<IpAddr>, Vec<u16>)>,
}

impl Ledger {
    /// Takes over what the cache shows of a service; `None` when it is gone.
    pub fn observe(&mut self, service: &str, object: Option<&Value>) {
        let spec = object.and_then(|o| o.get("spec"));
        let (addresses, ports) = spec.map(numbers).unwrap_or_default();
        if let Some((old_addresses, old_ports)) = self.by_service.remove(service) {
            old_addresses.iter().filter(|a| !addresses.contains(a)).for_each(|a| self.addresses.release(*a, service));
            old_ports.iter().filter(|p| !ports.contains(p)).for_each(|p| self.ports.release(*p, service));
        }
        addresses.iter().for_each(|a| self.addresses.hold(*a, service));
        ports.iter().for_each(|p| self.ports.hold(*p, service));
        if spec.is_some() {
            self.by_service.insert(service.into(), (addresses, ports));
        }
    }

    pub fn address_is_free(&self, address: IpAddr, service: &str, now: Seconds) -> bool {
        self.addresses.free_for(address, service, now)
    }
    pub fn port_is_free(&self, port: u16, service: &str, now: Seconds) -> bool {
        self.ports.free_for(port, service, now)
    }
    pub fn promise_address(&mut self, address: IpAddr, service: &str, now: Seconds) {
        self.addresses.promise(address, service, now);
    }
    pub fn promise_port(&mut self, port: u16, service: &str, now: Seconds) {
        self.ports.promise(port, service, now);
    }
}

/// The addresses and ports in a spec.
fn numbers(spec: &Value) -> (Vec<IpAddr>, Vec<u16>) {
    let addresses = allocation::cluster_ips(spec).into_iter().filter_map(|ip| ip.parse().ok()).collect();
    let health = spec.get("healthCheckNodePort").and_then(Value::as_i64);
    let ports = allocation::node_ports(spec).into_iter().chain(health).filter(|p| *p != 0);
    (addresses, ports.filter_map(|p| u16::try_from(p).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ip: &str, port: u16) -> Value {
        json!({"spec": {"clusterIPs": [ip], "ports": [{"port": 80, "nodePort": port}]}})
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_service_has_nobody_else_gets_until_it_is_gone() {
        let mut ledger = Ledger::default();
        ledger.observe("ns/a", Some(&service("10.96.0.5", 30_001)));
        assert!(!ledger.address_is_free(ip("10.96.0.5"), "ns/b", 0));
        assert!(ledger.address_is_free(ip("10.96.0.5"), "ns/a", 0));
        assert!(!ledger.port_is_free(30_001, "ns/b", 0));
        ledger.observe("ns/a", Some(&service("10.96.0.6", 30_001)));
        assert!(ledger.address_is_free(ip("10.96.0.5"), "ns/b", 0));
        ledger.observe("ns/a", None);
        assert!(ledger.address_is_free(ip("10.96.0.6"), "ns/b", 0) && ledger.port_is_free(30_001, "ns/b", 0));
    }

    #[test]
    fn a_promise_counts_until_it_is_kept_or_too_old() {
        let mut ledger = Ledger::default();
        ledger.promise_address(ip("10.96.0.5"), "ns/a", 0);
        assert!(!ledger.address_is_free(ip("10.96.0.5"), "ns/b", 90));
        assert!(ledger.address_is_free(ip("10.96.0.5"), "ns/a", 0), "its own");
        assert!(ledger.address_is_free(ip("10.96.0.5"), "ns/b", 91));
        ledger.promise_port(30_001, "ns/a", 0);
        ledger.observe("ns/a", Some(&service("10.96.0.5", 30_001)));
        assert!(!ledger.port_is_free(30_001, "ns/b", 500), "kept");
        ledger.observe("ns/a", None);
        assert!(ledger.port_is_free(30_001, "ns/b", 500), "nothing left of the promise");
    }
}
