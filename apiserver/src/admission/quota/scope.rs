//! Which quotas concern an object: a quota with scopes counts only pods that fit all of them. Pure.

use serde_json::Value;

use super::Amounts;
use crate::admission::{AdmissionRequest, containers};

pub fn matches(quota: &Value, request: &AdmissionRequest<'_>, hard: &Amounts) -> bool {
    if hard.is_empty() {
        return false;
    }
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let plain = plain.map(|scope| (scope, "Exists", &Value::Null));
    let expressions = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let expressions = expressions.map(|e| {
        (e["scopeName"].as_str().unwrap_or_default(), e["operator"].as_str().unwrap_or_default(), &e["values"])
    });
    let is_pod = request.is("", "pods", "");
    plain.chain(expressions).all(|(scope, operator, values)| is_pod && fits(&request.object, scope, operator, values))
}

fn fits(pod: &Value, scope: &str, operator: &str, values: &Value) -> bool {
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
