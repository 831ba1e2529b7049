//! What all kinds share: metadata, generations, and what of an object each endpoint writes.
use super::*;

fn config_map(metadata: Value) -> Result<Value, Vec<(String, String)>> {
    create("", "configmaps", json!({"metadata": metadata}))
}

#[test]
fn names_and_labels() {
    assert!(config_map(json!({"name": "a.b-c"})).is_ok());
    refused(config_map(json!({"name": "A_b"})), &[("Invalid", "metadata.name")]);
    refused(config_map(json!({"labels": {"a b": "c"}})), &[("Invalid", "metadata.labels")]);
    refused(config_map(json!({"labels": {"a": "-c"}})), &[("Invalid", "metadata.labels")]);
    refused(config_map(json!({"annotations": {"/x": ""}})), &[("Invalid", "metadata.annotations")]);
    refused(config_map(json!({"annotations": {"a": "x".repeat(256 * 1024)}})), &[("TooLong", "metadata.annotations")]);
    // A namespace is part of host names.
    refused(create("", "namespaces", json!({"metadata": {"name": "a.b"}})), &[("Invalid", "metadata.name")]);
}

#[test]
fn owners() {
    let owner = |uid: &str, controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": controller});
    assert!(config_map(json!({"ownerReferences": [owner("1", true), owner("2", false)]})).is_ok());
    refused(
        config_map(json!({"ownerReferences": [owner("1", true), owner("2", true)]})),
        &[("Invalid", "metadata.ownerReferences")],
    );
    refused(config_map(json!({"ownerReferences": [owner("", false)]})), &[("Invalid", "metadata.ownerReferences.uid")]);
}

#[test]
fn what_an_update_may_not_change() {
    let old = config_map(json!({})).unwrap();
    let changed = update(("", "configmaps", ""), &old, |new| new["metadata"]["uid"] = "2".into());
    refused(changed, &[("Invalid", "metadata.uid")]);
    // These come from the stored object, whatever is sent.
    let kept = update(("", "configmaps", ""), &old, |new| new["metadata"]["creationTimestamp"] = Value::Null).unwrap();
    assert_eq!(kept["metadata"]["creationTimestamp"], NOW);
}

#[test]
fn immutable_data_stays() {
    let old = create("", "configmaps", json!({"immutable": true, "data": {"a": "b"}})).unwrap();
    refused(update(("", "configmaps", ""), &old, |new| new["data"]["a"] = "c".into()), &[("Forbidden", "data")]);
    refused(update(("", "configmaps", ""), &old, |new| new["immutable"] = false.into()), &[("Forbidden", "immutable")]);
}

#[test]
fn generations_count_changes_of_the_spec() {
    let spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    let old = create("apps", "deployments", json!({"spec": spec})).unwrap();
    assert_eq!(old["metadata"]["generation"], 1);
    let target = ("apps", "deployments", "");
    let scaled = update(target, &old, |new| new["spec"]["replicas"] = 3.into()).unwrap();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let labelled = update(target, &old, |new| new["metadata"]["labels"] = json!({"a": "b"})).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    // The status is the subresource's, and the subresource changes nothing else.
    let written = update(target, &old, |new| new["status"] = json!({"replicas": 7})).unwrap();
    assert_eq!(written["status"], old["status"]);
    let status = update(("apps", "deployments", "status"), &old, |new| {
        new["spec"]["replicas"] = 9.into();
        new["status"] = json!({"replicas": 7});
    });
    let status = status.unwrap();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(7)));
}

#[test]
fn namespaces_are_finalized() {
    let made = create("", "namespaces", json!({})).unwrap();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    let kept = update(("", "namespaces", ""), &made, |new| new["spec"]["finalizers"] = json!([])).unwrap();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
    let done = update(("", "namespaces", "finalize"), &made, |new| new["spec"] = json!({})).unwrap();
    assert!(done["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty));
}
