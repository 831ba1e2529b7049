//! What may change in a job's spec (`ValidateJobSpecUpdate`).

use serde_json::Value;

use crate::strategy::place::{Errors, Place};

const FIXED: &[&str] =
    &["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
/// What a suspended job may change about where its pods run.
const SCHEDULING: &[&str] = &["nodeSelector", "tolerations", "schedulingGates"];

pub fn rules(new: &Place, old: &Place, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    completions(&spec, &before, errors);
    template(&spec, &before, old, errors);
    for field in FIXED {
        spec.field(field).immutable(&before.field(field), errors);
    }
}

/// An indexed job may grow and shrink, with its parallelism.
fn completions(spec: &Place, before: &Place, errors: &mut Errors) {
    let (now, was) = (spec.field("completions"), before.field("completions"));
    if spec.field("completionMode").str() != "Indexed" {
        now.immutable(&was, errors);
    } else if !now.same(&was) && now.is_set() && now.value != spec.field("parallelism").value {
        errors.push(now.invalid("can only be modified in tandem with spec.parallelism"));
    }
}

fn template(spec: &Place, before: &Place, old: &Place, errors: &mut Errors) {
    let (now, was) = (spec.field("template"), before.field("template"));
    let suspended = before.field("suspend").is_true();
    let status = old.field("status");
    let started = status.field("startTime").is_set();
    let paused = status.field("conditions").list().iter().any(|c| c["type"] == "Suspended" && c["status"] == "True");
    let idle = status.field("active").int().unwrap_or(0) == 0;
    let mut allowed = was.value.clone();
    if suspended && idle && (!started || paused) {
        take_scheduling(&mut allowed, now.value);
        take_resources(&mut allowed, now.value);
    }
    if !now.same(&now.with_value(&allowed)) {
        errors.push(now.invalid("field is immutable"));
    }
}

fn copy(target: &mut Value, source: &Value, field: &str) {
    let Some(map) = target.as_object_mut() else { return };
    match source.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// Node affinity, node selector, tolerations, gates, labels and annotations.
fn take_scheduling(template: &mut Value, now: &Value) {
    let empty = Value::Null;
    let pod = now.get("spec").unwrap_or(&empty);
    if let Some(metadata) = template.get_mut("metadata") {
        for field in ["labels", "annotations"] {
            copy(metadata, now.get("metadata").unwrap_or(&empty), field);
        }
    }
    let Some(spec) = template.get_mut("spec") else { return };
    for field in SCHEDULING {
        copy(spec, pod, field);
    }
    let mut affinity = spec.get("affinity").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    copy(&mut affinity, pod.get("affinity").unwrap_or(&empty), "nodeAffinity");
    let bare = affinity.as_object().is_some_and(|a| a.is_empty()) && pod.get("affinity").is_none();
    if let Some(map) = spec.as_object_mut() {
        if bare {
            map.remove("affinity");
        } else if map.contains_key("affinity") || pod.get("affinity").is_some() {
            map.insert("affinity".into(), affinity);
        }
    }
}

fn take_resources(template: &mut Value, now: &Value) {
    let Some(spec) = template.get_mut("spec") else { return };
    for list in ["containers", "initContainers"] {
        let current = now.get("spec").and_then(|s| s.get(list)).and_then(Value::as_array);
        let (Some(containers), Some(current)) = (spec.get_mut(list).and_then(Value::as_array_mut), current) else {
            continue;
        };
        if containers.len() != current.len() {
            continue;
        }
        for (container, now) in containers.iter_mut().zip(current) {
            if container.get("name") == now.get("name") {
                copy(container, now, "resources");
            }
        }
    }
}
