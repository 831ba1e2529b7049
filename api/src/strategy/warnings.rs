//! `Warning` headers about objects that are valid, but likely not what the writer meant. Updates of a workload warn only
//! when they change its spec, as upstream: controllers that write status would hear of it again and again.

mod pod;

use serde_json::Value;

use super::address;
use super::fill::text;
use super::format;
use super::place::Place;
use crate::meta;

/// Completions and parallelism of an indexed Job beyond which its indexes may not be tracked.
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const PARALLELISM_SOFT_LIMIT: i64 = 10_000;

/// A workload with a pod template at the dotted path.
pub fn workload(object: &Value, old: Option<&Value>, template: &str) -> Vec<String> {
    let mut warnings = match old {
        None => name(object, "Pod names and hostnames"),
        Some(old) if generation(old) == generation(object) => return Vec::new(),
        Some(_) => Vec::new(),
    };
    descend(&Place::root(object), template, &mut |template| pod::template(template, &mut warnings));
    warnings
}

pub fn job(object: &Value, old: Option<&Value>, spec: &str) -> Vec<String> {
    let mut warnings = workload(object, old, &format!("{spec}.template"));
    if old.is_none_or(|old| generation(old) != generation(object)) {
        descend(&Place::root(object), spec, &mut |spec| {
            let count = |field: &str| spec.field(field).int().unwrap_or(0);
            let many = count("completions") > COMPLETIONS_SOFT_LIMIT && count("parallelism") > PARALLELISM_SOFT_LIMIT;
            if many && spec.field("completionMode").str() == "Indexed" {
                warnings.push(format!(
                    "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than \
                     10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
                    spec.path()
                ));
            }
        });
    }
    warnings
}

/// A pod by itself; people seldom update one.
pub fn pod(object: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = name(object, "the Pod's hostname");
    pod::template(&Place::root(object), &mut warnings);
    warnings
}

pub fn service(object: &Value) -> Vec<String> {
    let root = Place::root(object);
    let spec = root.field("spec");
    let field = |name: &str| text(spec.value, name);
    let external = !spec.field("externalIPs").is_empty();
    let named = field("type") == "ExternalName";
    let headless = field("type") == "ClusterIP" && field("clusterIP") == "None";
    let hints = root.field("metadata").field("annotations").key("service.kubernetes.io/topology-aware-hints").is_set();
    let rows = [
        (
            hints,
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
        ),
        (headless && !field("loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (headless && external, "spec.externalIPs is ignored for headless services"),
        (headless && field("sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services"),
        (
            external && !headless && !named,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (external && named, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !field("externalName").is_empty() && !named,
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            field("trafficDistribution") == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ];
    let mut warnings: Vec<String> = rows.into_iter().filter(|row| row.0).map(|row| row.1.to_owned()).collect();
    for list in ["clusterIPs", "externalIPs"] {
        spec.field(list).items().filter(|ip| ip.str() != "None").for_each(|ip| address(&ip, &mut warnings));
    }
    warnings
}

pub fn ingress(object: &Value, old: Option<&Value>) -> Vec<String> {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let root = Place::root(object);
    let annotated = root.field("metadata").field("annotations").key(CLASS).is_set();
    match old.is_none() && annotated && !root.field("spec").field("ingressClassName").is_set() {
        true => vec![format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")],
        false => Vec::new(),
    }
}

/// An IPv6 address that isn't written as everybody writes it.
fn address(ip: &Place, warnings: &mut Vec<String>) {
    let written = ip.str();
    match address::parse(written) {
        Some(parsed) if address::is_ipv6(written) && parsed.to_string() != written => warnings.push(format!(
            "{}: IPv6 address {written:?} should be in RFC 5952 canonical format (\"{parsed}\")",
            ip.path()
        )),
        _ => {}
    }
}

/// A name that ends up in host names, which are labels.
fn name(object: &Value, used_in: &str) -> Vec<String> {
    let problems = format::label(meta::name(object));
    match problems.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            problems.join(" ")
        )],
    }
}

fn generation(object: &Value) -> Option<i64> {
    object.get("metadata")?.get("generation")?.as_i64()
}

fn descend(place: &Place, path: &str, look: &mut dyn FnMut(&Place)) {
    match path.split_once('.') {
        Some((first, rest)) => descend(&place.field(first), rest, look),
        None => look(&place.field(path)),
    }
}
