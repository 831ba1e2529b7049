//! The patch formats against what a v1.36 server answers, by `check(document, patch, expected)`; YAML-ish JSON so that
//! a case is read at a glance.

pub(crate) mod properties;
mod strategic;

use serde_json::{Value, json};

use super::{Error, MAX_OPERATIONS, json as json_patch, merge, unknown_fields};

fn config_map() -> Value {
    json!({"data": {"k": "v"}, "metadata": {"name": "a"}, "list": ["x", "y", "z"]})
}

fn patched(operations: Value) -> Value {
    json_patch(&config_map(), &operations).expect("the patch applies")
}

#[track_caller]
fn refused(operations: Value) -> String {
    match json_patch(&config_map(), &operations) {
        Err(error @ Error::DoesNotApply(_)) => {
            assert_eq!(error.status().code, 422);
            assert_eq!(error.status().message, "the server rejected our request due to an error in our request");
            error.to_string()
        }
        other => panic!("expected a patch that does not apply, got {other:?}"),
    }
}

#[track_caller]
fn malformed(operations: Value) -> String {
    match json_patch(&config_map(), &operations) {
        Err(error @ Error::Malformed(_)) => {
            assert_eq!((error.status().code, error.status().reason.as_str()), (400, "BadRequest"));
            error.to_string()
        }
        other => panic!("expected a malformed patch, got {other:?}"),
    }
}

#[test]
fn json_patch_test_guards_the_rest() {
    let both = json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "add", "path": "/data/t", "value": "1"}]);
    assert_eq!(patched(both)["data"], json!({"k": "v", "t": "1"}));
    refused(json!([{"op": "test", "path": "/data/k", "value": "no"}, {"op": "add", "path": "/data/t", "value": "1"}]));
    refused(json!([{"op": "test", "path": "/data/none", "value": "no"}]));
    // Absent and null are the same to a test, and to a test without a value.
    assert_eq!(patched(json!([{"op": "test", "path": "/data/none", "value": null}])), config_map());
    assert_eq!(patched(json!([{"op": "test", "path": "/data/none"}])), config_map());
    assert_eq!(patched(json!([{"op": "test", "path": "", "value": config_map()}])), config_map());
}

#[test]
fn json_patch_missing_things() {
    assert!(refused(json!([{"op": "remove", "path": "/data/none"}])).contains("nonexistent key"));
    refused(json!([{"op": "add", "path": "/metadata/labels/x", "value": "1"}]));
    refused(json!([{"op": "add", "path": "", "value": {}}]));
    refused(json!([{"op": "remove", "path": ""}]));
    refused(json!([{"op": "replace", "path": "/data/k/deeper/x", "value": "1"}]));
    refused(json!([{"op": "move", "from": "/data/none", "path": "/data/z"}]));
    // Upstream's library lets replace create, and copies a missing key as null.
    assert_eq!(patched(json!([{"op": "replace", "path": "/data/none", "value": "1"}]))["data"]["none"], "1");
    assert_eq!(patched(json!([{"op": "copy", "from": "/data/none", "path": "/data/z"}]))["data"]["z"], Value::Null);
}

#[test]
fn json_patch_malformed_operations() {
    assert!(refused(json!([{"op": "jump", "path": "/data/k"}])).contains("Unexpected kind: jump"));
    refused(json!([{"op": "add", "value": "1"}]));
    refused(json!([{"op": "move", "path": "/data/k"}]));
    refused(json!([null]));
    assert_eq!(
        malformed(json!({"op": "add"})),
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
    );
    malformed(json!(["x"]));
    assert_eq!(
        malformed(json!([{"op": "add", "path": 7}])),
        "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string"
    );
    assert_eq!(patched(json!([])), config_map());
    assert_eq!(patched(Value::Null), config_map());
    assert_eq!(unknown_fields(&json!([{"op": "add", "foo": 1}])), ["json patch unknown field \"[0].foo\""]);
}

#[test]
fn json_patch_lists() {
    let list = |operations| patched(operations)["list"].clone();
    assert_eq!(list(json!([{"op": "add", "path": "/list/-", "value": "w"}])), json!(["x", "y", "z", "w"]));
    assert_eq!(list(json!([{"op": "add", "path": "/list/0", "value": "w"}])), json!(["w", "x", "y", "z"]));
    assert_eq!(list(json!([{"op": "add", "path": "/list/3", "value": "w"}])), json!(["x", "y", "z", "w"]));
    assert_eq!(list(json!([{"op": "add", "path": "/list/-1", "value": "w"}])), json!(["x", "y", "z", "w"]));
    assert_eq!(list(json!([{"op": "remove", "path": "/list/1"}])), json!(["x", "z"]));
    assert_eq!(list(json!([{"op": "remove", "path": "/list/-1"}])), json!(["x", "y"]));
    assert_eq!(list(json!([{"op": "replace", "path": "/list/1", "value": "w"}])), json!(["x", "w", "z"]));
    assert_eq!(list(json!([{"op": "move", "from": "/list/0", "path": "/list/-"}])), json!(["y", "z", "x"]));
    for path in ["/list/9", "/list/-9", "/list/one", "/list/"] {
        refused(json!([{"op": "add", "path": path, "value": "w"}]));
    }
    refused(json!([{"op": "replace", "path": "/list/-", "value": "w"}]));
    refused(json!([{"op": "remove", "path": "/list/3"}]));
}

#[test]
fn json_patch_paths_are_unescaped() {
    let operations = json!([
        {"op": "add", "path": "/metadata/a~1b~0c", "value": 1},
        {"op": "add", "path": "/metadata/~01", "value": 2},
    ]);
    assert_eq!(patched(operations)["metadata"], json!({"name": "a", "a/b~c": 1, "~1": 2}));
}

#[test]
fn json_patch_replaces_the_document() {
    assert_eq!(patched(json!([{"op": "replace", "path": "", "value": {"a": 1}}])), json!({"a": 1}));
    refused(json!([{"op": "replace", "path": "", "value": "x"}]));
    refused(json!([{"op": "replace", "path": ""}]));
}

#[test]
fn json_patch_has_a_limit() {
    let operation = json!({"op": "test", "path": "/data/k", "value": "v"});
    assert!(json_patch(&config_map(), &vec![operation.clone(); MAX_OPERATIONS].into()).is_ok());
    let error = json_patch(&config_map(), &vec![operation; MAX_OPERATIONS + 1].into()).expect_err("one too many");
    assert_eq!(error.status().code, 413);
    assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
}

#[test]
fn json_patch_leaves_the_document_alone_when_it_fails() {
    let document = config_map();
    let operations = json!([{"op": "remove", "path": "/data"}, {"op": "jump", "path": "/x"}]);
    assert!(json_patch(&document, &operations).is_err());
    assert_eq!(document, config_map());
}

#[test]
fn merge_patch() {
    let check = |document: Value, patch: Value, expected: Value| {
        assert_eq!(merge(&document, &patch).expect("the patch applies"), expected, "{patch} on {document}");
    };
    check(json!({"data": {"k": "v"}}), json!({"data": {"a": "b", "k": null}}), json!({"data": {"a": "b"}}));
    check(json!({"data": {"k": "v"}}), json!({"data": null}), json!({}));
    check(json!({"data": {"k": "v"}}), json!({"data": "x"}), json!({"data": "x"}));
    check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}));
    check(json!({"a": "x"}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}}));
    check(json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}));
    check(json!({}), json!({"a": [null, {"b": null}]}), json!({"a": [null, {}]}));
    check(json!({"a": [1]}), json!({"a": [{"b": null}]}), json!({"a": [{}]}));
    check(json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]}));
    check(json!({}), json!({}), json!({}));
}

#[test]
fn merge_patch_must_be_an_object() {
    let message = |patch: Value| merge(&config_map(), &patch).expect_err("not an object").to_string();
    assert_eq!(message(Value::Null), "Invalid JSON Patch");
    assert!(message(json!([1])).ends_with("cannot unmarshal array into Go value of type map[string]interface {}"));
    assert_eq!(merge(&config_map(), &json!("x")).expect_err("not an object").status().code, 400);
}
