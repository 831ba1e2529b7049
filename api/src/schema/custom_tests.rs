//! Compiled schemas of custom resources against recorded answers of upstream.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::decode::{self, FieldValidation};

/// A definition whose `spec.f` has the schema given.
fn compiled(f: Value) -> (Arc<Schemas>, u32) {
    Schemas::compile(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"f": f}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}))
    .unwrap()
}

/// Decodes, prunes, defaults and validates an object with `spec.f`; the object's spec and `path: message` of errors.
fn run(f: &Value, value: Value) -> (Value, Vec<String>) {
    let (schemas, root) = compiled(f.clone());
    let schema = schemas.node(root);
    let body =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"f": value}});
    let mut object = decode::value(schema, body, FieldValidation::Ignore).unwrap().object;
    decode::apply_defaults(schema, &mut object);
    let errors = validate(schema, &object).iter().map(|e| format!("{} {e}", e.kind.reason())).collect();
    (object["spec"].take(), errors)
}

fn refused(f: Value, value: Value, message: &str) {
    let (_, errors) = run(&f, value);
    assert_eq!(errors, [message], "{f}");
}

fn admitted(f: Value, value: Value) {
    assert_eq!(run(&f, value.clone()), (json!({ "f": value }), Vec::new()), "{f}");
}

#[test]
fn types_are_checked() {
    let number = json!({"type": "number"});
    admitted(number.clone(), json!(5));
    admitted(number.clone(), json!(5.5));
    let wrong = "spec.f: Invalid value: \"string\": spec.f in body must be of type number: \"string\"";
    refused(number, json!("5.5"), &format!("FieldValueTypeInvalid {wrong}"));
    let either = json!({"x-kubernetes-int-or-string": true});
    admitted(either.clone(), json!("x"));
    let wrong = "spec.f: Invalid value: \"number\": spec.f in body must be of type integer,string: \"number\"";
    refused(either, json!(5.5), &format!("FieldValueTypeInvalid {wrong}"));
    admitted(json!({"type": "string", "nullable": true}), Value::Null);
}

#[test]
fn bounds_and_choices_are_checked() {
    let bounded = json!({"type": "integer", "minimum": 2, "maximum": 4});
    admitted(bounded.clone(), json!(4));
    let wrong = "spec.f: Invalid value: 1: spec.f in body should be greater than or equal to 2";
    refused(bounded, json!(1), &format!("FieldValueInvalid {wrong}"));
    let exclusive = json!({"type": "integer", "minimum": 2, "exclusiveMinimum": true});
    let wrong = "spec.f: Invalid value: 2: spec.f in body should be greater than 2";
    refused(exclusive, json!(2), &format!("FieldValueInvalid {wrong}"));
    let choice = json!({"type": "string", "enum": ["a", "b"]});
    let wrong = "spec.f: Unsupported value: \"c\": supported values: \"a\", \"b\"";
    refused(choice, json!("c"), &format!("FieldValueNotSupported {wrong}"));
    let counted = json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2});
    let wrong = "spec.f: Invalid value: 0: spec.f in body should have at least 1 items";
    refused(counted.clone(), json!([]), &format!("FieldValueInvalid {wrong}"));
    let wrong = "spec.f: Too many: 3: must have at most 2 items";
    refused(counted.clone(), json!(["a", "b", "c"]), &format!("FieldValueTooMany {wrong}"));
    let wrong = "spec.f[1]: Invalid value: \"integer\": spec.f[1] in body must be of type string: \"integer\"";
    refused(counted, json!(["a", 5]), &format!("FieldValueTypeInvalid {wrong}"));
    let pattern = json!({"type": "string", "pattern": "^a+$"});
    let wrong = "spec.f: Invalid value: \"b\": spec.f in body should match '^a+$'";
    refused(pattern, json!("b"), &format!("FieldValueInvalid {wrong}"));
}

#[test]
fn required_fields_count_nulls_as_absent() {
    let object = json!({"type": "object", "required": ["r"], "properties": {"r": {"type": "string"}}});
    admitted(object.clone(), json!({"r": "x"}));
    for value in [json!({}), json!({"r": null})] {
        refused(object.clone(), value, "FieldValueRequired spec.f.r: Required value");
    }
    let optional = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    assert_eq!(run(&optional, json!({"a": null})), (json!({"f": {}}), vec![]));
    assert_eq!(run(&optional, Value::Null), (json!({}), vec![]));
}

#[test]
fn combinations_are_checked() {
    let any = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}]});
    admitted(any.clone(), json!({"a": "x", "b": "y"}));
    let (_, errors) = run(&any, json!({}));
    let first = "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.f\" must validate at least one schema (anyOf)";
    assert_eq!(errors, [first, "FieldValueRequired spec.f.a: Required value"]);
    let all = json!({"type": "string", "allOf": [{"minLength": 2}], "not": {"enum": ["bad"]}});
    admitted(all.clone(), json!("good"));
    let not = "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.f\" must not validate the schema (not)";
    refused(all.clone(), json!("bad"), not);
    let (_, errors) = run(&all, json!("a"));
    let short = "FieldValueInvalid spec.f: Invalid value: \"a\": spec.f in body should be at least 2 chars long";
    let none = "FieldValueInvalid <nil>: Invalid value: \"\": \"spec.f\" must validate all the schemas (allOf). None \
                validated";
    assert_eq!(errors, [short, none]);
}

#[test]
fn sets_and_maps_hold_nothing_twice() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    admitted(set.clone(), json!(["a", "b"]));
    refused(set, json!(["a", "a"]), "FieldValueDuplicate spec.f[1]: Duplicate value: \"a\"");
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"],
        "items": {"type": "object", "properties": {"k": {"type": "string"},
            "p": {"type": "string", "default": "TCP"}}}});
    admitted(map.clone(), json!([{"k": "a", "p": "TCP"}, {"k": "a", "p": "UDP"}]));
    let wrong = "FieldValueDuplicate spec.f[1]: Duplicate value: {\"k\":\"a\",\"p\":\"TCP\"}";
    refused(map, json!([{"k": "a", "p": "TCP"}, {"k": "a"}]), wrong);
}

#[test]
fn formats_are_checked() {
    for (format, good, bad) in [
        ("ipv4", "1.2.3.4", "1.2.3"),
        ("ipv6", "::1", "1.2.3.4"),
        ("uuid", "11111111-2222-3333-4444-555555555555", "x"),
        ("email", "a@b.c", "ab"),
        ("byte", "aGk=", "***"),
        ("duration", "1h", "x"),
        ("date-time", "2024-01-02T03:04:05Z", "2024"),
        ("date", "2024-01-02", "2024-13-02"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "00:11:22:33:44:55", "00:11"),
        ("uri", "http://a/b", "a b"),
        ("hostname", "a.b", "-a"),
    ] {
        let schema = json!({"type": "string", "format": format});
        admitted(schema.clone(), json!(good));
        let wrong = format!("spec.f: Invalid value: {bad:?}: spec.f in body must be of type {format}: {bad:?}");
        refused(schema, json!(bad), &format!("FieldValueTypeInvalid {wrong}"));
    }
    admitted(json!({"type": "string", "format": "unknown-format"}), json!("b"));
}

#[test]
fn unknown_fields_are_pruned_unless_preserved() {
    let preserving = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "k": {"type": "object", "properties": {"x": {"type": "string"}}}}});
    let value = json!({"any": {"thing": [1, null]}, "k": {"x": "x", "dropped": 1}});
    let (spec, errors) = run(&preserving, value);
    assert_eq!((spec, errors), (json!({"f": {"any": {"thing": [1, null]}, "k": {"x": "x"}}}), vec![]));
    let (schemas, root) = compiled(json!({"type": "object"}));
    let body = json!({"metadata": {"name": "a", "bogus": 1}, "spec": {"f": {"a": 1}, "g": 2}});
    let warned = decode::value(schemas.node(root), body, FieldValidation::Warn).unwrap();
    let problems = ["unknown field \"metadata.bogus\"", "unknown field \"spec.f.a\"", "unknown field \"spec.g\""];
    assert_eq!(warned.warnings, problems);
    assert_eq!(warned.object, json!({"metadata": {"name": "a"}, "spec": {"f": {}}}));
}

#[test]
fn embedded_resources_keep_their_metadata() {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "bogus": 1}, "spec": {"a": 1}});
    let (spec, errors) = run(&embedded, value);
    let kept = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"a": 1}});
    assert_eq!((&spec["f"], errors), (&kept, vec![]));
    refused(embedded, json!({"kind": "Pod"}), "FieldValueRequired spec.f.apiVersion: Required value");
}

#[test]
fn defaults_are_filled_in_from_outside_in() {
    let schema = json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "string", "default": "x"},
        "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}}}}});
    assert_eq!(run(&schema, Value::Null).0, json!({"f": {"a": "x"}}));
    assert_eq!(run(&schema, json!({"a": "y", "b": [{}]})).0, json!({"f": {"a": "y", "b": [{"c": 1}]}}));
}

#[test]
fn metadata_merges_as_it_does_everywhere() {
    let (schemas, root) = compiled(json!({"type": "object"}));
    let metadata = schemas.node(root).field("metadata").unwrap();
    assert_eq!(metadata.field("finalizers").unwrap().list_type(), ListType::Set);
    assert_eq!(metadata.field("ownerReferences").unwrap().list_map_keys().collect::<Vec<_>>(), ["uid"]);
}

#[test]
fn patterns_and_depth_are_checked_when_compiling() {
    let wrong = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}});
    assert!(matches!(Schemas::compile(&wrong), Err(Error::Pattern { path, .. }) if path == ".a"));
    let mut deep = json!({"type": "string"});
    for _ in 0..150 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(matches!(Schemas::compile(&deep), Err(Error::TooDeep { .. })));
}
