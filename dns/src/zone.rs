//! The cluster's own domain as a function of two snapshots. Pure: no clock, no I/O; the order of records is the
//! caches' order, and whoever sends them may shuffle.
//!
//! Names follow the DNS specification 1.1 (kubernetes/dns, `docs/specification.md`), and where it is silent what
//! CoreDNS answers in upstream's clusters: ports of a Service at its own name, `A-B-C-D.NAMESPACE.pod` as `A.B.C.D`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api_client::{ObjectKey, Snapshot};
use hickory_proto::rr::rdata::{NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::objects::{
    BY_ADDRESS, BY_SECOND_ADDRESS, BY_SERVICE, Endpoint, EndpointSlice, NAMED, NAMED_VALUE, Port, Service,
};

/// `dns-version.DOMAIN` says which specification is served.
const SPECIFICATION: &str = "1.1.0";
/// How long clients may keep an answer. A lookup costs a client one round trip inside its node, a stale address
/// costs it a failed connection.
pub const TTL_SECONDS: u32 = 5;
/// Most addresses or targets in one answer: what fits in a TCP message with room to spare.
const RECORDS_MAX: usize = 2_000;

/// What a name has.
#[derive(Debug, PartialEq)]
pub enum Found {
    Records(Vec<RData>),
    /// Ask for this name instead (`ExternalName`).
    Alias(Name),
    /// The name exists and has nothing of the type asked for.
    NoData,
    NoName,
}

pub struct Zone {
    /// Lower case, with the final dot.
    domain: Name,
    services: Arc<Snapshot<Service>>,
    slices: Arc<Snapshot<EndpointSlice>>,
}

impl Zone {
    pub fn new(domain: Name, services: Arc<Snapshot<Service>>, slices: Arc<Snapshot<EndpointSlice>>) -> Self {
        Self { domain, services, slices }
    }

    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// The labels in front of the domain, in lower case; `None` for a name outside.
    pub fn labels(&self, name: &Name) -> Option<Vec<String>> {
        if !self.domain.zone_of(name) {
            return None;
        }
        let count = usize::from(name.num_labels() - self.domain.num_labels());
        let text = |label: &[u8]| String::from_utf8_lossy(label).to_lowercase();
        Some(name.iter().take(count).map(text).collect())
    }

    /// What the name made of `labels` and the domain has of type `kind`.
    pub fn lookup(&self, labels: &[String], kind: RecordType) -> Found {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(kind),
            ["dns-version"] if kind == RecordType::TXT => {
                Found::Records(vec![RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))])
            }
            ["dns-version"] | ["svc" | "pod"] => Found::NoData,
            [address, _namespace, "pod"] => pod(address, kind),
            [rest @ .., namespace, "svc"] => self.service_name(rest, namespace, kind),
            _ => Found::NoName,
        }
    }

    /// The names of an address: of the Service that has it, or of the endpoints that have a host name.
    pub fn reverse(&self, address: IpAddr) -> Vec<Name> {
        let text = address.to_string();
        let services = self.services.indexed(BY_ADDRESS.name, &text);
        let services = services.chain(self.services.indexed(BY_SECOND_ADDRESS.name, &text));
        let names: Vec<Name> =
            services.filter_map(|s| self.name(&[&s.metadata.name, &s.metadata.namespace, "svc"])).collect();
        if !names.is_empty() {
            return names;
        }
        self.slices.indexed(NAMED.name, NAMED_VALUE).flat_map(|slice| self.endpoint_names(slice, &text)).collect()
    }

    fn endpoint_names(&self, slice: &EndpointSlice, address: &str) -> Vec<Name> {
        let Some(service) = slice.metadata.labels.get(crate::objects::SERVICE_NAME_LABEL) else { return Vec::new() };
        let named = slice.endpoints.iter().filter(|e| !e.hostname.is_empty() && is_ready(e));
        named
            .filter(|e| e.addresses.iter().any(|a| a == address))
            .filter_map(|e| self.name(&[&e.hostname, service, &slice.metadata.namespace, "svc"]))
            .collect()
    }

    /// For answers that say that there is nothing: how long that may be believed.
    pub fn authority(&self) -> SOA {
        let mail = Name::from_ascii("hostmaster").and_then(|n| n.append_domain(&self.domain));
        let serial = u32::try_from(self.services.revision().0 & u64::from(u32::MAX)).unwrap_or_default();
        SOA::new(self.server(), mail.unwrap_or_else(|_| self.domain.clone()), serial, 7200, 1800, 86400, TTL_SECONDS)
    }

    fn server(&self) -> Name {
        self.name(&["ns", "dns"]).unwrap_or_else(|| self.domain.clone())
    }

    fn apex(&self, kind: RecordType) -> Found {
        match kind {
            RecordType::SOA => Found::Records(vec![RData::SOA(self.authority())]),
            RecordType::NS => Found::Records(vec![RData::NS(NS(self.server()))]),
            _ => Found::NoData,
        }
    }

    /// `None` for labels that cannot stand in a name, which then has no record.
    fn name(&self, labels: &[&str]) -> Option<Name> {
        Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?.append_domain(&self.domain).ok()
    }

    fn service_name(&self, labels: &[&str], namespace: &str, kind: RecordType) -> Found {
        let Some((name, labels)) = labels.split_last() else {
            return if self.services.namespace(namespace).next().is_some() { Found::NoData } else { Found::NoName };
        };
        let Some(service) = self.services.get(&ObjectKey::new(namespace, *name)) else { return Found::NoName };
        if service.is_external() {
            return if labels.is_empty() { external(&service.spec.external_name, kind) } else { Found::NoName };
        }
        match labels {
            [] if kind == RecordType::SRV => some(self.targets(service, |_| true)),
            [] => some(addresses(&self.addresses(service), kind)),
            [port, protocol] if port.starts_with('_') => {
                let port = &port[1..];
                let wanted = |p: &Port| p.name == port && p.protocol_label() == *protocol;
                match self.ports(service).iter().any(wanted) {
                    true if kind == RecordType::SRV => some(self.targets(service, wanted)),
                    true => Found::NoData,
                    false => Found::NoName,
                }
            }
            [protocol] if protocol.starts_with('_') => {
                match self.ports(service).iter().any(|p| p.protocol_label() == *protocol) {
                    true => Found::NoData,
                    false => Found::NoName,
                }
            }
            [hostname] => {
                let named = self.endpoints(service).filter(|(_, e)| hostnames(e).any(|h| h == *hostname));
                let found: BTreeSet<IpAddr> = named.flat_map(|(_, e)| parsed(&e.addresses)).collect();
                if found.is_empty() { Found::NoName } else { some(addresses(&found, kind)) }
            }
            _ => Found::NoName,
        }
    }

    fn slices<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        self.slices.indexed_in(BY_SERVICE.name, name, namespace)
    }

    fn endpoints<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (&'a EndpointSlice, &'a Endpoint)> {
        let all = self.slices(service).flat_map(|s| s.endpoints.iter().map(move |e| (s.as_ref(), e)));
        all.filter(|(_, e)| is_ready(e))
    }

    /// The addresses a Service's name stands for.
    fn addresses(&self, service: &Service) -> BTreeSet<IpAddr> {
        if service.is_headless() {
            return self.endpoints(service).flat_map(|(_, e)| parsed(&e.addresses)).take(RECORDS_MAX).collect();
        }
        parsed(&service.spec.cluster_ips).collect()
    }

    /// The ports with an SRV name. A headless Service may have its ports in its endpoints alone.
    fn ports(&self, service: &Service) -> Vec<Port> {
        match service.is_headless() {
            true => self.slices(service).flat_map(|s| s.ports.iter().cloned()).collect(),
            false => service.spec.ports.clone(),
        }
    }

    fn targets(&self, service: &Service, wanted: impl Fn(&Port) -> bool) -> Vec<RData> {
        let (name, namespace) = (service.metadata.name.as_str(), service.metadata.namespace.as_str());
        let mut found = BTreeSet::new();
        if !service.is_headless() {
            let ports = service.spec.ports.iter().filter(|p| wanted(p)).filter_map(|p| p.port);
            found.extend(ports.filter_map(|port| Some((self.name(&[name, namespace, "svc"])?, port))));
        } else {
            for (slice, endpoint) in self.endpoints(service).take(RECORDS_MAX) {
                for port in slice.ports.iter().filter(|p| wanted(p)).filter_map(|p| p.port) {
                    let targets = hostnames(endpoint).filter_map(|h| self.name(&[&h, name, namespace, "svc"]));
                    found.extend(targets.map(|target| (target, port)));
                }
            }
        }
        found.into_iter().map(|(target, port)| RData::SRV(SRV::new(0, 100, port, target))).collect()
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.ready.unwrap_or(true)
}

/// The labels an endpoint is called by below its Service: its host name, or each address with dashes.
fn hostnames(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    let named = Some(endpoint.hostname.clone()).filter(|h| !h.is_empty());
    let by_address = endpoint.addresses.iter().filter(|_| endpoint.hostname.is_empty());
    named.into_iter().chain(by_address.map(|a| a.replace(['.', ':'], "-")))
}

fn parsed(texts: &[String]) -> impl Iterator<Item = IpAddr> {
    texts.iter().filter_map(|t| t.parse().ok())
}

fn some(records: Vec<RData>) -> Found {
    if records.is_empty() { Found::NoData } else { Found::Records(records) }
}

fn addresses<'a>(all: impl IntoIterator<Item = &'a IpAddr>, kind: RecordType) -> Vec<RData> {
    all.into_iter()
        .filter(|address| kind == if address.is_ipv4() { RecordType::A } else { RecordType::AAAA })
        .map(|address| (*address).into())
        .collect()
}

/// `externalName` may be an address, though upstream's validation asks for a name.
fn external(target: &str, kind: RecordType) -> Found {
    if let Ok(address) = target.parse::<IpAddr>() {
        return some(addresses([&address], kind));
    }
    match Name::from_ascii(target) {
        Ok(mut name) => {
            name.set_fqdn(true);
            Found::Alias(name)
        }
        Err(_) => Found::NoData,
    }
}

/// A pod by its address. Whether such a pod exists is not looked at, as in CoreDNS' `pods insecure`.
fn pod(label: &str, kind: RecordType) -> Found {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    let address = v4.or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6));
    match address {
        Ok(address) => some(addresses([&address], kind)),
        Err(_) => Found::NoName,
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
