//! PriorityClass.

use serde_json::Value;

use super::fill::Lit::Str;
use super::fill::fill;
use super::place::{Errors, Place};
use super::{Context, Strategy};
use crate::field::Error;

const RESERVED_PREFIX: &str = "system-";
/// Classes that may carry the prefix, with their only value.
const SYSTEM: &[(&str, i64)] = &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const USER_MAX: i64 = 1_000_000_000;

pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn counts_generation(&self) -> bool {
        true
    }
    fn generation_fields(&self) -> &'static [&'static str] {
        &[]
    }

    fn default(&self, object: &mut Value) {
        fill(object, &[("preemptionPolicy", Str("PreemptLowerPriority"))]);
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        if ctx.verb != super::Verb::Create {
            return;
        }
        let metadata = object.field("metadata");
        let (name, value) = (metadata.field("name"), object.field("value"));
        let number = value.int().unwrap_or(0);
        if name.str().starts_with(RESERVED_PREFIX) {
            let known = SYSTEM.contains(&(name.str(), number)) && !object.field("globalDefault").is_true();
            if !known {
                errors.push(name.forbidden(format!(
                    "priority class names with '{RESERVED_PREFIX}' prefix are reserved for system use only. error: {} \
                     is not a known system priority class",
                    name.str()
                )));
            }
        } else if number > USER_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errors.push(value.forbidden(detail));
        }
        object.field("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        if new.field("value").int().unwrap_or(0) != old.field("value").int().unwrap_or(0) {
            errors.push(Error::forbidden("value", "may not be changed in an update."));
        }
        new.field("preemptionPolicy").immutable(&old.field("preemptionPolicy"), errors);
    }
}
