//! Subresources and objects that are not stored as they are sent.

use serde_json::{Value, json};

use super::rig::Rig;

const PODS: &str = "/api/v1/namespaces/ns/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";

async fn pod(rig: &Rig, name: &str, node: &str) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "registry.example/c:1"}]});
    if !node.is_empty() {
        spec["nodeName"] = node.into();
    }
    let body = json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec});
    rig.post(PODS, body).await.expect(201)
}

#[tokio::test]
async fn a_scale_is_a_view_of_its_object() {
    let rig = Rig::start().await;
    let template = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]},
    });
    let spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template});
    rig.post(DEPLOYMENTS, json!({"metadata": {"name": "d"}, "spec": spec})).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = rig.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"]["selector"], "app=a");
    rig.merge(&path, json!({"spec": {"replicas": 4}})).await.expect(200);
    assert_eq!(rig.get(&format!("{DEPLOYMENTS}/d")).await.expect(200)["spec"]["replicas"], 4);
    rig.merge(&path, json!({"spec": {"replicas": -1}})).await.refused(422, "Invalid");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let rig = Rig::start().await;
    pod(&rig, "p", "").await;
    let binding =
        json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}});
    rig.post(&format!("{PODS}/p/binding"), binding.clone()).await.expect(201);
    let bound = rig.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
    rig.post(&format!("{PODS}/p/binding"), binding).await.refused(409, "Conflict");
    let unknown = json!({"metadata": {"name": "q"}, "target": {"kind": "Node", "name": "n"}});
    rig.post(&format!("{PODS}/q/binding"), unknown).await.refused(404, "NotFound");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let rig = Rig::start().await;
    pod(&rig, "p", "n").await;
    let path = format!("{PODS}/p/status");
    let patch = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "other"}});
    let written = rig.merge(&path, patch).await.expect(200);
    assert_eq!((&written["status"]["phase"], &written["spec"]["nodeName"]), (&json!("Running"), &json!("n")));
    let written = rig.merge(&format!("{PODS}/p"), json!({"status": {"phase": "Failed"}})).await.expect(200);
    assert_eq!(written["status"]["phase"], "Running");
}

#[tokio::test]
async fn evictions_ask_the_budget() {
    let rig = Rig::start().await;
    pod(&rig, "p", "n").await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    rig.merge(&format!("{PODS}/p/status"), ready).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/ns/poddisruptionbudgets";
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}});
    rig.post(budgets, json!({"metadata": {"name": "b"}, "spec": spec})).await.expect(201);
    let allow = async |count: i64| {
        let status = json!({
            "disruptionsAllowed": count, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 1,
        });
        rig.merge(&format!("{budgets}/b/status"), json!({"status": status})).await.expect(200);
    };
    let eviction = json!({"metadata": {"name": "p", "namespace": "ns"}});
    allow(0).await;
    rig.post(&format!("{PODS}/p/eviction"), eviction.clone()).await.refused(429, "TooManyRequests");
    allow(1).await;
    rig.post(&format!("{PODS}/p/eviction"), eviction).await.expect(201);
    let budget = rig.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(rig.get(&format!("{PODS}/p")).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn pods_are_deleted_gracefully_by_their_node() {
    let rig = Rig::start().await;
    pod(&rig, "p", "n").await;
    let path = format!("{PODS}/p");
    let marked = rig.delete(&format!("{path}?gracePeriodSeconds=10")).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 10);
    rig.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    rig.get(&path).await.refused(404, "NotFound");
}
