//! What the allocation of addresses and ports needs to know about a Service's spec. All functions take the spec.
//!
//! Order of a write: [`normalize`], on update [`carry_allocated`], [`init_families`], then addresses and ports are
//! allocated where the spec has none, then the strategy prepares and validates.

use serde_json::Value;

use super::rules;
use crate::field;
use crate::meta;
use crate::strategy::address;
use crate::strategy::fill::{each, has, has_content, text};
use crate::strategy::place::{Errors, Place};

/// `None` as `clusterIP`: no address at all.
pub const HEADLESS: &str = "None";

pub fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

/// A NodePort Service, or a LoadBalancer that did not opt out.
pub fn needs_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

pub fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Reachable from outside the cluster (`ExternallyAccessible`).
pub fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => has_content(spec, "externalIPs"),
        _ => false,
    }
}

pub fn is_headless(spec: &Value) -> bool {
    spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|list| list.len() == 1 && list[0] == HEADLESS)
}

pub fn cluster_ips(spec: &Value) -> Vec<&str> {
    strings(spec, "clusterIPs")
}

pub fn node_ports(spec: &Value) -> Vec<i64> {
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    ports.filter_map(|port| port.get("nodePort").and_then(Value::as_i64)).filter(|port| *port != 0).collect()
}

fn strings<'a>(spec: &'a Value, field: &str) -> Vec<&'a str> {
    spec.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn set(spec: &mut Value, field: &str, value: Option<Value>) {
    let map = meta::object_mut(spec);
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}

fn same(spec: &Value, old: &Value, field: &str) -> bool {
    Place::root(spec).field(field).same(&Place::root(old).field(field))
}

/// Brings `clusterIP` and `clusterIPs` in line for writers that know only one of them (`normalizeClusterIPs`).
pub fn normalize(spec: &mut Value, old: Option<&Value>) {
    let single = text(spec, "clusterIP").to_owned();
    let Some(old) = old else {
        if !single.is_empty() && !has_content(spec, "clusterIPs") {
            set(spec, "clusterIPs", Some(vec![Value::from(single)].into()));
        }
        return;
    };
    let old_single = text(old, "clusterIP").to_owned();
    if has_content(old, "clusterIPs") && !has_content(spec, "clusterIPs") && old_single == single {
        set(spec, "clusterIPs", old.get("clusterIPs").cloned());
    }
    if old_single != single && same(spec, old, "clusterIPs") {
        let list = if single.is_empty() { None } else { Some(vec![Value::from(single)].into()) };
        set(spec, "clusterIPs", list);
    }
}

/// What was allocated stays with a writer that left it out (`patchAllocatedValues`).
pub fn carry_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(spec, "clusterIP").is_empty() {
            set(spec, "clusterIP", old.get("clusterIP").cloned());
        }
        if !has_content(spec, "clusterIPs") {
            set(spec, "clusterIPs", old.get("clusterIPs").cloned());
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        carry_node_ports(spec, old);
    }
    let port = "healthCheckNodePort";
    if needs_health_check_port(old) && needs_health_check_port(spec) && !has(spec, port) {
        set(spec, port, old.get(port).cloned());
    }
}

/// By name of the port, unless another port of the new spec asks for the number.
fn carry_node_ports(spec: &mut Value, old: &Value) {
    let old_ports = node_ports(old);
    let asked: Vec<i64> = node_ports(spec).into_iter().filter(|port| old_ports.contains(port)).collect();
    let before: Vec<Value> = old.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    each(spec, "ports", |port| {
        if has(port, "nodePort") {
            return;
        }
        let same_name = before.iter().rev().find(|p| text(p, "name") == text(port, "name"));
        let number = same_name.and_then(|p| p.get("nodePort")).and_then(Value::as_i64).filter(|n| !asked.contains(n));
        if let Some(number) = number {
            port["nodePort"] = number.into();
        }
    });
}

/// Fills `ipFamilyPolicy` and `ipFamilies` for a cluster that serves `configured` families, the first by default
/// (`initIPFamilyFields`). A non-empty result refuses the write.
pub fn init_families(spec: &mut Value, old: Option<&Value>, configured: &[&str]) -> Vec<field::Error> {
    if !needs_cluster_ip(spec) || prefers_dual_stack_unchanged(spec, old) {
        return Vec::new();
    }
    let headless_without_selector = text(spec, "clusterIP") == HEADLESS && !has_content(spec, "selector");
    if !has(spec, "ipFamilyPolicy") {
        let inherited = old.filter(|old| has(old, "ipFamilyPolicy")).map(|old| old["ipFamilyPolicy"].clone());
        let fallback = if headless_without_selector { "RequireDualStack" } else { "SingleStack" };
        set(spec, "ipFamilyPolicy", Some(inherited.unwrap_or_else(|| fallback.into())));
    }
    let mut errors = Errors::new();
    cluster_ip_fields(spec, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    if let Some(old) = old {
        release_second(spec, old, single, &mut errors);
    }
    families_of_addresses(spec, single, configured, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    let mut families: Vec<String> = strings(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    if !headless_without_selector {
        not_configured(spec, configured, &mut errors);
        if !errors.is_empty() {
            return errors;
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|f| (*f).to_owned()));
    }
    let can_have_two = headless_without_selector || configured.len() == 2;
    if families.len() == 1 && !single && can_have_two {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    set(spec, "ipFamilies", Some(families.into()));
    Vec::new()
}

/// An unchanged PreferDualStack Service keeps its families, even if the cluster's changed
/// (`isMatchingPreferDualStackClusterIPFields`).
fn prefers_dual_stack_unchanged(spec: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| {
        needs_cluster_ip(old)
            && text(spec, "ipFamilyPolicy") == "PreferDualStack"
            && text(old, "ipFamilyPolicy") == "PreferDualStack"
            && ["clusterIP", "clusterIPs", "ipFamilies"].iter().all(|field| same(spec, old, field))
    })
}

fn cluster_ip_fields(spec: &Value, errors: &mut Errors) {
    let object = serde_json::json!({"spec": spec});
    rules::cluster_ips(&Place::root(&object).field("spec"), errors);
}

fn release_second(spec: &mut Value, old: &Value, single: bool, errors: &mut Errors) {
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, before) = (strings(spec, field).len(), strings(old, field).len());
        if single && same(spec, old, field) && now > 1 {
            let first = spec[field][0].clone();
            set(spec, field, Some(vec![first].into()));
        } else if !single && now == 1 && before == 2 && spec[field][0] == old[field][0] {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(field::Error::invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"].clone(), detail));
        }
    }
}

fn families_of_addresses(spec: &mut Value, single: bool, configured: &[&str], errors: &mut Errors) {
    let policy = || spec["ipFamilyPolicy"].clone();
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && strings(spec, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(field::Error::invalid("spec.ipFamilyPolicy", policy(), detail));
        }
    }
    let mut families: Vec<String> = strings(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    for (i, ip) in cluster_ips(spec).into_iter().enumerate().take_while(|(_, ip)| *ip != HEADLESS) {
        let family = if address::is_ipv6(ip) { "IPv6" } else { "IPv4" };
        if i < families.len() {
            continue;
        }
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            let path = format!("spec.clusterIPs[{i}]");
            errors.push(field::Error::invalid(path, spec["clusterIPs"].clone(), detail));
        }
    }
    if !families.is_empty() {
        set(spec, "ipFamilies", Some(families.into()));
    }
}

fn not_configured(spec: &Value, configured: &[&str], errors: &mut Errors) {
    if text(spec, "ipFamilyPolicy") == "RequireDualStack" && configured.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(field::Error::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail));
    }
    for (i, family) in strings(spec, "ipFamilies").into_iter().enumerate() {
        if !configured.contains(&family) {
            let path = format!("spec.ipFamilies[{i}]");
            errors.push(field::Error::invalid(path, family, "not configured on this cluster"));
        }
    }
}
