//! What an object uses of the resources a quota can count; upstream's evaluators. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Amounts, amounts, containers, pod_total};
use crate::meta;
use crate::quantity::{Format, Quantity};
use crate::strategy::service::allocation;

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
/// Those that each container must name where they are limited.
const REQUIRED: &[&str] = &["cpu", "memory"];

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

/// Everything one object uses.
pub fn of(group: &str, resource: &str, object: &Value, now: Timestamp) -> Amounts {
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
        "pods" => used.extend(pod(object, now)),
        "services" => used.extend(service(object)),
        "persistentvolumeclaims" => used.extend(claim(object)),
        _ => {}
    }
    used
}

fn pod(pod: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::new();
    if is_over(pod, now) {
        // It uses nothing but its place in the object count.
        used.insert("pods".to_owned(), Quantity::new(0, Format::DecimalSi));
        return used;
    }
    let overhead = amounts(&pod["spec"]["overhead"]);
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

/// Ended, or so long overdue that nobody will end it: its owner must be able to start another one (`QuotaV1Pod`).
fn is_over(pod: &Value, now: Timestamp) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    ended || overdue_at(pod).is_some_and(|end| now > end)
}

/// When a pod that is being deleted stops to count.
pub fn overdue_at(pod: &Value) -> Option<Timestamp> {
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
    let end: Timestamp = meta::deletion_timestamp(pod)?.parse().ok()?;
    Some(end + SignedDuration::from_secs(grace))
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
    let amount = |list: &Value| list["storage"].as_str().and_then(|s| Quantity::parse(s).ok());
    // An expansion that is under way counts with what it has been given.
    let storage = amount(&spec["resources"]["requests"])
        .map(|asked| amount(&claim["status"]["allocatedResources"]).map_or(asked, |given| given.max(asked)));
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if let Some(suffix) = &suffix {
            used.insert(format!("{suffix}requests.storage"), storage);
        }
    }
    used
}

/// A quota on compute resources makes every container of a new pod name them: `limits.memory for: c; …`.
pub fn unspecified(pod: &Value, hard: &Amounts) -> Option<String> {
    if pod["spec"]["resources"].is_object() {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for resource in hard.keys() {
        let (field, name) = match resource.split_once('.') {
            Some((prefix @ ("requests" | "limits"), name)) if REQUIRED.contains(&name) => (prefix, name),
            None if REQUIRED.contains(&resource.as_str()) => ("requests", resource.as_str()),
            _ => continue,
        };
        for container in containers(pod, &["containers", "initContainers"]) {
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

/// The resource of the core group or another whose objects a limit counts: `pods` for `requests.cpu`, `secrets` for
/// `count/secrets`, `jobs` of `batch` for `count/jobs.batch`.
pub fn counted(limit: &str) -> Option<(&str, &str)> {
    if let Some(name) = limit.strip_prefix("count/") {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        return Some((group, resource));
    }
    let of_claim = limit == "requests.storage" || limit.contains(".storageclass.storage.k8s.io/");
    let resource = match limit {
        _ if of_claim => "persistentvolumeclaims",
        "services.loadbalancers" | "services.nodeports" => "services",
        name if COUNTED.contains(&name) => name,
        name if SHORT.contains(&name) => "pods",
        name if ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix)) => "pods",
        _ => return None,
    };
    Some(("", resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(resource: &str, object: Value, expected: &str) {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let used = of("", resource, &object, now);
        let told: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(told.join(" "), expected);
    }

    #[test]
    fn objects_are_counted() {
        let container =
            json!({"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [container]}, "status": {"phase": "Running"}});
        let running = "count/pods=1 cpu=1 limits.cpu=2 memory=1Gi pods=1 requests.cpu=1 requests.memory=1Gi";
        check("pods", pod.clone(), running);
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:50Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        check("pods", pod.clone(), running);
        pod["metadata"]["deletionGracePeriodSeconds"] = 5.into();
        check("pods", pod.clone(), "count/pods=1 pods=0");
        let claim = json!({
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}},
            "status": {"allocatedResources": {"storage": "3Gi"}},
        });
        let by_class = "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
                        fast.storageclass.storage.k8s.io/requests.storage=3Gi";
        let total = "persistentvolumeclaims=1 requests.storage=3Gi";
        check("persistentvolumeclaims", claim, &format!("count/persistentvolumeclaims=1 {by_class} {total}"));
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        check("services", service, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2");
    }

    #[test]
    fn limits_name_what_they_count() {
        for (limit, expected) in [
            ("requests.cpu", Some(("", "pods"))),
            ("requests.example.com/gpu", Some(("", "pods"))),
            ("requests.storage", Some(("", "persistentvolumeclaims"))),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
            ("count/jobs.batch", Some(("batch", "jobs"))),
            ("count/secrets", Some(("", "secrets"))),
            ("services.nodeports", Some(("", "services"))),
            ("example.com/unknown", None),
        ] {
            assert_eq!(counted(limit), expected, "{limit}");
        }
    }
}
