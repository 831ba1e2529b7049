//! Namespace: its finalizers in `spec` keep it until everything inside is gone; only `/finalize` changes them.

use serde_json::Value;

use super::fill::Lit::{Object, Str};
use super::fill::{fill, fill_at, text};
use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, format, metadata};
use crate::meta;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct Namespace;

impl Strategy for Namespace {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, object: &mut Value) {
        label_with_name(object);
        fill(object, &[("spec", Object), ("status", Object)]);
        fill_at(object, "status", &[("phase", Str("Active"))]);
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        // The name may have been generated after defaulting.
        label_with_name(object);
        object["status"] = serde_json::json!({"phase": "Active"});
        let spec = meta::object_mut(meta::child_mut(object, "spec"));
        let finalizers = spec.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = finalizers.as_array_mut().filter(|list| !list.iter().any(|f| f == FINALIZER)) {
            list.push(FINALIZER.into());
        }
    }

    fn on_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        if ctx.subresource != "finalize" {
            let spec = meta::object_mut(meta::child_mut(new, "spec"));
            match old.get("spec").and_then(|s| s.get("finalizers")) {
                Some(finalizers) => spec.insert("finalizers".into(), finalizers.clone()),
                None => spec.remove("finalizers"),
            };
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let finalizers = spec.field("finalizers");
        for finalizer in finalizers.items() {
            // Upstream complains at the list, not at the item.
            let place = spec.named("finalizers", finalizer.value);
            format::check(&place, format::qualified_name, errors);
            if !finalizer.str().contains('/') && finalizer.str() != FINALIZER {
                errors.push(place.invalid("name is neither a standard finalizer name nor is it fully qualified"));
            }
        }
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        let metadata = new.field("metadata");
        let status = new.field("status");
        let phase = status.field("phase");
        let deleting = !metadata.field("deletionTimestamp").is_empty();
        match (deleting, phase.str()) {
            (false, phase_now) if phase_now != "Active" => {
                errors.push(phase.invalid("may only be 'Active' if `deletionTimestamp` is empty"));
            }
            (true, phase_now) if phase_now != "Terminating" => {
                errors.push(phase.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty"));
            }
            _ => {}
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let phase = object.get("status").map(|s| text(s, "phase")).unwrap_or_default();
        vec![("status.phase", phase.to_owned()), ("name", meta::name(object).to_owned())]
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context) {
        metadata::clear_status(object);
        self.on_create(object, ctx);
    }
}

fn label_with_name(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        let labels = meta::metadata_mut(object).entry("labels").or_insert(Value::Null);
        meta::object_mut(labels).insert(NAME_LABEL.into(), name.into());
    }
}
