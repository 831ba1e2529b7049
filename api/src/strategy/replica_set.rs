//! ReplicaSet.

use serde_json::Value;

use super::fill::Lit::Int;
use super::fill::fill;
use super::place::{Errors, Place};
use super::pod::defaults;
use super::{Context, Strategy, warnings, workload};
use crate::meta;

const COUNTS: &[&str] =
    &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("replicas", Int(1))]);
        defaults::template(meta::child_mut(spec, "template"));
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("replicas").nonnegative(errors);
        spec.field("minReadySeconds").nonnegative(errors);
        workload::selector(&spec, "empty selector is invalid for deployment", errors);
        if workload::selects_template(&spec, errors) {
            workload::lasting_template(&spec.field("template"), "ReplicaSet", errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").field("selector").immutable(&old.field("spec").field("selector"), errors);
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
