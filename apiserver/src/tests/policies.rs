//! Admission policies and rules of definitions, from their creation to what they refuse.

use serde_json::{Value, json};

use super::rig::{Rig, things};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

fn constraints() -> Value {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]});
    json!({"resourceRules": [rule]})
}

/// Creates a policy with a binding.
async fn bind(rig: &Rig, kind: &str, spec: Value, binding: Value) {
    let mut spec = spec;
    spec["matchConstraints"] = constraints();
    let path = format!("{GROUP}/{kind}admissionpolicies");
    rig.post(&path, json!({"metadata": {"name": "policy"}, "spec": spec})).await.expect(201);
    let mut binding = binding;
    binding["policyName"] = "policy".into();
    let path = format!("{GROUP}/{kind}admissionpolicybindings");
    rig.post(&path, json!({"metadata": {"name": "binding"}, "spec": binding})).await.expect(201);
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

async fn refusal(rig: &Rig, name: &str, data: Value) -> Value {
    rig.post(MAPS, config_map(name, data)).await.refused(422, "Invalid")["message"].clone()
}

#[tokio::test]
async fn a_bound_policy_refuses() {
    let rig = Rig::start().await;
    let spec = json!({
        "variables": [{"name": "k", "expression": "object.data[?'k'].orValue('')"}, {"name": "bad", "expression": "variables.k == 'bad'"}],
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "validations": [
            {"expression": "!variables.bad", "messageExpression": "'k of ' + object.metadata.name + ' is ' + variables.k"},
            {"expression": "object.data.size() < 3 || request.userInfo.username == 'nobody'", "message": "too much"},
        ],
    });
    bind(&rig, "validating", spec, json!({"validationActions": ["Deny"]})).await;
    rig.post(MAPS, config_map("good", json!({"k": "v"}))).await.expect(201);
    rig.post(MAPS, config_map("exempt", json!({"k": "bad"}))).await.expect(201);
    let prefix = "ValidatingAdmissionPolicy 'policy' with binding 'binding' denied request:";
    assert_eq!(
        refusal(&rig, "a", json!({"k": "bad"})).await,
        format!("configmaps \"a\" is forbidden: {prefix} k of a is bad")
    );
    assert_eq!(
        refusal(&rig, "a", json!({"a": "", "b": "", "c": ""})).await,
        format!("configmaps \"a\" is forbidden: {prefix} too much")
    );
    // A change of the policy counts at once.
    let spec =
        json!({"spec": {"failurePolicy": "Ignore", "validations": [{"expression": "object.data.missing == 'x'"}]}});
    rig.merge(&format!("{GROUP}/validatingadmissionpolicies/policy"), spec).await.expect(200);
    rig.post(MAPS, config_map("b", json!({"k": "bad"}))).await.expect(201);
    let spec = json!({"spec": {"failurePolicy": "Fail"}});
    rig.merge(&format!("{GROUP}/validatingadmissionpolicies/policy"), spec).await.expect(200);
    assert_eq!(
        refusal(&rig, "c", json!({})).await,
        format!(
            "configmaps \"c\" is forbidden: {prefix} expression 'object.data.missing == 'x'' resulted in error: no such key: data"
        )
    );
}

#[tokio::test]
async fn params_authorizer_and_warnings() {
    let rig = Rig::start().await;
    rig.post(MAPS, config_map("limits", json!({"max": "3"}))).await.expect(201);
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{
            "expression": "object.data[?'n'].orValue('0') <= params.data.max && authorizer.requestResource.check('create').allowed() \
                && authorizer.group('').resource('pods').namespace('ns').check('get').allowed()",
            "message": "too many",
        }],
    });
    let reference = json!({"name": "limits", "namespace": "ns", "parameterNotFoundAction": "Deny"});
    bind(&rig, "validating", spec, json!({"paramRef": reference, "validationActions": ["Warn", "Audit"]})).await;
    rig.post(MAPS, config_map("two", json!({"n": "2"}))).await.expect(201);
    let answer = rig.post(MAPS, config_map("four", json!({"n": "4"}))).await;
    let warning = answer.headers["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains("Validation failed for ValidatingAdmissionPolicy 'policy' with binding 'binding': too many"),
        "{warning}"
    );
    answer.expect(201);
    rig.merge(
        &format!("{GROUP}/validatingadmissionpolicybindings/binding"),
        json!({"spec": {"paramRef": {"name": "none"}}}),
    )
    .await
    .expect(200);
    let message = refusal(&rig, "five", json!({})).await;
    assert!(
        message.as_str().unwrap().ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn a_mutating_policy_changes() {
    let rig = Rig::start().await;
    let mutations = json!([
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'added': 'yes'}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels.added}]"}},
    ]);
    let spec = json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": mutations});
    bind(&rig, "mutating", spec, json!({})).await;
    let body = json!({"metadata": {"name": "a", "labels": {"own": "1"}}, "data": {"k": "v"}});
    let made = rig.post(MAPS, body).await;
    // "/" is no character of a key, and what a policy makes is validated like anything.
    made.refused(422, "Invalid");
    let spec = json!({"spec": {"mutations": [mutations[0], {"patchType": "JSONPatch", "jsonPatch":
        {"expression": "[JSONPatch{op: 'add', path: '/data/seen', value: object.metadata.labels.added}]"}}]}});
    rig.merge(&format!("{GROUP}/mutatingadmissionpolicies/policy"), spec).await.expect(200);
    let body = json!({"metadata": {"name": "a", "labels": {"own": "1"}}, "data": {"k": "v"}});
    let made = rig.post(MAPS, body).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({"added": "yes", "own": "1"}));
    assert_eq!(made["data"], json!({"k": "v", "seen": "yes"}));
}

#[tokio::test]
async fn expressions_of_policies_are_checked() {
    let rig = Rig::start().await;
    let policy = |expression: &str| json!({"metadata": {"name": "policy"}, "spec": {"matchConstraints": constraints(), "validations": [{"expression": expression}]}});
    let path = format!("{GROUP}/validatingadmissionpolicies");
    for (expression, expected) in [
        ("nope == 1", "undeclared reference to 'nope'"),
        ("object.x", "must evaluate to bool but got dyn"),
        ("object.", "compilation failed: ERROR: <input>:1:8: Syntax error"),
        ("params.x == 1", "undeclared reference to 'params'"),
        ("request.nope == 'x'", "undefined field 'nope'"),
    ] {
        let refused = rig.post(&path, policy(expression)).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["causes"][0]["field"], "spec.validations[0].expression");
        assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
    }
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/ns/things";

#[tokio::test]
async fn rules_of_definitions_are_checked() {
    let rig = Rig::start().await;
    let integer = |rule: Value| json!({"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [rule]});
    let list = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}]}});
    for (spec, expected) in [
        (integer(json!({"rule": "self.z == 100"})), "undefined field 'z'"),
        (integer(json!({"rule": "self = 42"})), "Syntax error"),
        (integer(json!({"rule": "self.n"})), "cel expression must evaluate to a bool"),
        (integer(json!({"rule": "true", "messageExpression": "1"})), "messageExpression must evaluate to a string"),
        (integer(json!({"rule": "true", "fieldPath": ".nope"})), "must be a valid path"),
        (json!({"type": "object", "properties": {"x": list}}), "exceeds budget"),
    ] {
        let refused = rig.post(DEFINITIONS, things(spec)).await.refused(422, "Invalid");
        assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn rules_of_definitions_are_run() {
    let rig = Rig::start().await;
    let spec = json!({"type": "object", "properties": {
            "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "only grows"}]},
            "m": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self < 10", "message": "small"}]}},
            "max": {"type": "integer"},
        }, "x-kubernetes-validations": [{"rule": "self.n <= self.max", "messageExpression": "'at most ' + string(self.max)"}]});
    rig.post(DEFINITIONS, things(spec)).await.expect(201);
    let mut revisions = rig.server.server().cache.subscribe();
    while rig.get(THINGS).await.code != 200 {
        revisions.changed().await.unwrap();
    }
    let thing =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    let causes = |status: Value| status["details"]["causes"].clone();
    let refused = rig.post(THINGS, thing(json!({"n": 3, "max": 2}))).await.refused(422, "Invalid");
    assert_eq!(
        causes(refused),
        json!([{"reason": "FieldValueInvalid", "field": "spec", "message": "Invalid value: at most 2"}])
    );
    let refused = rig.post(THINGS, thing(json!({"n": 1, "max": 2, "m": {"b": 20}}))).await.refused(422, "Invalid");
    assert_eq!(
        causes(refused),
        json!([{"reason": "FieldValueInvalid", "field": "spec.m[b]", "message": "Invalid value: 20: small"}])
    );
    let refused = rig.post(THINGS, thing(json!({"n": 1}))).await.refused(422, "Invalid");
    assert!(refused["message"].as_str().unwrap().contains("no such key: max evaluating rule"), "{refused}");
    rig.post(THINGS, thing(json!({"n": 1, "max": 5}))).await.expect(201);
    let path = format!("{THINGS}/a");
    rig.merge(&path, json!({"spec": {"n": 2}})).await.expect(200);
    let refused = rig.merge(&path, json!({"spec": {"n": 1}})).await.refused(422, "Invalid");
    assert_eq!(causes(refused)[0]["message"], "Invalid value: 1: only grows");
}
