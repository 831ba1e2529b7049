//! Computed cells, by kind.

mod autoscaler;
mod network;
mod storage;
mod workload;

pub use autoscaler::autoscaler;
pub use network::*;
pub use storage::*;
pub use workload::*;

use serde_json::{Value, json};

use super::text::{self, field, or};
use super::{View, since};
use crate::meta;
use crate::quantity::Quantity;

pub fn config_map_keys(view: &View) -> Value {
    (text::count(view.at("/data")) + text::count(view.at("/binaryData"))).into()
}

/// CPU and memory of all containers together.
pub fn pod_metrics(view: &View) -> Vec<Value> {
    let sum = |resource: &str| {
        let amounts = view.list("/containers").iter().map(|c| field(&c["usage"], resource));
        let parsed = amounts.filter_map(|text| Quantity::parse(text).ok());
        parsed.reduce(Quantity::plus).map_or_else(String::new, |sum| sum.to_string())
    };
    vec![sum("cpu").into(), sum("memory").into()]
}

pub fn component_status(view: &View) -> Vec<Value> {
    let healthy = view.list("/conditions").iter().find(|c| field(c, "type") == "Healthy");
    let Some(condition) = healthy else { return vec!["Unknown".into(), "".into(), "".into()] };
    let status = if field(condition, "status") == "True" { "Healthy" } else { "Unhealthy" };
    vec![status.into(), field(condition, "message").into(), field(condition, "error").into()]
}

pub fn event(view: &View) -> Vec<Value> {
    // Either form of an event.
    let pick = |core: &str, new: &str| if view.at(core).is_null() { view.at(new) } else { view.at(core) };
    let text_of = |core: &str, new: &str| pick(core, new).as_str().unwrap_or_default();
    let first = or(text_of("/firstTimestamp", "/deprecatedFirstTimestamp"), view.text("/eventTime"));
    let last = or(text_of("/lastTimestamp", "/deprecatedLastTimestamp"), first);
    let series = view.at("/series");
    let count = pick("/count", "/deprecatedCount").as_i64().unwrap_or(0);
    let (last, count) = if series.is_null() {
        (last, if count == 0 { 1 } else { count })
    } else {
        (field(series, "lastObservedTime"), series.get("count").and_then(Value::as_i64).unwrap_or(0))
    };
    let about = pick("/involvedObject", "/regarding");
    let kind = field(about, "kind").to_lowercase();
    let target = match field(about, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = pick("/source", "/deprecatedSource");
    let component = or(field(source, "component"), text_of("/reportingComponent", "/reportingController"));
    let instance = or(field(source, "host"), view.text("/reportingInstance"));
    let source = if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    vec![
        since(last, view.now).into(),
        view.text("/type").into(),
        view.text("/reason").into(),
        target.into(),
        field(about, "fieldPath").into(),
        source.into(),
        text_of("/message", "/note").trim().into(),
        since(first, view.now).into(),
        count.into(),
        meta::name(view.object).into(),
    ]
}

pub fn node(view: &View) -> Vec<Value> {
    const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
    let ready = view.list("/status/conditions").iter().rev().find(|c| field(c, "type") == "Ready");
    let mut status = match ready.map(|c| field(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if view.at("/spec/unschedulable") == &Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in meta::labels(view.object).into_iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" => roles.extend(value.as_str().filter(|v| !v.is_empty())),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = view.list("/status/addresses").iter().find(|a| field(a, "type") == kind);
        Value::from(found.map_or("<none>", |a| field(a, "address")))
    };
    let info = |name: &str| view.text(&format!("/status/nodeInfo/{name}"));
    let mut kernel = or(info("kernelVersion"), "<unknown>").to_owned();
    if !info("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info("architecture"));
    }
    vec![
        status.into(),
        or(&roles.join(","), "<none>").into(),
        view.age(),
        info("kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or(info("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info("containerRuntimeVersion"), "<unknown>").into(),
    ]
}

pub fn quota(view: &View) -> Vec<Value> {
    let (mut requests, mut limits): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (name, hard) in view.at("/status/hard").as_object().into_iter().flatten() {
        let used = view.at("/status/used").get(name).and_then(Value::as_str).unwrap_or("0");
        let line = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
        if name.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    vec![requests.join(", ").into(), limits.join(", ").into()]
}

pub fn role(view: &View) -> Value {
    format!("{}/{}", view.text("/roleRef/kind"), view.text("/roleRef/name")).into()
}

/// Users, groups and service accounts of a binding.
pub fn subjects(view: &View) -> Vec<Value> {
    let of = |kind: &str| {
        let names: Vec<String> = view
            .list("/subjects")
            .iter()
            .filter(|s| field(s, "kind") == kind)
            .map(|s| match field(s, "namespace") {
                namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                    format!("{namespace}/{}", field(s, "name"))
                }
                _ => field(s, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![of("User"), of("Group"), of("ServiceAccount")]
}

pub fn requested_duration(view: &View) -> Value {
    match view.at("/spec/expirationSeconds").as_i64() {
        Some(seconds) => super::human(seconds).into(),
        None => "<none>".into(),
    }
}

pub fn certificate_state(view: &View) -> Value {
    let has = |kind: &str| view.list("/status/conditions").iter().any(|c| field(c, "type") == kind);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !view.text("/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    state.into()
}

pub fn param_kind(view: &View) -> Value {
    let kind = view.at("/spec/paramKind");
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", field(kind, "apiVersion"), field(kind, "kind")).into()
}

pub fn param_ref(view: &View) -> Value {
    let reference = view.at("/spec/paramRef");
    let (name, namespace) = (field(reference, "name"), field(reference, "namespace"));
    if !name.is_empty() {
        return format!("{}/{name}", or(namespace, "*")).into();
    }
    match reference.get("selector") {
        Some(selector) => text::selector(selector, "").into(),
        None => "<unset>".into(),
    }
}

pub fn api_service(view: &View) -> Vec<Value> {
    let service = view.at("/spec/service");
    let target = if service.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", field(service, "namespace"), field(service, "name"))
    };
    let available = view.list("/status/conditions").iter().find(|c| field(c, "type") == "Available");
    let state = match available {
        Some(c) if field(c, "status") == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", field(c, "status"), field(c, "reason")),
        None => "Unknown".to_owned(),
    };
    vec![target.into(), state.into()]
}

pub fn claim_state(view: &View) -> Value {
    let deleted = meta::deletion_timestamp(view.object).is_some();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if view.at("/status/allocation").is_null() {
        if !deleted {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !view.list("/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    states.join(",").into()
}

pub fn dangling(view: &View) -> Value {
    let condition = view.list("/status/conditions").iter().find(|c| field(c, "type") == "Dangling");
    condition.map_or("?", |c| field(c, "status")).into()
}

pub fn priority_level(view: &View) -> Vec<Value> {
    let number = |pointer: &str| match view.at(pointer) {
        Value::Null => json!("<none>"),
        number => number.clone(),
    };
    let queuing = |field: &str| number(&format!("/spec/limited/limitResponse/queuing/{field}"));
    vec![
        number("/spec/limited/nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
    ]
}
