//! PodTemplate: a template kept as an object of its own.

use serde_json::Value;

use super::fill::has;
use super::place::{Errors, Place};
use super::pod::{defaults, template};
use super::{Context, Strategy};
use crate::meta;

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn counts_generation(&self) -> bool {
        true
    }
    fn generation_fields(&self) -> &'static [&'static str] {
        &["template"]
    }

    fn default(&self, object: &mut Value) {
        if has(object, "template") {
            defaults::template(meta::child_mut(object, "template"));
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        template::rules(&object.field("template"), errors);
    }
}
