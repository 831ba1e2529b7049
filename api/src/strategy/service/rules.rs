//! Rules of Services (`validateService`, `ValidateServiceClusterIPsRelatedFields`, `ValidateServiceUpdate`).

use serde_json::Value;

use super::allocation::{HEADLESS, externally_accessible, is_headless, needs_health_check_port};
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::pod::containers::PROTOCOLS;
use crate::strategy::{address, format, metadata};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// One day.
const AFFINITY_MAX_SECONDS: i64 = 86_400;
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn service(object: &Place, errors: &mut Errors) {
    let spec = object.field("spec");
    let kind = spec.field("type").str();
    let headless = is_headless(spec.value);
    if spec.field("ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(spec.field("ports").required(""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(spec.field("clusterIPs").index(0).invalid(detail));
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    ports(&spec, kind, errors);
    metadata::labels(&spec.field("selector"), errors);
    affinity(&spec, errors);
    if kind != "ExternalName" {
        cluster_ips(&spec, errors);
    }
    for ip in spec.field("externalIPs").items() {
        let before = errors.len();
        format::check(&ip, address::ip, errors);
        if errors.len() == before {
            format::check(&ip, address::non_special, errors);
        }
    }
    spec.field("type").require_one_of(TYPES, errors);
    source_ranges(object, kind, errors);
    load_balancer(&spec, kind, errors);
    traffic(&spec, kind, errors);
}

fn external_name(spec: &Place, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.field(field).is_empty() {
            errors.push(spec.field(field).forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.field("externalName");
    let trimmed = name.str().strip_suffix('.').unwrap_or(name.str());
    if trimmed.is_empty() {
        errors.push(name.required(""));
    }
    if !trimmed.is_empty() {
        errors.extend(format::subdomain(trimmed).into_iter().map(|p| Error::invalid(name.path(), trimmed, p)));
    }
}

fn ports(spec: &Place, kind: &str, errors: &mut Errors) {
    let ports = spec.field("ports");
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: Vec<(&str, Option<i64>)> = Vec::new();
    let mut node_ports: Vec<(&str, i64)> = Vec::new();
    for port in ports.items() {
        let name = port.field("name");
        if name.is_empty() {
            if ports.list().len() > 1 {
                errors.push(name.required(""));
            }
        } else {
            format::check(&name, format::label, errors);
            if names.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            names.push(name.str());
        }
        let (number, protocol) = (port.field("port"), port.field("protocol"));
        format::number_port(&number, errors);
        protocol.require_one_of(PROTOCOLS, errors);
        format::port(&port.field("targetPort"), errors);
        let application = port.field("appProtocol");
        if application.is_set() {
            format::check(&application, format::qualified_name, errors);
        }
        let key = (protocol.str(), number.int());
        if numbers.contains(&key) {
            errors.push(port.duplicate());
        }
        numbers.push(key);
        let node_port = port.field("nodePort");
        let Some(taken) = node_port.int().filter(|n| *n != 0) else { continue };
        if kind == "ClusterIP" {
            errors.push(node_port.forbidden("may not be used when `type` is 'ClusterIP'"));
        }
        if node_ports.contains(&(protocol.str(), taken)) {
            errors.push(node_port.duplicate());
        }
        node_ports.push((protocol.str(), taken));
    }
}

fn affinity(spec: &Place, errors: &mut Errors) {
    let (affinity, config) = (spec.field("sessionAffinity"), spec.field("sessionAffinityConfig"));
    affinity.require_one_of(&["ClientIP", "None"], errors);
    match affinity.str() {
        "ClientIP" => {
            let client_ip = config.field("clientIP");
            let timeout = client_ip.field("timeoutSeconds");
            let path = [&config, &client_ip, &timeout].into_iter().find(|p| !p.is_set());
            if let Some(missing) = path {
                errors.push(missing.required("when session affinity type is ClientIP"));
            } else if timeout.int().is_some_and(|s| s <= 0 || s > AFFINITY_MAX_SECONDS) {
                errors.push(timeout.invalid(format!("must be greater than 0 and less than {AFFINITY_MAX_SECONDS}")));
            }
        }
        "None" if config.is_set() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

/// `ValidateServiceClusterIPsRelatedFields`.
pub fn cluster_ips(spec: &Place, errors: &mut Errors) {
    let (single, list, families) = (spec.field("clusterIP"), spec.field("clusterIPs"), spec.field("ipFamilies"));
    let first = list.index(0);
    match (single.is_empty(), list.is_empty()) {
        (false, true) => errors.push(list.required("")),
        (false, false) if first.str() != single.str() => {
            errors.push(list.invalid("first value must match `clusterIP`"));
        }
        (true, false) => errors.push(list.invalid("must be empty when `clusterIP` is not specified")),
        _ => {}
    }
    for (i, family) in families.items().enumerate() {
        family.one_of(FAMILIES, errors);
        if families.list()[..i].contains(family.value) {
            errors.push(family.duplicate());
        }
    }
    spec.field("ipFamilyPolicy").one_of(FAMILY_POLICIES, errors);
    let before = errors.len();
    for (i, ip) in list.items().enumerate() {
        if i == 0 && ip.str() == HEADLESS {
            if list.list().len() > 1 {
                errors.push(list.invalid("'None' must be the first and only value"));
            }
            continue;
        }
        format::check(&ip, address::ip, errors);
    }
    let readable = errors.len() == before;
    if list.list().len() > 2 {
        errors.push(list.invalid("may only hold up to 2 values"));
    }
    if !readable {
        return;
    }
    let ips: Vec<&str> = list.list().iter().filter_map(Value::as_str).collect();
    if ips.len() > 1 && (ips.len() > 2 || address::is_ipv6(ips[0]) == address::is_ipv6(ips[1])) {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
    if is_headless(spec.value) {
        return;
    }
    for (i, (ip, family)) in list.items().zip(families.items()).enumerate() {
        let expected = family.str();
        if FAMILIES.contains(&expected) && (expected == "IPv6") != address::is_ipv6(ip.str()) {
            errors.push(ip.invalid(format!("expected an {expected} value as indicated by `ipFamilies[{i}]`")));
        }
    }
}

/// Reported under upstream's capitalised name.
fn source_ranges(object: &Place, kind: &str, errors: &mut Errors) {
    let spec = object.field("spec");
    let ranges = spec.named("LoadBalancerSourceRanges", spec.field("loadBalancerSourceRanges").value);
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            errors.push(ranges.forbidden(BALANCER_ONLY));
        }
        for range in ranges.items() {
            format::check(&range, |text| address::cidr(text.trim()), errors);
        }
        return;
    }
    let metadata = object.field("metadata");
    let annotations = metadata.field("annotations");
    let annotation = annotations.key(SOURCE_RANGES);
    if !annotation.is_set() {
        return;
    }
    if kind != "LoadBalancer" {
        errors.push(annotation.forbidden(BALANCER_ONLY));
    }
    for range in annotation.str().split(',').map(str::trim).filter(|_| !annotation.str().trim().is_empty()) {
        errors.extend(address::cidr(range).into_iter().map(|p| Error::invalid(annotation.path(), range, p)));
    }
}

fn load_balancer(spec: &Place, kind: &str, errors: &mut Errors) {
    let (allocate, class) = (spec.field("allocateLoadBalancerNodePorts"), spec.field("loadBalancerClass"));
    if kind != "LoadBalancer" {
        for field in [&allocate, &class].into_iter().filter(|f| f.is_set()) {
            errors.push(field.forbidden(BALANCER_ONLY));
        }
        return;
    }
    if !allocate.is_set() {
        errors.push(Error::required("allocateLoadBalancerNodePorts", ""));
    }
    if class.is_set() {
        format::check(&class, format::qualified_name, errors);
    }
}

fn traffic(spec: &Place, kind: &str, errors: &mut Errors) {
    let external = spec.field("externalTrafficPolicy");
    if externally_accessible(spec.value) {
        external.require_one_of(TRAFFIC_POLICIES, errors);
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let port = spec.field("healthCheckNodePort");
    match (needs_health_check_port(spec.value), port.int().unwrap_or(0)) {
        (true, 0) => errors.push(port.required("")),
        (true, _) => format::number_port(&port, errors),
        (false, 0) => {}
        (false, _) => errors
            .push(port.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")),
    }
    let internal = spec.field("internalTrafficPolicy");
    if !internal.is_set() && ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind) {
        errors.push(internal.required(""));
    }
    internal.one_of(TRAFFIC_POLICIES, errors);
    spec.field("trafficDistribution").one_of(DISTRIBUTIONS, errors);
}

/// `ValidateServiceUpdate`: addresses, families, class and health check port stay once set.
pub fn change(new: &Place, old: &Place, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let (now_headless, was_headless) = (is_headless(spec.value), is_headless(before.value));
    let named = [&spec, &before].iter().any(|s| s.field("type").str() == "ExternalName");
    if !(named || now_headless && was_headless) {
        kept_list(&spec, &before, "clusterIPs", "primary clusterIP", errors);
    }
    if !named && !now_headless && !was_headless {
        kept_list(&spec, &before, "ipFamilies", "primary ipFamily", errors);
    }
    let is_balancer = |spec: &Place| spec.field("type").str() == "LoadBalancer";
    let (class, old_class) = (spec.field("loadBalancerClass"), before.field("loadBalancerClass"));
    if is_balancer(&spec) && is_balancer(&before) && class.value != old_class.value {
        errors.push(class.invalid("may not change once set"));
    }
    let port = spec.field("healthCheckNodePort");
    let both_check = needs_health_check_port(spec.value) && needs_health_check_port(before.value);
    if both_check && port.value != before.field("healthCheckNodePort").value {
        errors.push(port.forbidden("field is immutable"));
    }
}

fn kept_list(spec: &Place, before: &Place, field: &str, primary: &str, errors: &mut Errors) {
    let (now, was) = (spec.field(field), before.field(field));
    let (new_len, old_len) = (now.list().len(), was.list().len());
    if new_len == old_len {
        for i in 0..new_len {
            if now.list()[i] != was.list()[i] {
                let place = now.index(if field == "ipFamilies" { 0 } else { i });
                errors.push(Error::invalid(place.path(), now.value.clone(), "may not change once set"));
            }
        }
        return;
    }
    let first = now.index(0);
    if new_len == 0 {
        errors.push(Error::invalid(first.path(), now.value.clone(), format!("{primary} can not be unset")));
    } else if old_len > 0 && now.list()[0] != was.list()[0] {
        errors.push(Error::invalid(first.path(), now.value.clone(), "may not change once set"));
    }
    let policy = spec.field("ipFamilyPolicy");
    if old_len > new_len && new_len == 1 && policy.str() != "SingleStack" {
        let what = if field == "clusterIPs" { "clusterIP" } else { "ipFamily" };
        errors.push(policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {what}")));
    }
}
