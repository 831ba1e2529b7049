//! Objects of CustomResourceDefinitions: their schema says the rest. The generation counts every change outside
//! metadata and status.

use serde_json::Value;

use super::place::Place;
use super::{Context, Strategy, metadata};
use crate::meta;

pub struct Custom;

impl Strategy for Custom {
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn qualifies_finalizers(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context) {
        if ctx.has_status {
            meta::object_mut(object).remove("status");
        }
        meta::metadata_mut(object).insert("generation".into(), 1.into());
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        metadata::carry_over(new, old);
        if ctx.subresource == "status" {
            metadata::only_status(new, old, true);
            metadata::keep_metadata(new, old);
            return;
        }
        if ctx.has_status {
            metadata::keep_field(new, old, "status");
        }
        if changed(new, old, ctx.has_status) {
            metadata::count_generation(new, old);
        }
    }
}

fn changed(new: &Value, old: &Value, has_status: bool) -> bool {
    let counted = |key: &str| key != "metadata" && !(has_status && key == "status");
    let (new, old) = (Place::root(new), Place::root(old));
    let keys = new.entries().chain(old.entries()).map(|(key, _)| key);
    keys.filter(|key| counted(key)).any(|key| new.field(key).value != old.field(key).value)
}
