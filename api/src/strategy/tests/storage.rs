//! Storage, secrets and roles.
use super::*;

#[test]
fn claims() {
    let claim = |spec: Value| create("", "persistentvolumeclaims", json!({"spec": spec}));
    let good = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "s"});
    let made = claim(good.clone()).unwrap();
    assert_eq!((&made["spec"]["volumeMode"], &made["status"]["phase"]), (&json!("Filesystem"), &json!("Pending")));
    refused(claim(json!({"resources": {"requests": {"storage": "1Gi"}}})), &[("Required", "spec.accessModes")]);
    refused(claim(json!({"accessModes": ["ReadWriteOnce"]})), &[("Required", "spec.resources[storage]")]);
    // The size may grow once the claim is bound; nothing else changes.
    let grown = |new: &mut Value| new["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    refused(update(("", "persistentvolumeclaims", ""), &made, grown), &[("Forbidden", "spec")]);
    let mut bound = made.clone();
    bound["status"]["phase"] = "Bound".into();
    bound["spec"]["volumeName"] = "v".into();
    assert!(update(("", "persistentvolumeclaims", ""), &bound, grown).is_ok());
}

#[test]
fn classes() {
    let class = |fields: Value| {
        let mut object = json!({"provisioner": "example.com/p"});
        object.as_object_mut().unwrap().append(fields.as_object().cloned().as_mut().unwrap());
        create("storage.k8s.io", "storageclasses", object)
    };
    let made = class(json!({})).unwrap();
    assert_eq!((&made["reclaimPolicy"], &made["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    refused(class(json!({"reclaimPolicy": "Recycle"})), &[("NotSupported", "reclaimPolicy")]);
}

#[test]
fn secrets() {
    let made = create("", "secrets", json!({"stringData": {"a": "b"}})).unwrap();
    assert_eq!((&made["type"], &made["data"]["a"]), (&json!("Opaque"), &json!("Yg==")));
    assert!(made.get("stringData").is_none());
    refused(update(("", "secrets", ""), &made, |new| new["type"] = "other".into()), &[("Invalid", "type")]);
    refused(
        create("", "secrets", json!({"type": "kubernetes.io/tls", "data": {}})),
        &[("Required", "data[tls.crt]"), ("Required", "data[tls.key]")],
    );
}

#[test]
fn roles_and_bindings() {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = |rule: Value| create(GROUP, "roles", json!({"rules": [rule]}));
    assert!(role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})).is_ok());
    refused(role(json!({"apiGroups": [""], "resources": ["pods"]})), &[("Required", "rules[0].verbs")]);
    let binding = |name: &str| {
        let role = json!({"apiGroup": GROUP, "kind": "Role", "name": name});
        create(GROUP, "rolebindings", json!({"roleRef": role, "subjects": [{"kind": "User", "name": "u"}]}))
    };
    let made = binding("r").unwrap();
    assert_eq!(made["subjects"][0]["apiGroup"], GROUP);
    refused(binding(""), &[("Required", "roleRef.name")]);
    let moved = update((GROUP, "rolebindings", ""), &made, |new| new["roleRef"]["name"] = "q".into());
    refused(moved, &[("Invalid", "roleRef")]);
}
