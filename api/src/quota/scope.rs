//! Which objects a quota with scopes counts: pods and claims that fit all of them. Pure.

use serde_json::Value;

use super::containers;

/// Whether an object of the core group fits the scopes of a quota's spec. One without scopes counts everything.
pub fn fits(spec: &Value, resource: &str, object: &Value) -> bool {
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let plain = plain.map(|scope| (scope, "Exists", &Value::Null));
    let expressions = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let expressions = expressions.map(|e| {
        (e["scopeName"].as_str().unwrap_or_default(), e["operator"].as_str().unwrap_or_default(), &e["values"])
    });
    plain.chain(expressions).all(|(scope, operator, values)| match resource {
        "pods" => fits_pod(object, scope, operator, values),
        "persistentvolumeclaims" if scope == "VolumeAttributesClass" => {
            let classes = attributes_classes(object);
            match classes.is_empty() {
                true => selects(None, operator, values),
                false => classes.into_iter().any(|class| selects(Some(class), operator, values)),
            }
        }
        _ => false,
    })
}

/// The classes a claim has, asks for, or is on its way to.
fn attributes_classes(claim: &Value) -> Vec<&str> {
    let status = &claim["status"];
    let places = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    places.into_iter().filter_map(|place| place.as_str().filter(|class| !class.is_empty())).collect()
}

fn fits_pod(pod: &Value, scope: &str, operator: &str, values: &Value) -> bool {
    let spec = &pod["spec"];
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "PriorityClass" => selects(spec["priorityClassName"].as_str(), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn best_effort(pod: &Value) -> bool {
    let empty = |resources: &Value, field: &str| resources[field].as_object().is_none_or(|map| map.is_empty());
    let none = |resources: &Value| empty(resources, "requests") && empty(resources, "limits");
    none(&pod["spec"]["resources"])
        && containers(pod, &["containers", "initContainers"]).all(|container| none(&container["resources"]))
}

fn selects(value: Option<&str>, operator: &str, values: &Value) -> bool {
    let value = value.filter(|v| !v.is_empty());
    let listed = || values.as_array().is_some_and(|list| list.iter().any(|v| v.as_str() == value));
    match operator {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => value.is_some() && listed(),
        "NotIn" => value.is_none() || !listed(),
        _ => false,
    }
}

fn crosses_namespaces(spec: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty()) || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &spec["affinity"][*kind];
        let required = affinity["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(crosses)
            || preferred.into_iter().flatten().any(|term| crosses(&term["podAffinityTerm"]))
    })
}
