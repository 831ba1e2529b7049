//! Strategic merge patch on the built-in types.

use serde_json::{Value, json};

use crate::patch::{Error, strategic};
use crate::schema::Schemas;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const SERVICE_ACCOUNT: &str = "io.k8s.api.core.v1.ServiceAccount";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const ROLE: &str = "io.k8s.api.rbac.v1.Role";
const POD: &str = "io.k8s.api.core.v1.Pod";

fn patch(type_name: &str, document: &Value, patch: &Value) -> Result<Value, Error> {
    strategic(Schemas::builtin().type_named(type_name).expect("a built-in type"), document, patch)
}

#[track_caller]
fn check(type_name: &str, document: Value, with: Value, expected: Value) {
    assert_eq!(patch(type_name, &document, &with), Ok(expected), "{with}\non {document}");
}

#[track_caller]
fn error(type_name: &str, document: Value, with: Value) -> (u16, String) {
    let error = patch(type_name, &document, &with).expect_err("the patch is refused");
    (error.status().code, error.to_string())
}

fn pod_spec(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

/// A deployment with the given containers, and a patch of them.
#[track_caller]
fn check_containers(before: Value, with: Value, after: Value) {
    check(
        DEPLOYMENT,
        pod_spec(json!({"containers": before})),
        pod_spec(json!({"containers": with})),
        pod_spec(json!({"containers": after})),
    );
}

#[test]
fn lists_merge_by_key() {
    check_containers(
        json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:1"}]),
        json!([{"name": "d", "image": "j:2"}]),
        json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:2"}]),
    );
    check_containers(
        json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:1"}]),
        json!([{"$patch": "delete", "name": "c"}, {"name": "e", "image": "k"}]),
        json!([{"name": "e", "image": "k"}, {"name": "d", "image": "j:1"}]),
    );
}

#[test]
fn a_list_is_replaced_by_directive() {
    check_containers(
        json!([{"name": "c", "image": "i:1"}, {"name": "d"}]),
        json!([{"$patch": "replace"}, {"name": "z", "image": "z"}]),
        json!([{"name": "z", "image": "z"}]),
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    check_containers(
        json!([{"name": "c", "args": ["x", "y"]}]),
        json!([{"name": "c", "args": ["z"]}]),
        json!([{"name": "c", "args": ["z"]}]),
    );
    let rules = |resource: &str| json!({"rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    check(ROLE, rules("pods"), rules("secrets"), rules("secrets"));
}

#[test]
fn new_items_come_before_what_the_server_has() {
    check_containers(
        json!([{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]),
        json!([{"name": "c", "ports": [{"containerPort": 81}, {"containerPort": 80, "name": "web"}]}]),
        json!([{"name": "c", "ports": [
            {"containerPort": 81}, {"containerPort": 80, "name": "web", "protocol": "TCP"}]}]),
    );
    check(
        SERVICE_ACCOUNT,
        json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "p"}]}),
        json!({"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "q"}]}),
        // imagePullSecrets merges in the API's own types, but its recorded strategy is what the schema says.
        json!({"secrets": [{"name": "b"}, {"name": "a"}], "imagePullSecrets": [{"name": "q"}]}),
    );
}

#[test]
fn the_order_is_set_by_directive() {
    check_containers(
        json!([{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
        json!([{"name": "c", "$setElementOrder/env": [{"name": "B"}, {"name": "N"}, {"name": "A"}],
            "env": [{"name": "N", "value": "3"}]}]),
        json!([{"name": "c", "env": [
            {"name": "B", "value": "2"}, {"name": "N", "value": "3"}, {"name": "A", "value": "1"}]}]),
    );
    // Items the directive does not name keep their place relative to what it names.
    check_containers(
        json!([{"name": "c", "env": [{"name": "A"}, {"name": "S"}, {"name": "B"}]}]),
        json!([{"name": "c", "$setElementOrder/env": [{"name": "B"}, {"name": "A"}]}]),
        json!([{"name": "c", "env": [{"name": "S"}, {"name": "B"}, {"name": "A"}]}]),
    );
    // Only the order changes, and a deletion goes along.
    check_containers(
        json!([{"name": "c", "env": [{"name": "A"}, {"name": "B"}, {"name": "C"}]}]),
        json!([{"name": "c", "$setElementOrder/env": [{"name": "C"}, {"name": "A"}],
            "env": [{"$patch": "delete", "name": "B"}]}]),
        json!([{"name": "c", "env": [{"name": "C"}, {"name": "A"}]}]),
    );
}

#[test]
fn new_items_stand_where_deleted_ones_made_room() {
    let env = |names: &[&str]| {
        let env: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!([{"name": "c", "env": env}])
    };
    // S is the server's own: it stays before N, which took the place behind it that B left.
    check_containers(
        env(&["A", "B", "S"]),
        json!([{"name": "c", "$setElementOrder/env": [{"name": "A"}, {"name": "N"}],
            "env": [{"name": "N"}, {"$patch": "delete", "name": "B"}]}]),
        env(&["A", "S", "N"]),
    );
    check_containers(
        env(&["A", "B", "S"]),
        json!([{"name": "c", "$setElementOrder/env": [{"name": "A"}, {"name": "N"}, {"name": "B"}],
            "env": [{"name": "N"}]}]),
        env(&["A", "N", "B", "S"]),
    );
}

#[test]
fn the_order_directive_must_agree_with_the_list() {
    let (code, message) = error(
        DEPLOYMENT,
        pod_spec(json!({"containers": [{"name": "a"}]})),
        pod_spec(json!({
            "$setElementOrder/containers": [{"name": "x"}, {"name": "y"}],
            "containers": [{"name": "y"}, {"name": "x"}]})),
    );
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "The order in patch list:\n[map[name:y] map[name:x]]\n doesn't match $setElementOrder list:\n\
         [map[name:x] map[name:y]]\n"
    );
    let bad = pod_spec(json!({"$setElementOrder": []}));
    assert_eq!(
        error(DEPLOYMENT, pod_spec(json!({})), bad),
        (400, "invalid patch format of setElementOrder list".into())
    );
    let bad = pod_spec(json!({"$setElementOrder/containers": "x"}));
    assert_eq!(
        error(DEPLOYMENT, pod_spec(json!({})), bad),
        (500, "expected a []interface {}, but received a string".into())
    );
    let bad = pod_spec(json!({"$setElementOrder/bogus": []}));
    let unknown = "unable to find api field in struct PodSpec for the json field \"bogus\"";
    assert_eq!(error(DEPLOYMENT, pod_spec(json!({})), bad), (500, unknown.into()));
}

#[test]
fn lists_of_primitives() {
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    check(
        DEPLOYMENT,
        finalizers(&["a/1", "a/2", "a/3"]),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/2", "a/9"]}}),
        finalizers(&["a/1", "a/3"]),
    );
    check(DEPLOYMENT, finalizers(&["a/1", "a/3"]), finalizers(&["a/4"]), finalizers(&["a/4", "a/1", "a/3"]));
    check(DEPLOYMENT, finalizers(&["a/1", "a/3"]), finalizers(&["a/3", "a/3"]), finalizers(&["a/1", "a/3"]));
    check(
        DEPLOYMENT,
        finalizers(&["a/4", "a/1", "a/3"]),
        json!({"metadata": {"$setElementOrder/finalizers": ["a/4", "a/1", "a/3"], "finalizers": []}}),
        finalizers(&["a/4", "a/1", "a/3"]),
    );
    check(
        DEPLOYMENT,
        finalizers(&["a/1", "a/2"]),
        json!({"metadata": {"$setElementOrder/finalizers": ["a/3", "a/1"], "finalizers": ["a/3"],
            "$deleteFromPrimitiveList/finalizers": ["a/2"]}}),
        finalizers(&["a/3", "a/1"]),
    );
    check(
        DEPLOYMENT,
        json!({"metadata": {}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}),
        json!({"metadata": {}}),
    );
    let bad = json!({"metadata": {"$deleteFromPrimitiveListfinalizers": ["x"]}});
    assert_eq!(error(DEPLOYMENT, finalizers(&["a"]), bad), (400, "invalid patch format of primitive list".into()));
    let mixed = json!({"metadata": {"finalizers": ["x", 1]}});
    let message = "list element types are not identical: [[a] [x 1]]";
    assert_eq!(error(DEPLOYMENT, finalizers(&["a"]), mixed), (500, message.into()));
}

#[test]
fn retain_keys() {
    let rolling = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}}});
    check(
        DEPLOYMENT,
        rolling.clone(),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["other"], "type": "Recreate"}}});
    assert_eq!(error(DEPLOYMENT, rolling.clone(), bad), (400, "invalid patch format of retainKeys".into()));
    let bad = json!({"spec": {"strategy": {"$retainKeys": "type"}}});
    assert_eq!(error(DEPLOYMENT, rolling, bad), (400, "invalid patch format of retainKeys".into()));
    let volumes = |volume: Value| json!({"spec": {"volumes": [volume]}});
    check(
        POD,
        volumes(json!({"name": "v", "emptyDir": {}})),
        volumes(json!({"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}})),
        volumes(json!({"name": "v", "hostPath": {"path": "/x"}})),
    );
}

#[test]
fn maps_take_directives_and_nulls() {
    let data = |data: Value| json!({"data": data});
    check(CONFIG_MAP, data(json!({"k": "v"})), data(json!({"k": null, "x": "y"})), data(json!({"x": "y"})));
    check(CONFIG_MAP, data(json!({"k": "v"})), data(Value::Null), json!({}));
    check(CONFIG_MAP, data(json!({"k": "v"})), data(json!({"$patch": "replace", "q": "r"})), data(json!({"q": "r"})));
    check(CONFIG_MAP, data(json!({"k": "v"})), data(json!({"$patch": "delete"})), data(json!({})));
    // Nothing to replace: the directive and all that is with it goes.
    check(CONFIG_MAP, json!({}), data(json!({"$patch": "replace", "q": "r"})), json!({}));
    check(CONFIG_MAP, json!({}), data(json!({"k": null, "x": "y"})), data(json!({"x": "y"})));
    check(CONFIG_MAP, data(json!({"k": "v"})), Value::Null, data(json!({"k": "v"})));
    let bad = data(json!({"$patch": "merge", "q": "r"}));
    let message = "unknown patch type: merge in map: map[$patch:merge q:r]";
    assert_eq!(error(CONFIG_MAP, data(json!({"k": "v"})), bad), (500, message.into()));
}

#[test]
fn items_need_their_merge_key() {
    let before = pod_spec(json!({"containers": [{"name": "c"}]}));
    let bad = pod_spec(json!({"containers": [{"image": "z"}]}));
    let message = "map: map[image:z] does not contain declared merge key: name";
    assert_eq!(error(DEPLOYMENT, before.clone(), bad), (500, message.into()));
    let bad = pod_spec(json!({"containers": [{"$patch": "delete", "image": "z"}]}));
    assert_eq!(error(DEPLOYMENT, before.clone(), bad).0, 500);
    let bad = pod_spec(json!({"containers": [{"$patch": "merge", "name": "c"}]}));
    let message = "merging lists cannot yet be specified in the patch";
    assert_eq!(error(DEPLOYMENT, before, bad), (500, message.into()));
}

#[test]
fn service_ports_merge_by_port() {
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    let a_and_b = ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]));
    check(
        SERVICE,
        a_and_b.clone(),
        ports(json!([{"port": 80, "targetPort": 8080}])),
        ports(json!([{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81}])),
    );
    check(
        SERVICE,
        a_and_b,
        ports(json!([{"$patch": "delete", "port": 81}])),
        ports(json!([{"name": "a", "port": 80}])),
    );
}

#[test]
fn the_patch_must_be_an_object() {
    for (with, kind) in [(json!([1]), "array"), (json!("x"), "string"), (json!(1), "number")] {
        let message = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
        assert_eq!(error(DEPLOYMENT, json!({}), with), (400, message));
    }
}
