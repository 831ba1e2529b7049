//! `matchLabelKeys` become requirements of the selector beside them, with the pod's own values, at creation.

use serde_json::{Map, Value, json};

use crate::meta;
use crate::strategy::fill::{each, has, with};

pub fn merge(object: &mut Value) {
    let Some(labels) = meta::labels(object).cloned() else { return };
    let Some(spec) = object.get_mut("spec") else { return };
    each(spec, "topologySpreadConstraints", |c| apply(c, "matchLabelKeys", "In", &labels));
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.get_mut(kind) else { continue };
        each(terms, "requiredDuringSchedulingIgnoredDuringExecution", |t| term(t, &labels));
        each(terms, "preferredDuringSchedulingIgnoredDuringExecution", |weighted| {
            with(weighted, "podAffinityTerm", |t| term(t, &labels));
        });
    }
}

fn term(term: &mut Value, labels: &Map<String, Value>) {
    apply(term, "matchLabelKeys", "In", labels);
    apply(term, "mismatchLabelKeys", "NotIn", labels);
}

fn apply(holder: &mut Value, keys: &str, operator: &str, labels: &Map<String, Value>) {
    if !has(holder, "labelSelector") {
        return;
    }
    let keys: Vec<String> = holder
        .get(keys)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    for key in keys {
        let Some(value) = labels.get(&key) else { continue };
        let requirement = json!({"key": key, "operator": operator, "values": [value]});
        let selector = meta::object_mut(&mut holder["labelSelector"]);
        let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(list) = expressions.as_array_mut() {
            list.push(requirement);
        }
    }
}
