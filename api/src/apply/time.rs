//! The time stamps of managedFields.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::managed;

/// As `metav1.Time`: UTC, seconds.
pub(super) fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Undoes changes of nothing but time stamps in managedFields, so that a write without effect stays one: nothing is
/// stored, and no watcher wakes. To be called when the object is otherwise ready to be stored
/// (upstream's `IgnoreManagedFieldsTimestampsTransformer`).
pub fn keep_unchanged_times(live: &Value, new: &mut Value) {
    let (old_fields, new_fields) = (managed::of(live), managed::of(new));
    // Entries that come or go are a change in any case.
    if old_fields.len() != new_fields.len() || old_fields == new_fields {
        return;
    }
    let same_but_time = |(l, r): (&Value, &Value)| match (l, r) {
        (Value::Object(l), Value::Object(r)) => equal_without(l, r, "time"),
        _ => l == r,
    };
    if !old_fields.iter().zip(new_fields).all(same_but_time) || !equal_otherwise(live, new) {
        return;
    }
    managed::set(new, Some(Value::Array(old_fields.to_vec())));
}

fn equal_without(left: &Map<String, Value>, right: &Map<String, Value>, ignored: &str) -> bool {
    let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(ignored));
    rest(left) == rest(right)
        && left.iter().all(|(key, value)| key == ignored || right.get(key).is_some_and(|other| other == value))
}

/// Are two objects equal but for their managedFields?
fn equal_otherwise(left: &Value, right: &Value) -> bool {
    let (Value::Object(left), Value::Object(right)) = (left, right) else { return left == right };
    let metadata = |object: &Map<String, Value>| object.get("metadata").and_then(Value::as_object).cloned();
    equal_without(left, right, "metadata")
        && equal_without(&metadata(left).unwrap_or_default(), &metadata(right).unwrap_or_default(), "managedFields")
}
