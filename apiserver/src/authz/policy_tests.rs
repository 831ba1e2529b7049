//! Evaluation tables: who may do what through which binding, and that changes take effect and go away again.

use serde_json::json;

use super::*;

fn role(namespace: &str, name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({"metadata":{"namespace":namespace,"name":name},
           "rules":[{"verbs":verbs,"apiGroups":[""],"resources":resources}]})
}

fn binding(namespace: &str, name: &str, role_kind: &str, role: &str, subjects: Value) -> Value {
    json!({"metadata":{"namespace":namespace,"name":name},
           "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":role_kind,"name":role},"subjects":subjects})
}

fn user(name: &str, groups: &[&str]) -> User {
    User::new(name, groups)
}

fn ask<'a>(user: &'a User, verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes {
        user,
        resource_request: true,
        verb,
        group: "",
        version: "v1",
        resource,
        subresource: "",
        namespace,
        name: "",
        path: "",
        field_selector: "",
    }
}

fn sample() -> Policy {
    let objects = [
        (Kind::ClusterRole, role("", "reader", &["get", "list"], &["pods", "nodes"])),
        (Kind::Role, role("ns1", "writer", &["create"], &["pods"])),
        (Kind::ClusterRoleBinding, binding("", "ops", "ClusterRole", "reader", json!([{"kind":"Group","name":"ops"}]))),
        (
            Kind::RoleBinding,
            binding(
                "ns1",
                "w",
                "Role",
                "writer",
                json!([{"kind":"User","name":"jane"},{"kind":"ServiceAccount","name":"bot"},
                       {"kind":"ServiceAccount","name":"far","namespace":"ns2"}]),
            ),
        ),
        (Kind::RoleBinding, binding("ns1", "r", "ClusterRole", "reader", json!([{"kind":"User","name":"jane"}]))),
        (Kind::RoleBinding, binding("ns1", "broken", "Role", "nowhere", json!([{"kind":"User","name":"lost"}]))),
    ];
    from_objects(objects.iter().map(|(k, v)| (*k, v)))
}

#[test]
fn bindings_apply_to_their_subjects_in_their_scope() {
    let policy = sample();
    let table: &[(&str, &[&str], &str, &str, &str, bool)] = &[
        ("jane", &[], "create", "pods", "ns1", true),
        ("jane", &[], "create", "pods", "ns2", false),
        ("jane", &[], "create", "pods", "", false),
        ("jane", &[], "list", "pods", "ns1", true),
        ("jane", &[], "list", "nodes", "", false),
        ("joe", &["ops"], "list", "nodes", "", true),
        ("joe", &["ops"], "list", "pods", "ns9", true),
        ("joe", &["ops"], "create", "pods", "ns1", false),
        ("ops", &[], "list", "nodes", "", false),
        ("system:serviceaccount:ns1:bot", &[], "create", "pods", "ns1", true),
        ("system:serviceaccount:ns2:bot", &[], "create", "pods", "ns1", false),
        ("system:serviceaccount:ns2:far", &[], "create", "pods", "ns1", true),
    ];
    for (name, groups, verb, resource, namespace, wanted) in table {
        let user = user(name, groups);
        let decided = policy.allows(&ask(&user, verb, resource, namespace));
        assert_eq!(decided.is_ok(), *wanted, "{name} {groups:?} {verb} {resource} {namespace}: {decided:?}");
    }
}

#[test]
fn reasons_name_the_binding() {
    let policy = sample();
    let jane = user("jane", &[]);
    let reason = policy.allows(&ask(&jane, "create", "pods", "ns1")).unwrap();
    assert_eq!(reason, r#"RBAC: allowed by RoleBinding "w/ns1" of Role "writer" to User "jane""#);
    let joe = user("joe", &["ops"]);
    let reason = policy.allows(&ask(&joe, "get", "pods", "ns1")).unwrap();
    assert_eq!(reason, r#"RBAC: allowed by ClusterRoleBinding "ops" of ClusterRole "reader" to Group "ops""#);
    let lost = user("lost", &[]);
    let why = policy.allows(&ask(&lost, "get", "pods", "ns1")).unwrap_err();
    assert_eq!(why, r#"RBAC: role.rbac.authorization.k8s.io "nowhere" not found"#);
}

#[test]
fn changes_take_effect_and_older_snapshots_stay() {
    let before = sample();
    let jane = user("jane", &[]);
    let key = ObjectKey::new("ns1", "w");
    let after = before.with(Kind::RoleBinding, &key, None);
    assert!(before.allows(&ask(&jane, "create", "pods", "ns1")).is_ok());
    assert!(after.allows(&ask(&jane, "create", "pods", "ns1")).is_err());
    let other = binding("ns1", "w", "Role", "writer", json!([{"kind":"Group","name":"team"}]));
    let again = after.with(Kind::RoleBinding, &key, Some(&other));
    assert!(again.allows(&ask(&jane, "create", "pods", "ns1")).is_err());
    assert!(again.allows(&ask(&user("x", &["team"]), "create", "pods", "ns1")).is_ok());
    let emptied = again.with(Kind::Role, &ObjectKey::new("ns1", "writer"), Some(&role("ns1", "writer", &[], &[])));
    assert!(emptied.allows(&ask(&user("x", &["team"]), "create", "pods", "ns1")).is_err());
}

#[test]
fn one_users_check_does_not_depend_on_other_bindings() {
    let mut policy = sample();
    for index in 0..2_000 {
        let name = format!("b{index}");
        let object = binding("ns1", &name, "Role", "writer", json!([{"kind":"User","name":format!("u{index}")}]));
        policy = policy.with(Kind::RoleBinding, &ObjectKey::new("ns1", name), Some(&object));
    }
    let mut visited = 0;
    policy.visit(&user("u7", &[]), "ns1", |_| {
        visited += 1;
        true
    });
    assert_eq!(visited, 1);
}
