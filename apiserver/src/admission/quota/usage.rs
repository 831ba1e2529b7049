//! What an object uses of the resources a quota can count; upstream's evaluators. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use api::quantity::{Format, Quantity};
use api::strategy::service::allocation;

use super::Amounts;
use crate::admission::limit_ranger::pod_total;
use crate::admission::{AdmissionRequest, Operation, containers};

/// Resources of the core group that may also be counted by their bare name.
const COUNTED: &[&str] = &[
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];
/// Compute resources that may be limited without the `requests.` in front.
const SHORT: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// What the write adds, without zeros. An update counts only for kinds whose use can change.
pub fn added(request: &AdmissionRequest<'_>) -> Amounts {
    let new = of(request, &request.object);
    if request.operation == Operation::Create {
        return new.into_iter().filter(|(_, amount)| !amount.is_zero()).collect();
    }
    let changing = matches!(request.info.resource.as_str(), "pods" | "services" | "persistentvolumeclaims");
    if !request.info.group.is_empty() || !changing {
        return Amounts::new();
    }
    let old = of(request, request.old_object);
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let zero = Quantity::new(0, Format::DecimalSi);
    let difference = |name: &String| {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(zero);
        of(&new).minus(of(&old))
    };
    let changes: Amounts = names.into_iter().map(|name| (name.clone(), difference(name))).collect();
    // Only growth is checked here; what is given back the controller counts.
    changes.into_iter().filter(|(_, amount)| amount.sign() > 0).collect()
}

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

fn of(request: &AdmissionRequest<'_>, object: &Value) -> Amounts {
    let (group, resource) = (request.info.group.as_str(), request.info.resource.as_str());
    let mut used = Amounts::new();
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    used.insert(format!("count/{qualified}"), one());
    if !group.is_empty() {
        return used;
    }
    if COUNTED.contains(&resource) {
        used.insert(resource.to_owned(), one());
    }
    match resource {
        "pods" => used.extend(pod(object)),
        "services" => used.extend(service(object)),
        "persistentvolumeclaims" => used.extend(claim(object)),
        _ => {}
    }
    used
}

fn pod(pod: &Value) -> Amounts {
    let mut used = Amounts::new();
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        // Over, so it uses nothing but its place in the object count.
        used.insert("pods".to_owned(), Quantity::new(0, Format::DecimalSi));
        return used;
    }
    let overhead = super::amounts(&pod["spec"]["overhead"]);
    for (field, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, amount) in pod_total(pod, field) {
            let amount = overhead.get(&name).map_or(amount, |more| amount.plus(*more));
            if prefix == "requests." && (SHORT.contains(&name.as_str()) || name.starts_with("hugepages-")) {
                used.insert(name.clone(), amount);
            }
            used.insert(format!("{prefix}{name}"), amount);
        }
    }
    used
}

fn service(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let mut used = Amounts::new();
    if spec["type"] == "LoadBalancer" {
        used.insert("services.loadbalancers".to_owned(), one());
    }
    if allocation::needs_node_ports(spec) {
        let ports = spec["ports"].as_array().map_or(0, Vec::len);
        used.insert("services.nodeports".to_owned(), one().times(i64::try_from(ports).unwrap_or(i64::MAX)));
    }
    used
}

fn claim(claim: &Value) -> Amounts {
    let spec = &claim["spec"];
    let mut used = Amounts::new();
    let class = spec["storageClassName"].as_str().filter(|class| !class.is_empty());
    let suffix = class.map(|class| format!("{class}.storageclass.storage.k8s.io/"));
    if let Some(suffix) = &suffix {
        used.insert(format!("{suffix}persistentvolumeclaims"), one());
    }
    let storage = spec["resources"]["requests"]["storage"].as_str().and_then(|s| Quantity::parse(s).ok());
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if let Some(suffix) = &suffix {
            used.insert(format!("{suffix}requests.storage"), storage);
        }
    }
    used
}

/// A quota on compute resources makes every container of a new pod name them: `limits.memory for: c; …`.
pub fn unspecified(request: &AdmissionRequest<'_>, hard: &Amounts) -> Option<String> {
    if !request.creates("", "pods") || request.object["spec"]["resources"].is_object() {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for resource in hard.keys() {
        let (field, name) = match resource.split_once('.') {
            Some((prefix @ ("requests" | "limits"), name)) if SHORT.contains(&name) => (prefix, name),
            None if SHORT.contains(&resource.as_str()) => ("requests", resource.as_str()),
            _ => continue,
        };
        for container in containers(&request.object, &["containers", "initContainers"]) {
            if container["resources"][field].get(name).is_none() {
                missing.entry(resource).or_default().insert(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let one = |(resource, names): (&&str, &BTreeSet<&str>)| {
        format!("{resource} for: {}", names.iter().copied().collect::<Vec<_>>().join(","))
    };
    Some(missing.iter().map(one).collect::<Vec<_>>().join("; "))
}
