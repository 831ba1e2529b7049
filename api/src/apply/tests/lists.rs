//! Applying lists: by key, as sets, and atomic ones.

use serde_json::{Value, json};

use super::Server;

fn containers(containers: Value) -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers}}}})
}

const CONTAINERS: &str = "/spec/template/spec/containers";

#[test]
fn containers_merge_by_name() {
    let mut server = Server::deployment();
    server.apply("m1", containers(json!([{"name": "c", "image": "i:1"}])));
    server.apply("m2", containers(json!([{"name": "d", "image": "i:2"}])));
    server.check_at(CONTAINERS, json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:2"}]));
    server.apply("m1", containers(json!([{"name": "c", "image": "i:1", "args": ["x", "y"]}])));
    let error = server.refused("m2", containers(json!([{"name": "c", "image": "i:9"}])));
    let path = r#".spec.template.spec.containers[name="c"].image"#;
    assert_eq!(error.to_string(), format!("Apply failed with 1 conflict: conflict with \"m1\": {path}"));
    server.apply("m2", containers(json!([{"name": "c", "image": "i:1"}])));
    server.check_at(CONTAINERS, json!([{"name": "c", "image": "i:1", "args": ["x", "y"]}]));
    let common = r#""f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":"#;
    server.check_owners(&[
        &format!(
            "m1 Apply 3s {{\"f:spec\":{{{common}{}}}}}}}}}",
            r#"{"k:{\"name\":\"c\"}":{".":{},"f:args":{},"f:image":{},"f:name":{}}}"#
        ),
        &format!(
            "m2 Apply 5s {{\"f:spec\":{{{common}{}}}}}}}}}",
            r#"{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}"#
        ),
    ]);
}

#[test]
fn nested_lists_merge_too() {
    let env = |pairs: &[(&str, &str)]| {
        let env: Vec<Value> = pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        containers(json!([{"name": "c", "env": env}]))
    };
    let mut server = Server::deployment();
    server.apply("m1", env(&[("A", "1"), ("B", "2")]));
    server.apply("m2", env(&[("C", "3")]));
    server.check_at(
        &format!("{CONTAINERS}/0/env"),
        json!([
        {"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]),
    );
    server.apply("m1", env(&[("B", "2")]));
    server.check_at(&format!("{CONTAINERS}/0/env"), json!([{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]));
}

#[test]
fn atomic_lists_are_owned_as_one() {
    let mut server = Server::deployment();
    server.apply("m1", containers(json!([{"name": "c", "args": ["a"]}])));
    let error = server.refused("m2", containers(json!([{"name": "c", "args": ["a", "b"]}])));
    let path = r#".spec.template.spec.containers[name="c"].args"#;
    assert_eq!(error.to_string(), format!("Apply failed with 1 conflict: conflict with \"m1\": {path}"));
    server.force("m2", containers(json!([{"name": "c", "args": ["a", "b"]}])));
    server.check_at(&format!("{CONTAINERS}/0/args"), json!(["a", "b"]));
}

#[test]
fn keys_that_are_left_out_have_their_default() {
    let mut server = Server::service();
    server.apply("m1", json!({"spec": {"ports": [{"name": "h", "port": 80}], "selector": {"a": "b"}}}));
    server.check_owners(&[concat!(
        r#"m1 Apply 1s {"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}},"#,
        r#""f:selector":{}}}"#
    )]);
    // The server defaults the protocol; the item is the same one.
    server.merge("defaulting", json!({"spec": {"ports": [{"name": "h", "port": 80, "protocol": "TCP"}]}}));
    server.apply("m2", json!({"spec": {"ports": [{"name": "s", "port": 443}]}}));
    server.apply("m1", json!({"spec": {"ports": [{"name": "h", "port": 80, "targetPort": 8080}]}}));
    server.check_at("/spec/selector", Value::Null);
    server.check_at(
        "/spec/ports",
        json!([
        {"name": "h", "port": 80, "protocol": "TCP", "targetPort": 8080}, {"name": "s", "port": 443}]),
    );
}

#[test]
fn conditions_of_two_managers() {
    let condition = |name: &str| json!({"status": {"conditions": [{"type": name, "status": "True"}]}});
    let mut server = Server::deployment();
    server.put("creator", json!({"spec": {}}));
    server.through("status", &["spec"]);
    server.apply("s1", condition("A"));
    server.apply("s2", condition("B"));
    server.check_at("/status/conditions/0/type", "A".into()).check_at("/status/conditions/1/type", "B".into());
    server.apply("s1", json!({"status": {}}));
    server.check_at("/status/conditions", json!([{"type": "B", "status": "True"}]));
}

#[test]
fn sets_merge_by_value() {
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    let mut server = Server::config_map();
    server.apply("m1", finalizers(&["a/1", "a/2"]));
    server.apply("m2", finalizers(&["a/2", "a/3"]));
    server.check_at("/metadata/finalizers", json!(["a/1", "a/2", "a/3"]));
    server.apply("m1", finalizers(&["a/1"]));
    server.check_at("/metadata/finalizers", json!(["a/1", "a/2", "a/3"]));
    server.apply("m2", finalizers(&["a/3"]));
    server.check_at("/metadata/finalizers", json!(["a/1", "a/3"]));
    server.check_owners(&[
        r#"m1 Apply 1s {"f:metadata":{"f:finalizers":{"v:\"a/1\"":{}}}}"#,
        r#"m2 Apply 4s {"f:metadata":{"f:finalizers":{"v:\"a/3\"":{}}}}"#,
    ]);
}

#[test]
fn the_applied_order_wins_where_it_says_something() {
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    let check = |live: &[&str], applied: &[&str], expected: &[&str]| {
        let mut server = Server::config_map();
        server.put("u", finalizers(live));
        server.apply("m", finalizers(applied));
        server.check_at("/metadata/finalizers", json!(expected));
    };
    check(&["a", "b", "c"], &["c", "b", "a"], &["c", "b", "a"]);
    check(&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]);
    check(&["a", "b", "c"], &["b"], &["a", "b", "c"]);
    check(&["a", "b"], &["x", "b"], &["a", "x", "b"]);
    check(&["a", "b"], &["x", "a", "y"], &["x", "a", "b", "y"]);
    check(&["a"], &[], &["a"]);
}

#[test]
fn repeated_items_on_the_server_are_one() {
    let env = |env: Value| containers(json!([{"name": "c", "env": env}]));
    let mut server = Server::deployment();
    server.put("u", env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])));
    assert!(server.owners().contains(r#""f:env":{".":{},"k:{\"name\":\"A\"}":{}}"#), "{}", server.owners());
    server.apply("m", env(json!([{"name": "B", "value": "3"}])));
    server.check_at(
        &format!("{CONTAINERS}/0/env"),
        json!([
        {"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "3"}]),
    );
    server.force("m", env(json!([{"name": "A", "value": "4"}])));
    server.check_at(&format!("{CONTAINERS}/0/env"), json!([{"name": "A", "value": "4"}]));
}

#[test]
fn atomic_structs_are_owned_as_one() {
    let mut server =
        Server::builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "io.k8s.api.rbac.v1.ClusterRoleBinding");
    let binding = |user: &str| {
        json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "none-such"},
            "subjects": [{"kind": "User", "name": user}]})
    };
    server.apply("m1", binding("u-x"));
    server.check_owners(&[r#"m1 Apply 1s {"f:roleRef":{},"f:subjects":{}}"#]);
    let error = server.refused("m2", binding("zz"));
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m1\": .subjects");
}

#[test]
fn emptied_containers_go_with_their_owner() {
    let volume = |volumes: Value| json!({"spec": {"template": {"spec": {"volumes": volumes}}}});
    let mut server = Server::deployment();
    server.apply("m1", volume(json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])));
    server.apply("m2", volume(json!([{"name": "w", "configMap": {"name": "x"}}])));
    server.apply("m1", volume(json!([{"name": "v", "emptyDir": {}}])));
    server.check_at("/spec/template/spec/volumes/0", json!({"name": "v", "emptyDir": {}}));
    server.apply("m1", json!({"spec": {}}));
    server.check_at("/spec/template/spec/volumes", json!([{"name": "w", "configMap": {"name": "x"}}]));
}
