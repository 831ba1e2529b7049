//! Endpoints and EndpointSlice.

use serde_json::Value;

use super::fill::Lit::Str;
use super::fill::{each, fill};
use super::place::{Errors, Place};
use super::pod::containers::PROTOCOLS;
use super::{Context, Strategy, address, format, metadata};
use crate::field::Error;
use crate::meta;

const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const ENDPOINTS_MAX: usize = 1000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_MAX: usize = 16;

pub struct Endpoints;

impl Strategy for Endpoints {
    fn allows_create_on_update(&self) -> bool {
        true
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        each(object, "subsets", |subset| each(subset, "ports", |port| fill(port, &[("protocol", Str("TCP"))])));
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        for subset in object.field("subsets").items() {
            let lists = [subset.field("addresses"), subset.field("notReadyAddresses")];
            if lists.iter().all(Place::is_empty) {
                errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
            }
            for address in lists.iter().flat_map(|list| list.items()) {
                self::address(&address, errors);
            }
            let ports = subset.field("ports");
            for port in ports.items() {
                self::port(&port, ports.list().len() > 1, errors);
            }
        }
    }
}

fn address(address: &Place, errors: &mut Errors) {
    let ip = address.field("ip");
    format::check(&ip, address::ip, errors);
    format::check(&ip, address::non_special, errors);
    for (field, rule) in [("hostname", format::label as fn(&str) -> Vec<String>), ("nodeName", format::subdomain)] {
        let place = address.field(field);
        if !place.is_empty() {
            format::check(&place, rule, errors);
        }
    }
}

fn port(port: &Place, named: bool, errors: &mut Errors) {
    let (name, application) = (port.field("name"), port.field("appProtocol"));
    if named && name.is_empty() {
        errors.push(name.required(""));
    } else if !name.is_empty() {
        format::check(&name, format::label, errors);
    }
    format::number_port(&port.field("port"), errors);
    port.field("protocol").require_one_of(PROTOCOLS, errors);
    if application.is_set() {
        format::check(&application, format::qualified_name, errors);
    }
}

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn counts_generation(&self) -> bool {
        true
    }
    fn generation_fields(&self) -> &'static [&'static str] {
        &["endpoints", "ports", "addressType"]
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    /// Labels count too: consumers find slices by them.
    fn on_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        let labels = |object: &Value| meta::labels(object).filter(|l| !l.is_empty()).cloned();
        if labels(new) != labels(old) && !metadata::differs(new, old, self.generation_fields()) {
            metadata::count_generation(new, old);
        }
    }

    fn default(&self, object: &mut Value) {
        each(object, "ports", |port| fill(port, &[("name", Str("")), ("protocol", Str("TCP"))]));
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        object.field("addressType").require_one_of(&["FQDN", "IPv4", "IPv6"], errors);
        slice_ports(&object.field("ports"), errors);
        let endpoints = object.field("endpoints");
        if endpoints.list().len() > ENDPOINTS_MAX {
            errors.push(endpoints.too_many(ENDPOINTS_MAX));
        }
        for endpoint in endpoints.items() {
            self::endpoint(&endpoint, object.field("addressType").str(), errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("addressType").immutable(&old.field("addressType"), errors);
    }
}

fn slice_ports(ports: &Place, errors: &mut Errors) {
    if ports.list().len() > PORTS_MAX {
        errors.push(ports.too_many(PORTS_MAX));
    }
    for (i, port) in ports.items().enumerate() {
        let (name, application) = (port.field("name"), port.field("appProtocol"));
        if !name.is_empty() {
            format::check(&name, format::label, errors);
        }
        if ports.list()[..i].iter().any(|other| other["name"] == *name.value) {
            errors.push(name.duplicate());
        }
        port.field("protocol").require_one_of(PROTOCOLS, errors);
        if application.is_set() {
            format::check(&application, format::qualified_name, errors);
        }
    }
}

fn endpoint(endpoint: &Place, family: &str, errors: &mut Errors) {
    let addresses = endpoint.field("addresses");
    if addresses.is_empty() {
        errors.push(addresses.required("must contain at least 1 address"));
    } else if addresses.list().len() > ADDRESSES_MAX {
        errors.push(addresses.too_many(ADDRESSES_MAX));
    }
    for address in addresses.items() {
        slice_address(&addresses, &address, family, errors);
    }
    let (node, hostname) = (endpoint.field("nodeName"), endpoint.field("hostname"));
    if node.is_set() {
        format::check(&node, format::subdomain, errors);
    }
    if hostname.is_set() {
        format::check(&hostname, format::label, errors);
    }
    let topology = endpoint.field("deprecatedTopology");
    if topology.map().is_some_and(|m| m.len() > TOPOLOGY_MAX) {
        errors.push(topology.too_many(TOPOLOGY_MAX));
    }
    metadata::labels(&topology, errors);
    let hints = endpoint.field("hints");
    hint_names(&hints.field("forZones"), format::label_value, errors);
    hint_names(&hints.field("forNodes"), format::subdomain, errors);
}

fn slice_address(addresses: &Place, address: &Place, family: &str, errors: &mut Errors) {
    let wrong = |errors: &mut Errors| {
        let detail = format!("must be an {family} address");
        errors.push(Error::invalid(addresses.path(), address.str(), detail));
    };
    let rule: fn(&str) -> Vec<String> = match family {
        "IPv4" => address::ip,
        "IPv6" => address::canonical_ip,
        "FQDN" => {
            format::check(address, crate::name::fully_qualified_name, errors);
            return;
        }
        _ => return,
    };
    let before = errors.len();
    format::check(address, rule, errors);
    if errors.len() > before {
        return;
    }
    if address::is_ipv6(address.str()) != (family == "IPv6") {
        wrong(errors);
    }
    format::check(address, address::non_special, errors);
}

fn hint_names(hints: &Place, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if hints.list().len() > HINTS_MAX {
        errors.push(hints.too_many(HINTS_MAX));
    }
    for (i, hint) in hints.items().enumerate() {
        let name = hint.field("name");
        if hints.list()[..i].contains(hint.value) {
            errors.push(name.duplicate());
        }
        format::check(&name, rule, errors);
    }
}
