//! Server-side apply: ownership, conflicts, removal, and the requests that are refused.

use serde_json::{Value, json};

use super::{Error, Server};

#[test]
fn create_and_update() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"data": {"a": "1", "b": "2"}}));
    server.check_owners(&[r#"m1 Apply 1s {"f:data":{"f:a":{},"f:b":{}}}"#]);
    server.apply("m1", json!({"data": {"a": "1", "c": "3"}}));
    server.check_at("/data", json!({"a": "1", "c": "3"}));
    server.check_owners(&[r#"m1 Apply 2s {"f:data":{"f:a":{},"f:c":{}}}"#]);
    server.apply("m1", json!({"data": {"a": "1", "c": "3"}}));
    server.check_owners(&[r#"m1 Apply 2s {"f:data":{"f:a":{},"f:c":{}}}"#]);
}

#[test]
fn metadata_that_everybody_has_is_not_owned() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"metadata": {"namespace": "n", "labels": {"x": "y"}}, "data": {"k": "v"}}));
    server.check_owners(&[r#"m1 Apply 1s {"f:data":{"f:k":{}},"f:metadata":{"f:labels":{"f:x":{}}}}"#]);
    // Who applies nothing owns nothing, and is not listed.
    let mut server = Server::config_map();
    server.apply("m1", json!({"metadata": {"namespace": "n"}}));
    server.check_owners(&[]);
}

#[test]
fn another_value_is_a_conflict() {
    let mut server = Server::config_map();
    server.put("upd", json!({"data": {"k": "v"}}));
    let error = server.refused("m1", json!({"data": {"k": "other"}}));
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "upd" using v1: .data.k"#);
    let status = error.status();
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = status.details.expect("causes").causes;
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, r#"conflict with "upd" using v1"#);
    assert_eq!(causes[0].field, ".data.k");

    // The same value is shared ownership. The object did not change, so the new entry has no time and sorts first.
    server.apply("m1", json!({"data": {"k": "v"}}));
    server.check_owners(&[r#"m1 Apply - {"f:data":{"f:k":{}}}"#, r#"upd Update 1s {"f:data":{".":{},"f:k":{}}}"#]);
    server.refused("m1", json!({"data": {"k": "other"}}));
    server.force("m1", json!({"data": {"k": "other"}}));
    server.check_at("/data/k", "other".into());
    server.check_owners(&[r#"m1 Apply 5s {"f:data":{"f:k":{}}}"#, r#"upd Update 1s {"f:data":{}}"#]);
}

#[test]
fn many_conflicts_are_listed_by_manager() {
    let mut server = Server::deployment();
    let spec = |replicas: u32, seconds: u32| json!({"spec": {"replicas": replicas, "minReadySeconds": seconds}});
    server.apply("b", spec(1, 1));
    server.put("c", json!({"spec": {"replicas": 1, "minReadySeconds": 1, "paused": true}}));
    server.through("scale", &[]);
    server.apply("a", json!({"spec": {"replicas": 1}}));
    server.through("", &["status"]);
    let error = server.refused("m", json!({"spec": {"replicas": 2, "minReadySeconds": 2, "paused": false}}));
    let expected = "Apply failed with 4 conflicts: conflicts with \"a\" with subresource \"scale\":\n\
        - .spec.replicas\n\
        conflicts with \"b\":\n\
        - .spec.minReadySeconds\n\
        - .spec.replicas\n\
        conflicts with \"c\" using apps/v1:\n\
        - .spec.paused";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn shared_fields_stay_until_their_last_owner_drops_them() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"data": {"a": "1", "b": "2"}}));
    server.apply("m2", json!({"data": {"a": "1"}}));
    server.check_owners(&[r#"m2 Apply - {"f:data":{"f:a":{}}}"#, r#"m1 Apply 1s {"f:data":{"f:a":{},"f:b":{}}}"#]);
    server.apply("m1", json!({"data": {"b": "2"}}));
    server.check_at("/data", json!({"a": "1", "b": "2"}));
    server.check_owners(&[r#"m2 Apply - {"f:data":{"f:a":{}}}"#, r#"m1 Apply 1s {"f:data":{"f:b":{}}}"#]);
    server.apply("m2", json!({"data": {"x": "y"}}));
    server.check_at("/data", json!({"b": "2", "x": "y"}));
}

#[test]
fn the_last_owner_takes_everything_along() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"data": {"a": "1", "b": "2"}}));
    server.apply("m1", json!({}));
    server.check_at("/data", Value::Null);
    server.check_owners(&[]);
}

#[test]
fn what_an_updater_changed_is_not_taken_back() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"data": {"a": "1", "b": "2"}}));
    server.merge("u", json!({"data": {"a": "z"}}));
    server.check_owners(&[r#"m1 Apply 1s {"f:data":{"f:b":{}}}"#, r#"u Update 2s {"f:data":{"f:a":{}}}"#]);
    server.apply("m1", json!({"data": {"b": "2"}}));
    server.check_at("/data", json!({"a": "z", "b": "2"}));
    let error = server.refused("m1", json!({"data": {"a": "q", "b": "2"}}));
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "u" using v1: .data.a"#);
}

#[test]
fn labels_of_two_managers() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"metadata": {"labels": {"l1": "x"}}, "data": {"a": "1"}}));
    server.apply("m2", json!({"metadata": {"labels": {"l2": "y"}}}));
    server.check_at("/data", json!({"a": "1"}));
    server.check_at("/metadata/labels", json!({"l1": "x", "l2": "y"}));
    server.apply("m1", json!({"metadata": {"labels": {"l3": "x"}}, "data": {"a": "1"}}));
    server.check_at("/metadata/labels", json!({"l2": "y", "l3": "x"}));
}

#[test]
fn null_values_are_owned() {
    let mut server = Server::config_map();
    server.apply("m1", json!({"data": {"a": "1"}}));
    server.apply("m1", json!({"data": {"a": null, "b": "2"}}));
    server.check_at("/data", json!({"a": null, "b": "2"}));
    server.check_owners(&[r#"m1 Apply 2s {"f:data":{"f:a":{},"f:b":{}}}"#]);
}

#[test]
fn a_subresource_ignores_the_rest() {
    let mut server = Server::deployment();
    server.apply("m1", json!({"spec": {"replicas": 1}}));
    server.through("status", &["spec"]);
    server.force("s", json!({"spec": {"replicas": 9}, "status": {"replicas": 1}}));
    server.check_owners(&[
        r#"m1 Apply 1s {"f:spec":{"f:replicas":{}}}"#,
        r#"s Apply/status 2s {"f:status":{"f:replicas":{}}}"#,
    ]);
}

#[test]
fn only_what_matches_can_be_owned() {
    let mut server = Server::builtin("v1", "Pod", "io.k8s.api.core.v1.Pod");
    server.apply("m1", json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let config = server.object(&json!({"spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": "1"}}}]}, "metadata": {"labels": {"x": "y"}}}));
    let now = server.now();
    let object = super::apply(super::Request {
        schema: server.schema,
        live: server.live.as_ref(),
        config: &config,
        manager: "vpa",
        force: false,
        api_version: "v1",
        kind: "Pod",
        subresource: "resize",
        now,
        reset_fields: &[],
        only_fields: &["spec.containers.*.resources"],
        versions: None,
    });
    server.live = Some(object.expect("no conflicts"));
    server.check_owners(&[
        r#"m1 Apply 1s {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}"#,
        r#"vpa Apply/resize 2s {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:resources":{"f:limits":{"f:cpu":{}}}}}}}"#,
    ]);
}

#[test]
fn requests_that_are_refused() {
    let check = |config: Value, code: u16, message: &str| {
        let mut server = Server::config_map();
        let error = server.refused("m1", config);
        assert_eq!((error.status().code, error.to_string().as_str()), (code, message));
    };
    check(json!({"apiVersion": "v2"}), 400, "invalid object type: /v2, Kind=ConfigMap");
    check(json!({"apiVersion": "apps/v1"}), 400, "invalid object type: apps/v1, Kind=ConfigMap");
    check(json!({"apiVersion": null}), 400, "invalid object type: /, Kind=ConfigMap");
    check(json!({"kind": null}), 400, "invalid object type: /v1, Kind=");
    check(json!({"kind": "Secret"}), 400, "invalid object type: /v1, Kind=Secret");
    check(json!({"metadata": {"managedFields": []}}), 400, "metadata.managedFields must be nil");
    let prefix = "failed to create typed patch object (/a; /v1, Kind=ConfigMap):";
    check(json!({"bogus": 1}), 500, &format!("{prefix} .bogus: field not declared in schema"));
    check(
        json!({"bogus": 1, "immutable": "x"}),
        500,
        &format!(
            "{prefix} errors:\n  .bogus: field not declared in schema\n  .immutable: expected boolean, got &{{\"x\"}}"
        ),
    );
    check(json!({"data": []}), 500, &format!("{prefix} .data: expected map, got &{{[]}}"));
    check(
        json!({"metadata": {"finalizers": ["a/b", "a/b"]}}),
        500,
        &format!("{prefix} .metadata.finalizers: duplicate entries for key [=\"a/b\"]"),
    );
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn client_side(data: Value, applied: Value) -> Value {
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": applied});
    json!({"metadata": {"annotations": {LAST_APPLIED: format!("{applied}\n")}}, "data": data})
}

#[test]
fn kubectl_takes_over_what_it_applied_client_side() {
    let mut server = Server::config_map();
    server.put("kubectl-client-side-apply", client_side(json!({"k": "v", "l": "v"}), json!({"k": "v", "l": "old"})));
    // Another manager may not, and neither may kubectl for what has changed since.
    server.refused("other", json!({"data": {"k": "w"}}));
    let error = server.refused("kubectl", json!({"data": {"k": "w", "l": "w"}}));
    let Error::Conflicts(conflicts) = error else { panic!("{error}") };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].path.to_string(), ".data.l");

    server.apply("kubectl", json!({"data": {"k": "w"}}));
    server.check_at("/data", json!({"k": "w", "l": "v"}));
    server.check_at(
        &format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1")),
        "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"w\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}\n".into(),
    );
    server.check_owners(&[
        r#"kubectl Apply 4s {"f:data":{"f:k":{}}}"#,
        concat!(
            r#"kubectl-client-side-apply Update 1s {"f:data":{".":{},"f:l":{}},"#,
            r#""f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}}}}"#
        ),
    ]);
}

#[test]
fn the_annotation_is_only_kept_up_where_it_is() {
    let mut server = Server::config_map();
    server.apply("kubectl", json!({"data": {"k": "v"}}));
    server.check_at("/metadata/annotations", Value::Null);
    let mut server = Server::config_map();
    server.put("kubectl-client-side-apply", client_side(json!({"k": "v"}), json!({"k": "v"})));
    server.force("other", json!({"data": {"k": "<&>"}}));
    let pointer = format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1"));
    assert!(server.at(&pointer).as_str().expect("annotation").contains(r#"{"k":"v"}"#));
    server.force("kubectl", json!({"data": {"k": "<&>"}}));
    assert!(server.at(&pointer).as_str().expect("annotation").contains(r#"{"k":"\u003c\u0026\u003e"}"#));
}
