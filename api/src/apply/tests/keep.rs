//! Writes that change nothing but time stamps.

use serde_json::{Value, json};

use crate::apply::keep_unchanged_times;

fn object(time: &str, manager: &str, value: &str) -> Value {
    let entry = json!({"manager": manager, "operation": "Apply", "apiVersion": "v1", "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}});
    json!({"data": {"k": value}, "metadata": {"name": "a", "managedFields": [entry]}})
}

#[track_caller]
fn check(live: &Value, new: Value, expected: &Value) {
    let mut kept = new;
    keep_unchanged_times(live, &mut kept);
    assert_eq!(kept, *expected);
}

#[test]
fn only_a_write_without_effect_keeps_the_times() {
    let (old, later) = ("2024-01-01T00:00:00Z", "2024-01-01T00:00:09Z");
    let live = object(old, "m", "v");
    check(&live, object(later, "m", "v"), &live);
    check(&live, live.clone(), &live);
    check(&live, object(later, "m", "w"), &object(later, "m", "w"));
    check(&live, object(later, "n", "v"), &object(later, "n", "v"));
    let mut without = object(later, "m", "v");
    without["metadata"]["managedFields"] = json!([]);
    check(&live, without.clone(), &without);
    let mut renamed = object(later, "m", "v");
    renamed["metadata"]["labels"] = json!({});
    check(&live, renamed.clone(), &renamed);
    let mut timeless = object(later, "m", "v");
    timeless["metadata"]["managedFields"][0].as_object_mut().expect("entry").remove("time");
    check(&live, timeless, &live);
}
