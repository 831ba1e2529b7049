//! ControllerRevision: a snapshot of a controller's template, never changed.

use super::place::{Errors, Place};
use super::{Context, Strategy, Verb};

pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        object.field("revision").nonnegative(errors);
        let data = object.field("data");
        if ctx.verb != Verb::Create {
            return;
        }
        if !data.is_set() {
            errors.push(data.required("data is mandatory"));
        } else if data.map().is_none() {
            errors.push(data.required("data must be a valid JSON object"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("data").immutable(&old.field("data"), errors);
    }
}
