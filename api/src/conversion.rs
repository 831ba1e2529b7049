//! Objects from one version to another, for the kinds that are served in more than one: events of the core group and
//! of `events.k8s.io`, horizontal pod autoscalers in v1 and v2, and custom resources, which change only their version.
//!
//! Converting there and back loses nothing: what the older version can't say travels in annotations, as upstream has
//! it.

pub(crate) mod autoscaling;
mod event;

use serde_json::{Map, Value};

use crate::catalogue::Resource;

/// The object as `to` has it. `from` and `to` are rows of the same kind; the object is well formed, as decoding
/// leaves it. A kind that has no conversion keeps its fields.
pub fn convert(object: Value, from: &Resource, to: &Resource) -> Value {
    let mut object = object;
    if (from.group.as_str(), from.version.as_str()) == (to.group.as_str(), to.version.as_str()) {
        return object;
    }
    if let Value::Object(map) = &mut object {
        match (to.group.as_str(), to.version.as_str(), to.kind.as_str()) {
            ("", _, "Event") => event::to_core(map),
            ("events.k8s.io", _, "Event") => event::to_events(map),
            ("autoscaling", "v1", "HorizontalPodAutoscaler") => autoscaling::to_v1(map),
            ("autoscaling", "v2", "HorizontalPodAutoscaler") => autoscaling::to_v2(map),
            _ => {}
        }
        map.insert("apiVersion".to_owned(), to.api_version().into());
    }
    object
}

/// Moves a member to another name.
fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
