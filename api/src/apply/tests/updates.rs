//! The books of writes other than apply.

use serde_json::{Value, json};

use super::Server;

fn pod_template() -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "containers": [{
                "name": "c", "image": "registry.example/app:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30},
    })
}

fn deployment() -> Value {
    json!({"spec": {
        "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
        "selector": {"matchLabels": {"app": "a"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": pod_template()}, "status": {}})
}

const DEPLOYMENT_FIELDS: &str = concat!(
    r#"{"f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},"#,
    r#""f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},"#,
    r#""f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"#,
    r#""f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"#,
    r#""f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"#,
    r#""f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"#,
    r#""f:terminationGracePeriodSeconds":{}}}}}"#,
);

/// The fields the creator of an object owns.
#[track_caller]
fn check_created(api_version: &'static str, kind: &'static str, type_name: &str, object: Value, fields: &str) {
    let mut server = Server::builtin(api_version, kind, type_name);
    server.reset_fields = &["status"];
    server.put("m", object);
    let expected = if fields.is_empty() { String::new() } else { format!("m Update 1s {fields}") };
    assert_eq!(server.owners(), expected);
}

#[test]
fn the_creator_owns_what_it_set() {
    let mut server = Server::config_map();
    server.put("my-tool", json!({"data": {"k": "v"}}));
    server.check_owners(&[r#"my-tool Update 1s {"f:data":{".":{},"f:k":{}}}"#]);
    assert_eq!(
        *server.at("/metadata/managedFields/0"),
        json!({"manager": "my-tool", "operation": "Update", "apiVersion": "v1", "time": "2023-11-14T22:13:21Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:k": {}}}})
    );

    let mut server = Server::config_map();
    let metadata = json!({"annotations": {"n": "y"}, "finalizers": ["a.b/c"], "labels": {"l": "x"}});
    server.put("", json!({"metadata": metadata}));
    server.check_owners(&[concat!(
        r#"unknown Update 1s {"f:metadata":{"f:annotations":{".":{},"f:n":{}},"#,
        r#""f:finalizers":{".":{},"v:\"a.b/c\"":{}},"f:labels":{".":{},"f:l":{}}}}"#
    )]);
}

#[test]
fn the_creator_does_not_own_what_every_object_has() {
    check_created("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment", deployment(), DEPLOYMENT_FIELDS);
    let node = json!({"spec": {}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {}}});
    check_created("v1", "Node", "io.k8s.api.core.v1.Node", node, "");
    let policy = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    let name = "io.k8s.api.networking.v1.NetworkPolicy";
    check_created("networking.k8s.io/v1", "NetworkPolicy", name, policy, r#"{"f:spec":{"f:policyTypes":{}}}"#);
    let class = json!({"provisioner": "example.com/p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
    check_created(
        "storage.k8s.io/v1",
        "StorageClass",
        "io.k8s.api.storage.v1.StorageClass",
        class,
        r#"{"f:provisioner":{},"f:reclaimPolicy":{},"f:volumeBindingMode":{}}"#,
    );
    let name = "io.k8s.api.scheduling.v1.PriorityClass";
    let preempts = json!({"value": 0, "preemptionPolicy": "PreemptLowerPriority"});
    check_created("scheduling.k8s.io/v1", "PriorityClass", name, preempts, r#"{"f:preemptionPolicy":{}}"#);
}

#[test]
fn pointers_and_lists_that_are_new_are_owned_themselves() {
    let ingress = json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    check_created(
        "networking.k8s.io/v1",
        "Ingress",
        "io.k8s.api.networking.v1.Ingress",
        ingress,
        r#"{"f:spec":{"f:defaultBackend":{".":{},"f:service":{".":{},"f:name":{},"f:port":{}}}}}"#,
    );
    let autoscaler = json!({"spec": {"maxReplicas": 3, "minReplicas": 1, "metrics": [{"type": "Resource"}],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    check_created(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        autoscaler,
        concat!(
            r#"{"f:spec":{"f:maxReplicas":{},"f:metrics":{},"f:minReplicas":{},"#,
            r#""f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}}"#
        ),
    );
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "x", "volumeMode": "Filesystem"}});
    check_created(
        "v1",
        "PersistentVolumeClaim",
        "io.k8s.api.core.v1.PersistentVolumeClaim",
        claim,
        concat!(
            r#"{"f:spec":{"f:accessModes":{},"f:resources":{"f:requests":{".":{},"f:storage":{}}},"#,
            r#""f:storageClassName":{},"f:volumeMode":{}}}"#
        ),
    );
    let role = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let name = "io.k8s.api.rbac.v1.Role";
    check_created("rbac.authorization.k8s.io/v1", "Role", name, role, r#"{"f:rules":{}}"#);
    let binding = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "none-such"},
        "subjects": [{"kind": "User", "name": "u-x"}]});
    let name = "io.k8s.api.rbac.v1.RoleBinding";
    let fields = r#"{"f:roleRef":{},"f:subjects":{}}"#;
    check_created("rbac.authorization.k8s.io/v1", "RoleBinding", name, binding, fields);
    let quota = json!({"spec": {"hard": {"count/configmaps.example.com": "5"}}});
    let fields = r#"{"f:spec":{"f:hard":{".":{},"f:count/configmaps.example.com":{}}}}"#;
    check_created("v1", "ResourceQuota", "io.k8s.api.core.v1.ResourceQuota", quota, fields);
}

#[test]
fn lists_of_identity_are_owned_by_item() {
    let pod = json!({"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "b"}],
        "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}}],
        "tolerations": [{"key": "x", "operator": "Exists"}]}});
    check_created(
        "v1",
        "Pod",
        "io.k8s.api.core.v1.Pod",
        pod,
        concat!(
            r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"#,
            r#""f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}},"f:name":{},"#,
            r#""f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"#,
            r#""f:resources":{}}},"f:tolerations":{}}}"#
        ),
    );
}

#[test]
fn a_second_manager_owns_what_it_changes() {
    let mut server = Server::config_map();
    server.put("m1", json!({"data": {"k": "v"}}));
    server.put("m2", json!({"data": {"k": "v", "z": "y"}}));
    server.check_owners(&[r#"m1 Update 1s {"f:data":{".":{},"f:k":{}}}"#, r#"m2 Update 2s {"f:data":{"f:z":{}}}"#]);
    // Who removes a field owns nothing by that; who owned it loses it, and its time stays.
    server.put("m3", json!({"data": {"z": "y"}}));
    server.check_owners(&[r#"m1 Update 1s {"f:data":{}}"#, r#"m2 Update 2s {"f:data":{"f:z":{}}}"#]);
    server.put("m3", json!({"data": {"z": "x"}}));
    server.check_owners(&[r#"m1 Update 1s {"f:data":{}}"#, r#"m3 Update 4s {"f:data":{"f:z":{}}}"#]);
}

#[test]
fn a_manager_that_changes_its_own_fields_is_only_stamped() {
    let mut server = Server::config_map();
    server.put("m", json!({"data": {"k": "v", "l": "v"}}));
    server.put("m", json!({"data": {"k": "v", "l": "v"}}));
    server.check_owners(&[r#"m Update 1s {"f:data":{".":{},"f:k":{},"f:l":{}}}"#]);
    server.put("m", json!({"data": {"k": "w", "l": "v"}}));
    server.check_owners(&[r#"m Update 3s {"f:data":{".":{},"f:k":{},"f:l":{}}}"#]);
    server.put("m", json!({"data": {"k": "x"}}));
    server.check_owners(&[r#"m Update 4s {"f:data":{".":{},"f:k":{}}}"#]);
}

#[test]
fn an_empty_list_is_not_null() {
    let name = "io.k8s.api.rbac.v1.Role";
    check_created("rbac.authorization.k8s.io/v1", "Role", name, json!({"rules": []}), r#"{"f:rules":{}}"#);
    check_created("rbac.authorization.k8s.io/v1", "Role", name, json!({"rules": null}), "");
}

#[test]
fn subresources_are_entries_of_their_own() {
    let mut server = Server::deployment();
    server.put("m1", deployment());
    server.through("status", &["spec"]);
    let condition = json!({"type": "Available", "status": "True", "reason": "r", "message": "m",
        "lastTransitionTime": null, "lastUpdateTime": null});
    server.merge("st", json!({"status": {"replicas": 1}}));
    let mut object = server.live.clone().expect("created");
    object["status"]["conditions"] = json!([condition]);
    server.write("st", object);
    server.check_owners(&[
        &format!("m1 Update 1s {DEPLOYMENT_FIELDS}"),
        concat!(
            r#"st Update/status 3s {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"#,
            r#""f:lastTransitionTime":{},"f:lastUpdateTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}}},"#,
            r#""f:replicas":{}}}"#
        ),
    ]);
}

#[test]
fn what_is_reset_is_not_owned() {
    let mut server = Server::deployment();
    let mut object = deployment();
    object["status"] = json!({"replicas": 3});
    server.put("m1", object);
    server.check_owners(&[&format!("m1 Update 1s {DEPLOYMENT_FIELDS}")]);
}

#[test]
fn the_user_can_forget_all_owners() {
    for reset in [json!([{}]), json!([]), json!([{"manager": "", "time": null}])] {
        let mut server = Server::config_map();
        server.put("m1", json!({"data": {"k": "v"}}));
        server.merge("m2", json!({"metadata": {"managedFields": reset}}));
        server.check_at("/metadata/managedFields", Value::Null);
        // An object without owners is not tracked again until it is applied to.
        server.merge("m2", json!({"data": {"k": "w"}}));
        server.check_at("/metadata/managedFields", Value::Null);
        server.apply("m3", json!({"data": {"z": "1"}}));
        server.check_owners(&[
            r#"m3 Apply 4s {"f:data":{"f:z":{}}}"#,
            r#"before-first-apply Update 4s {"f:data":{".":{},"f:k":{}}}"#,
        ]);
    }
}

#[test]
fn null_or_invalid_owners_from_a_client_change_nothing() {
    let invalid = [
        Value::Null,
        json!("x"),
        json!([{"manager": "x", "operation": "Steal", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}]),
        json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {}}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsV1": {}}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2", "fieldsV1": {}}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}]),
        json!([7]),
    ];
    for fields in invalid {
        let mut server = Server::config_map();
        server.put("m1", json!({"data": {"k": "v"}}));
        let mut object = server.live.clone().expect("created");
        object["metadata"]["managedFields"] = fields;
        server.write("m2", object);
        server.check_owners(&[r#"m1 Update 1s {"f:data":{".":{},"f:k":{}}}"#]);
    }
}

#[test]
fn valid_owners_from_a_client_are_taken() {
    let mut server = Server::config_map();
    server.put("m1", json!({"data": {"k": "v"}}));
    let mut object = server.live.clone().expect("created");
    object["metadata"]["managedFields"] = json!([{
        "manager": "other", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:k": {}, "x:unknown": {}}}}]);
    server.write("m2", object);
    server.check_owners(&[r#"other Apply - {"f:data":{"f:k":{}}}"#]);
    // Not through a subresource.
    server.through("status", &[]);
    let mut object = server.live.clone().expect("created");
    object["metadata"]["managedFields"] = json!([]);
    server.write("m2", object);
    server.check_owners(&[r#"other Apply - {"f:data":{"f:k":{}}}"#]);
}

#[test]
fn old_updates_are_merged_beyond_ten() {
    let mut server = Server::config_map();
    let mut data = serde_json::Map::new();
    for i in 0..10 {
        data.insert(format!("k{i}"), "v".into());
        server.put(&format!("m{i}"), json!({"data": data}));
    }
    assert!(!server.owners().contains("ancient-changes"));
    data.insert("k10".into(), "v".into());
    server.put("m10", json!({"data": data}));
    let owners = server.owners();
    assert_eq!(owners.lines().count(), 10);
    assert_eq!(owners.lines().next(), Some(r#"ancient-changes Update 2s {"f:data":{".":{},"f:k0":{},"f:k1":{}}}"#));
    data.insert("k11".into(), "v".into());
    server.put("m11", json!({"data": data}));
    assert_eq!(
        server.owners().lines().next(),
        Some(r#"ancient-changes Update 3s {"f:data":{".":{},"f:k0":{},"f:k1":{},"f:k2":{}}}"#)
    );
}
