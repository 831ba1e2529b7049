//! What a write through `/ephemeralcontainers`, `/resize` and `/status` may touch.

use serde_json::Value;

use crate::meta;
use crate::strategy::fill::{each, has, text};
use crate::strategy::metadata;

pub fn only_ephemeral_containers(new: &mut Value, old: &Value) {
    let added = new.get("spec").and_then(|s| s.get("ephemeralContainers")).cloned();
    metadata::keep_field(new, old, "spec");
    metadata::keep_metadata(new, old);
    let spec = meta::object_mut(meta::child_mut(new, "spec"));
    match added {
        Some(list) => spec.insert("ephemeralContainers".into(), list),
        None => spec.remove("ephemeralContainers"),
    };
}

/// Keeps the resources and resize policies of `new`. When containers were added, removed or renamed everything
/// stays, for the rules to refuse.
pub fn only_resources(new: &mut Value, old: &Value) {
    let names = |object: &Value, list: &str| -> Vec<String> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let containers = spec.get(list).and_then(Value::as_array).into_iter().flatten();
        containers.map(|c| text(c, "name").to_owned()).collect()
    };
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    if LISTS.iter().any(|list| names(new, list) != names(old, list)) {
        return;
    }
    let asked = new.get("spec").cloned().unwrap_or_default();
    metadata::keep_field(new, old, "spec");
    metadata::keep_metadata(new, old);
    let Some(spec) = new.get_mut("spec") else { return };
    put(spec, &asked, "resources");
    for list in LISTS {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (i, container) in containers.iter_mut().enumerate() {
            for field in ["resources", "resizePolicy"] {
                put(container, &asked[list][i], field);
            }
        }
    }
}

fn put(target: &mut Value, source: &Value, field: &str) {
    let target = meta::object_mut(target);
    match source.get(field) {
        Some(value) => target.insert(field.to_owned(), value.clone()),
        None => target.remove(field),
    };
}

/// A status write keeps owner references (old kubelets corrupt them), the QoS class, and observed generations
/// that the writer left out.
pub fn keep_for_status(new: &mut Value, old: &Value) {
    let owners = old.get("metadata").and_then(|m| m.get("ownerReferences")).cloned();
    let metadata = meta::metadata_mut(new);
    match owners {
        Some(owners) => metadata.insert("ownerReferences".into(), owners),
        None => metadata.remove("ownerReferences"),
    };
    let old_status = old.get("status").cloned().unwrap_or_default();
    let status = meta::child_mut(new, "status");
    for field in ["qosClass", "observedGeneration"] {
        if !has(status, field) && has(&old_status, field) {
            status[field] = old_status[field].clone();
        }
    }
    let mut known: Vec<&Value> = old_status.get("conditions").and_then(Value::as_array).into_iter().flatten().collect();
    each(status, "conditions", |condition| {
        let Some(at) = known.iter().position(|c| c["type"] == condition["type"]) else { return };
        let before = known.remove(at);
        if !has(condition, "observedGeneration") && has(before, "observedGeneration") {
            condition["observedGeneration"] = before["observedGeneration"].clone();
        }
    });
}
