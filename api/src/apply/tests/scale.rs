//! Ownership of the replica count through the scale subresource.

use serde_json::{Value, json};

use crate::apply::Scale;

const SCALE: Scale<'_> = Scale { api_version: "apps/v1", replicas: &[("apps/v1", "spec.replicas")] };

fn entry(manager: &str, operation: &str, version: &str, subresource: &str, fields: Value) -> Value {
    let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": version,
        "fieldsType": "FieldsV1", "fieldsV1": fields});
    if !subresource.is_empty() {
        entry["subresource"] = subresource.into();
    }
    entry
}

fn object(entries: &[Value]) -> Value {
    json!({"metadata": {"managedFields": entries}})
}

fn replicas() -> Value {
    json!({"f:spec": {"f:replicas": {}}})
}

#[test]
fn a_scale_shows_who_owns_the_replicas() {
    let parent = object(&[
        entry("a", "Apply", "apps/v1", "", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})),
        entry("b", "Update", "apps/v1", "", json!({"f:spec": {"f:selector": {}}})),
        entry("c", "Update", "apps/v9", "", replicas()),
        entry("d", "Update", "apps/v1", "", replicas()),
    ]);
    let expected = json!([
        entry("a", "Apply", "autoscaling/v1", "", replicas()),
        entry("d", "Update", "autoscaling/v1", "", replicas()),
    ]);
    assert_eq!(SCALE.fields_of_scale(&parent), Some(expected));
    assert_eq!(SCALE.fields_of_scale(&object(&[])), None);
}

#[test]
fn a_scale_takes_the_replicas_from_their_owner() {
    let parent = object(&[entry("a", "Apply", "apps/v1", "", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}))]);
    let scale = object(&[entry("hpa", "Update", "autoscaling/v1", "scale", replicas())]);
    let expected = json!([
        entry("a", "Apply", "apps/v1", "", json!({"f:spec": {"f:paused": {}}})),
        entry("hpa", "Update", "apps/v1", "scale", replicas()),
    ]);
    assert_eq!(SCALE.fields_of_parent(&parent, &scale), Some(expected));
}

#[test]
fn what_the_scale_still_shows_stays() {
    let fields = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
    let parent = object(&[entry("a", "Apply", "apps/v1", "", fields)]);
    let scale = object(&[entry("a", "Apply", "autoscaling/v1", "", replicas())]);
    assert_eq!(SCALE.fields_of_parent(&parent, &scale).as_ref(), parent.pointer("/metadata/managedFields"));
}

#[test]
fn one_manager_can_own_the_replicas_both_ways() {
    let both = json!({"f:spec": {"f:replicas": {}, "f:selector": {}}});
    for operation in ["Apply", "Update"] {
        let parent = object(&[entry("m", operation, "apps/v1", "", both.clone())]);
        let scale = object(&[entry("m", operation, "autoscaling/v1", "scale", replicas())]);
        let expected = json!([
            entry("m", operation, "apps/v1", "", json!({"f:spec": {"f:selector": {}}})),
            entry("m", operation, "apps/v1", "scale", replicas()),
        ]);
        assert_eq!(SCALE.fields_of_parent(&parent, &scale), Some(expected));
        let shared = object(&[
            entry("m", operation, "autoscaling/v1", "", replicas()),
            entry("m", operation, "autoscaling/v1", "scale", replicas()),
        ]);
        let expected = json!([
            entry("m", operation, "apps/v1", "", both.clone()),
            entry("m", operation, "apps/v1", "scale", replicas()),
        ]);
        assert_eq!(SCALE.fields_of_parent(&parent, &shared), Some(expected));
    }
}

#[test]
fn a_scale_that_says_nothing_about_replicas_leaves_no_entry() {
    let parent = object(&[entry("m", "Apply", "apps/v1", "", json!({"f:spec": {"f:selector": {}}}))]);
    let scale = object(&[entry("s", "Update", "autoscaling/v1", "scale", json!({"f:status": {"f:replicas": {}}}))]);
    assert_eq!(SCALE.fields_of_parent(&parent, &scale).as_ref(), parent.pointer("/metadata/managedFields"));
}
