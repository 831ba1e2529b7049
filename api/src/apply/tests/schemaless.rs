//! Objects without a schema: types are deduced from the values, objects merge and lists are atomic.

use serde_json::{Value, json};

use super::Server;

fn server() -> Server<'static> {
    Server::builtin("example.com/v1", "Thing", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON")
}

#[test]
fn objects_are_granular_and_lists_atomic() {
    let mut server = server();
    server.apply("m1", json!({"spec": {"a": {"b": 1}, "l": [1, 2]}}));
    server.check_owners(&[r#"m1 Apply 1s {"f:spec":{".":{},"f:a":{".":{},"f:b":{}},"f:l":{}}}"#]);
    server.apply("m2", json!({"spec": {"a": {"c": 2}}}));
    server.check_at("/spec", json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}));
    let error = server.refused("m2", json!({"spec": {"a": {"c": 2}, "l": [1]}}));
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m1\": .spec.l");
    server.apply("m1", json!({"spec": {"a": {"b": 1}}}));
    server.check_at("/spec", json!({"a": {"b": 1, "c": 2}}));
}

#[test]
fn updates_own_the_keys_they_add() {
    let mut server = server();
    server.put("m1", json!({"spec": {"a": {"b": 1}}}));
    server.check_owners(&[r#"m1 Update 1s {"f:spec":{".":{},"f:a":{".":{},"f:b":{}}}}"#]);
    // A value of another kind takes the place and everything below it.
    server.put("m2", json!({"spec": {"a": "text"}}));
    server.check_at("/spec/a", "text".into());
    server.check_owners(&[r#"m1 Update 1s {"f:spec":{}}"#, r#"m2 Update 2s {"f:spec":{"f:a":{}}}"#]);
    server.put("m1", json!({"spec": {"a": [1]}, "status": Value::Null}));
    server.check_owners(&[r#"m1 Update 3s {"f:spec":{".":{},"f:a":{}},"f:status":{}}"#]);
}
