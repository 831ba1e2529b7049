//! NetworkPolicy, Ingress and IngressClass.

use serde_json::{Value, json};

use super::fill::Lit::{Object, Str};
use super::fill::{each, fill, fill_at, has, has_content};
use super::place::{Errors, Place};
use super::pod::containers::PROTOCOLS;
use super::{Context, Strategy, address, format, warnings};
use crate::field::Error;
use crate::meta;

const CONTROLLER_MAX_BYTES: usize = 250;
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What an Exact or Prefix path may not contain, and not end with.
const BAD_SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: &[&str] = &["/..", "/."];

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("podSelector", Object)]);
        if !has_content(spec, "policyTypes") {
            let both = has_content(spec, "egress");
            spec["policyTypes"] = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
        for direction in ["ingress", "egress"] {
            each(spec, direction, |rule| each(rule, "ports", |port| fill(port, &[("protocol", Str("TCP"))])));
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        format::label_selector(&spec.field("podSelector"), errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.field(direction).items() {
                for port in rule.field("ports").items() {
                    policy_port(&port, errors);
                }
                for peer in rule.field(peers).items() {
                    policy_peer(&peer, errors);
                }
            }
        }
        let types = spec.field("policyTypes");
        if types.list().len() > 2 {
            errors.push(types.invalid("may not specify more than two policyTypes"));
        }
        for kind in types.items() {
            kind.one_of(&["Ingress", "Egress"], errors);
        }
    }
}

fn policy_port(port: &Place, errors: &mut Errors) {
    port.field("protocol").one_of(PROTOCOLS, errors);
    let (number, end) = (port.field("port"), port.field("endPort"));
    match (number.value, end.int()) {
        (Value::Null, Some(_)) => errors.push(end.invalid("may not be specified when `port` is not specified")),
        (Value::Null, None) => {}
        (Value::Number(_), last) => {
            format::number_port(&number, errors);
            if let Some(last) = last {
                if number.int().is_some_and(|first| last < first) {
                    errors.push(end.invalid("must be greater than or equal to `port`"));
                }
                format::number_port(&end, errors);
            }
        }
        (_, last) => {
            if last.is_some() {
                errors.push(end.invalid("may not be specified when `port` is non-numeric"));
            }
            format::port(&number, errors);
        }
    }
}

fn policy_peer(peer: &Place, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.field("podSelector"), peer.field("namespaceSelector"), peer.field("ipBlock"));
    format::label_selector(&pods, errors);
    format::label_selector(&namespaces, errors);
    let selects = pods.is_set() || namespaces.is_set();
    if !block.is_set() {
        if !selects {
            errors.push(peer.required("must specify a peer"));
        }
        return;
    }
    if selects {
        errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
    }
    let cidr = block.field("cidr");
    cidr.require(errors);
    format::check(&cidr, address::cidr, errors);
    let Some(outer) = address::parse_range(cidr.str()) else { return };
    for except in block.field("except").items() {
        format::check(&except, address::cidr, errors);
        let inner = address::parse_range(except.str());
        if inner.is_some_and(|inner| !address::contains(outer, inner.0) || outer.1 >= inner.1) {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}

pub struct Ingress;

impl Strategy for Ingress {
    fn counts_generation(&self) -> bool {
        true
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        meta::child_mut(object, "spec");
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let (rules, backend, class) =
            (spec.field("rules"), spec.field("defaultBackend"), spec.field("ingressClassName"));
        if rules.is_empty() && !backend.is_set() {
            errors.push(spec.invalid("either `defaultBackend` or `rules` must be specified"));
        }
        if backend.is_set() {
            self::backend(&backend, errors);
        }
        for rule in rules.items() {
            ingress_rule(&rule, errors);
        }
        for tls in spec.field("tls").items() {
            for host in tls.field("hosts").items() {
                host_name(&host, errors);
            }
            let secret = tls.field("secretName");
            if !secret.is_empty() {
                format::check(&secret, format::subdomain, errors);
            }
        }
        if class.is_set() {
            format::check(&class, format::subdomain, errors);
        }
        let metadata = object.field("metadata");
        let annotations = metadata.field("annotations");
        let annotated = annotations.key(CLASS_ANNOTATION);
        if ctx.verb == super::Verb::Create && annotated.is_set() && class.is_set() && annotated.value != class.value {
            let path = format!("annotations.{CLASS_ANNOTATION}");
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(path, annotated.str(), detail));
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::ingress(object, old)
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        let status = new.field("status");
        let balancer = status.field("loadBalancer");
        for ingress in balancer.field("ingress").items() {
            let (ip, hostname) = (ingress.field("ip"), ingress.field("hostname"));
            if !ip.is_empty() {
                format::check(&ip, address::ip, errors);
            }
            if !hostname.is_empty() {
                format::check(&hostname, format::subdomain, errors);
                not_an_address(&hostname, errors);
            }
        }
    }
}

fn not_an_address(host: &Place, errors: &mut Errors) {
    if address::parse(host.str()).is_some() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
    }
}

fn host_name(host: &Place, errors: &mut Errors) {
    if host.str().contains('*') {
        format::check(host, format::wildcard_subdomain, errors);
    } else {
        format::check(host, format::subdomain, errors);
    }
}

fn ingress_rule(rule: &Place, errors: &mut Errors) {
    let (host, http) = (rule.field("host"), rule.field("http"));
    if !host.is_empty() {
        not_an_address(&host, errors);
        host_name(&host, errors);
    }
    if !http.is_set() {
        return;
    }
    let paths = http.field("paths");
    paths.require(errors);
    for path in paths.items() {
        http_path(&path, errors);
    }
}

fn http_path(entry: &Place, errors: &mut Errors) {
    let (kind, path) = (entry.field("pathType"), entry.field("path"));
    let absolute = path.str().starts_with('/');
    match kind.value.as_str() {
        None => {
            errors.push(kind.required("pathType must be specified"));
            return;
        }
        Some("Exact" | "Prefix") => {
            if !absolute {
                errors.push(path.invalid("must be an absolute path"));
            }
            for bad in BAD_SEQUENCES.iter().filter(|bad| path.str().contains(**bad)) {
                errors.push(path.invalid(format!("must not contain '{bad}'")));
            }
            for bad in BAD_SUFFIXES.iter().filter(|bad| path.str().ends_with(**bad)) {
                errors.push(path.invalid(format!("cannot end with '{bad}'")));
            }
        }
        Some("ImplementationSpecific") => {
            if !path.is_empty() && !absolute {
                errors.push(path.invalid("must be an absolute path"));
            }
        }
        Some(_) => errors.push(kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"])),
    }
    backend(&entry.field("backend"), errors);
}

fn backend(backend: &Place, errors: &mut Errors) {
    let (resource, service) = (backend.field("resource"), backend.field("service"));
    let refuse = |detail: &str, errors: &mut Errors| errors.push(Error::invalid(backend.path(), "", detail));
    match (resource.is_set(), service.is_set()) {
        (true, true) => refuse("cannot set both resource and service backends", errors),
        (true, false) => typed_reference(&resource, errors),
        (false, true) => {
            let (name, port) = (service.field("name"), service.field("port"));
            if name.require(errors) {
                format::check(&name, format::label, errors);
            }
            let (port_name, number) = (port.field("name"), port.field("number"));
            match (port_name.is_empty(), number.int().unwrap_or(0) == 0) {
                (false, false) => refuse("cannot set both port name & port number", errors),
                (false, true) => format::check(&port_name, format::port_name, errors),
                (true, false) => format::number_port(&number, errors),
                (true, true) => errors.push(backend.required("port name or number is required")),
            }
        }
        (false, false) => refuse("resource or service backend is required", errors),
    }
}

/// A reference by group, kind and name.
fn typed_reference(reference: &Place, errors: &mut Errors) {
    let group = reference.field("apiGroup");
    if group.is_set() {
        format::check(&group, format::subdomain, errors);
    }
    for field in ["kind", "name"] {
        let place = reference.field(field);
        if place.require(errors) {
            format::check(&place, format::path_segment, errors);
        }
    }
}

pub struct IngressClass;

impl Strategy for IngressClass {
    fn counts_generation(&self) -> bool {
        true
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        if has(spec, "parameters") {
            fill_at(spec, "parameters", &[("scope", Str("Cluster"))]);
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let (controller, parameters) = (spec.field("controller"), spec.field("parameters"));
        if controller.str().len() > CONTROLLER_MAX_BYTES {
            errors.push(controller.too_long(CONTROLLER_MAX_BYTES));
        }
        if controller.is_empty() {
            errors.push(controller.required(""));
        } else {
            format::check(&controller, format::domain_prefixed_path, errors);
        }
        if !parameters.is_set() {
            return;
        }
        typed_reference(&parameters, errors);
        let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
        match scope.str() {
            "Namespace" if !namespace.is_set() => {
                errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
            }
            "Namespace" => format::check(&namespace, format::label, errors),
            "Cluster" if namespace.is_set() => {
                errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
            }
            "Cluster" => {}
            _ => errors.push(scope.not_supported(&["Cluster", "Namespace"])),
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").field("controller").immutable(&old.field("spec").field("controller"), errors);
    }
}
