//! LimitRanger: a namespace's LimitRanges give containers default requests and limits, and bound what pods and claims
//! ask for.

use std::collections::BTreeMap;

use serde_json::Value;

use api::meta;
use api::quantity::Quantity;
use api::quota::{Amounts, amounts, containers, pod_total};
use api::status::Status;

use super::{AdmissionRequest, Operation, all};
use crate::server::Server;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let pods =
        request.creates("", "pods") || (request.is("", "pods", "resize") && request.operation == Operation::Update);
    let claims = request.creates("", "persistentvolumeclaims") || request.updates("", "persistentvolumeclaims");
    (pods || claims) && meta::deletion_timestamp(request.old_object).is_none()
}

pub fn mutate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !concerns(request) || request.info.resource != "pods" {
        return Ok(());
    }
    for range in all(server, "", "limitranges", request.namespace) {
        let (requests, limits) = defaults(&range);
        let done = apply_defaults(&mut request.object, &requests, &limits);
        if !done.is_empty() {
            let text = format!("LimitRanger plugin set: {}", done.join("; "));
            let annotations = meta::metadata_mut(&mut request.object).entry("annotations").or_insert(Value::Null);
            meta::object_mut(annotations).insert(ANNOTATION.to_owned(), text.into());
        }
    }
    Ok(())
}

/// Default requests and limits of containers in a LimitRange.
fn defaults(range: &Value) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    let mut defaults = (BTreeMap::new(), BTreeMap::new());
    for limit in limits(range).filter(|limit| limit["type"] == "Container") {
        for (target, field) in [(&mut defaults.0, "defaultRequest"), (&mut defaults.1, "default")] {
            let given = limit[field].as_object().into_iter().flatten();
            target.extend(given.map(|(name, amount)| (name.clone(), amount.clone())));
        }
    }
    defaults
}

fn limits(range: &Value) -> impl Iterator<Item = &Value> {
    range["spec"]["limits"].as_array().into_iter().flatten()
}

/// Fills in what containers lack; returns a text per change, for the annotation.
fn apply_defaults(
    pod: &mut Value,
    requests: &BTreeMap<String, Value>,
    limits: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut done = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (defaults, field, word) in [(requests, "requests", "request"), (limits, "limits", "limit")] {
                let resources = meta::child_mut(container, "resources");
                let given = resources.get(field).and_then(Value::as_object);
                let missing: Vec<&String> =
                    defaults.keys().filter(|key| given.is_none_or(|g| !g.contains_key(*key))).collect();
                if missing.is_empty() {
                    continue;
                }
                let target = meta::object_mut(meta::child_mut(resources, field));
                missing.iter().for_each(|key| drop(target.insert((*key).clone(), defaults[*key].clone())));
                let keys: Vec<&str> = missing.iter().map(|key| key.as_str()).collect();
                done.push(format!("{} {word} for {what} {name}", keys.join(", ")));
            }
        }
    }
    done
}

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    for range in all(server, "", "limitranges", request.namespace) {
        let problems: Vec<String> = match request.info.resource.as_str() {
            "pods" => limits(&range).flat_map(|limit| pod_problems(limit, &request.object)).collect(),
            _ => limits(&range).flat_map(|limit| claim_problems(limit, &request.object)).collect(),
        };
        match problems.as_slice() {
            [] => {}
            [one] => return Err(request.forbidden(one)),
            many => return Err(request.forbidden(format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

fn pod_problems(limit: &Value, pod: &Value) -> Vec<String> {
    match limit["type"].as_str() {
        Some("Container") => containers(pod, &["containers", "initContainers"])
            .flat_map(|container| {
                let resources = &container["resources"];
                problems(limit, "Container", &amounts(&resources["requests"]), &amounts(&resources["limits"]))
            })
            .collect(),
        Some("Pod") => problems(limit, "Pod", &pod_total(pod, "requests"), &pod_total(pod, "limits")),
        _ => Vec::new(),
    }
}

fn claim_problems(limit: &Value, claim: &Value) -> Vec<String> {
    if limit["type"] != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let kind = "PersistentVolumeClaim";
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let least = amounts(&limit["min"]);
    let most = amounts(&limit["max"]);
    let least = least.iter().filter_map(|(name, min)| minimum(kind, name, *min, &requests, &Amounts::new()));
    let most = most.iter().filter_map(|(name, max)| {
        let Some(request) = requests.get(name) else {
            return Some(format!("maximum {name} usage per {kind} is {max}.  No request is specified"));
        };
        (request > max).then(|| format!("maximum {name} usage per {kind} is {max}, but request is {request}"))
    });
    least.chain(most).collect()
}

fn problems(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let mut found = Vec::new();
    for (name, min) in amounts(&limit["min"]) {
        found.extend(minimum(kind, &name, min, requests, limits));
    }
    for (name, max) in amounts(&limit["max"]) {
        found.extend(maximum(kind, &name, max, requests, limits));
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        found.extend(ratio(kind, &name, most, requests, limits));
    }
    found
}

fn minimum(kind: &str, name: &str, min: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {min}");
    let Some(request) = requests.get(name) else { return Some(format!("{head}.  No request is specified")) };
    if *request < min {
        return Some(format!("{head}, but request is {request}"));
    }
    let limit = limits.get(name).filter(|limit| **limit < min)?;
    Some(format!("{head}, but limit is {limit}"))
}

fn maximum(kind: &str, name: &str, max: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {max}");
    let Some(limit) = limits.get(name) else { return Some(format!("{head}.  No limit is specified")) };
    if *limit > max {
        return Some(format!("{head}, but limit is {limit}"));
    }
    let request = requests.get(name).filter(|request| **request > max)?;
    Some(format!("{head}, but request is {request}"))
}

fn ratio(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {most}");
    let Some(request) = requests.get(name).filter(|r| !r.is_zero()) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = limits.get(name).filter(|l| !l.is_zero()) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let given = limit.milli_value() as f64 / request.milli_value() as f64;
    (given * 1000.0 > most.milli_value() as f64).then(|| format!("{head}, but provided ratio is {given:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn bounds_speak_as_upstream() {
        let pod = json!({"spec": {"containers": [container(json!({"cpu": "100m"}), json!({"cpu": "300m"}))]}});
        let check = |limit: Value, wanted: &[&str]| assert_eq!(pod_problems(&limit, &pod), wanted);
        check(
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            &["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"],
        );
        check(
            json!({"type": "Container", "min": {"cpu": "200m"}}),
            &["minimum cpu usage per Container is 200m, but request is 100m"],
        );
        check(
            json!({"type": "Pod", "max": {"memory": "1Gi"}}),
            &["maximum memory usage per Pod is 1Gi.  No limit is specified"],
        );
        check(json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "50m"}}), &[]);
    }
}
