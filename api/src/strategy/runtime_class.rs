//! RuntimeClass.

use super::place::{Errors, Place};
use super::pod::{scheduling, spec};
use super::{Context, Strategy, format, metadata};

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn allows_create_on_update(&self) -> bool {
        false
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        if ctx.verb != super::Verb::Create {
            return;
        }
        let handler = object.field("handler");
        if handler.require(errors) {
            format::check(&handler, format::label, errors);
        }
        let overhead = object.field("overhead");
        spec::overhead(&overhead.with_value(overhead.field("podFixed").value), errors);
        let placement = object.field("scheduling");
        metadata::labels(&placement.field("nodeSelector"), errors);
        let tolerations = placement.field("tolerations");
        scheduling::tolerations(&tolerations, errors);
        for (i, toleration) in tolerations.items().enumerate() {
            let same = |other: &serde_json::Value| {
                ["key", "operator", "value", "effect"].iter().all(|f| other[*f] == toleration.value[*f])
            };
            if tolerations.list()[..i].iter().any(same) {
                errors.push(toleration.duplicate());
            }
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("handler").immutable(&old.field("handler"), errors);
    }
}
