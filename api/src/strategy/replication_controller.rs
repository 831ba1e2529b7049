//! ReplicationController: like a ReplicaSet, with a plain label map as selector.

use serde_json::Value;

use super::fill::Lit::Int;
use super::fill::{fill, has, has_content};
use super::place::{Errors, Place};
use super::pod::defaults;
use super::{Context, Strategy, warnings, workload};
use crate::meta;

const COUNTS: &[&str] =
    &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("replicas", Int(1))]);
        if has(spec, "template") {
            defaults::template(meta::child_mut(spec, "template"));
        }
        let labels = spec.get("template").and_then(|t| t.get("metadata")).and_then(|m| m.get("labels")).cloned();
        let Some(labels) = labels.filter(|l| !l.is_null()) else { return };
        if !has_content(spec, "selector") {
            spec["selector"] = labels.clone();
        }
        let metadata = meta::metadata_mut(object);
        if metadata.get("labels").and_then(Value::as_object).is_none_or(|l| l.is_empty()) {
            metadata.insert("labels".into(), labels);
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("minReadySeconds").nonnegative(errors);
        spec.field("selector").require(errors);
        spec.field("replicas").nonnegative(errors);
        let (selector, template) = (spec.field("selector"), spec.field("template"));
        if !template.is_set() {
            errors.push(template.required(""));
            return;
        }
        let metadata = template.field("metadata");
        let labels = metadata.field("labels");
        if selector.entries().any(|(key, value)| labels.value.get(key) != Some(value.value)) {
            errors.push(labels.invalid("`selector` does not match template `labels`"));
        }
        workload::lasting_template(&template, "ReplicationController", errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        workload::status_counts(new, COUNTS, errors);
        workload::within_replicas(new, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
        workload::available_within_ready(new, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        workload::replicas_field(object)
    }
}
