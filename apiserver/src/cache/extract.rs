//! Which fields of a resource's objects field selectors may name, and how to read them.

use std::sync::Arc;

use api::catalogue::Resource;
use api::strategy::{self, Strategy};
use serde_json::Value;

/// The field whose values are indexed where a resource has it: every node watches and lists its own pods.
pub const INDEXED_FIELD: &str = "spec.nodeName";

pub struct Extract {
    resource: Arc<Resource>,
    strategy: &'static dyn Strategy,
}

impl Extract {
    pub fn new(resource: Arc<Resource>) -> Self {
        let strategy = strategy::of(&resource.group, &resource.plural);
        Self { resource, strategy }
    }

    pub fn has_fields(&self) -> bool {
        !self.resource.custom && !self.resource.selectable_fields.is_empty()
    }

    pub fn indexed(&self) -> bool {
        self.has_fields() && self.resource.selectable_fields.iter().any(|f| f == INDEXED_FIELD)
    }

    pub fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.strategy.selectable_fields(object)
    }
}
