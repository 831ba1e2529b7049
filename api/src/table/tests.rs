//! Rows of objects as recorded from a reference server, and that every built-in resource has as many cells as columns.

use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;

fn row(group: &str, resource: &str, object: Value) -> Value {
    builtin(group, resource, &object, "2026-01-01T00:01:00Z".parse().unwrap()).into()
}

fn meta_a() -> Value {
    json!({"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"})
}

#[test]
fn as_many_cells_as_columns() {
    let object = json!({"metadata": meta_a()});
    for resource in Catalogue::builtin().iter().filter(|r| !r.columns.is_empty()) {
        let cells = cells(resource, &object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), resource.columns.len(), "{} {}", resource.group, resource.plural);
    }
}

#[test]
fn pods() {
    let pod = |status: Value| {
        row("", "pods", json!({"metadata": meta_a(), "spec": {"containers": [{"name": "c"}]}, "status": status}))
    };
    let waiting = json!({"phase": "Pending", "containerStatuses": [
        {"name": "c", "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
    assert_eq!(
        pod(waiting),
        json!(["a", "0/1", "ImagePullBackOff", "0", "60s", "<none>", "<none>", "<none>", "<none>"])
    );
    let restarted = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
        {"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
         "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:30Z"}}}]});
    assert_eq!(
        pod(restarted),
        json!(["a", "1/1", "Running", "2 (30s ago)", "60s", "10.0.0.1", "<none>", "<none>", "<none>"])
    );
    let done = json!({"phase": "Succeeded", "containerStatuses": [
        {"name": "c", "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
    assert_eq!(pod(done.clone())[2], "Completed");
    let catalogue = Catalogue::builtin();
    let pods = catalogue.find("", "v1", "pods").expect("pods are built in");
    assert_eq!(conditions(pods, &json!({"status": done}))[0]["reason"], "Succeeded");
}

#[test]
fn pods_that_initialize() {
    let pod = |status: Value| {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        row("", "pods", json!({"metadata": meta_a(), "spec": spec, "status": status}))
    };
    let first = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"running": {}}}]});
    assert_eq!(pod(first)[2], "Init:0/2");
    let failed = json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 3}}}]});
    assert_eq!(pod(failed)[2], "Init:ExitCode:3");
    let sidecar = json!({"phase": "Running", "initContainerStatuses": [
        {"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
        {"name": "s", "restartCount": 0, "ready": true, "started": true, "state": {"running": {}}}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    assert_eq!(pod(sidecar)[1], "2/2");
}

#[test]
fn workloads() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "a"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}});
    let status = json!({"readyReplicas": 1, "updatedReplicas": 2});
    assert_eq!(
        row("apps", "deployments", json!({"metadata": meta_a(), "spec": spec, "status": status})),
        json!(["a", "1/3", 2, 0, "60s", "c,d", "i,j", "app=a"])
    );
    let job = json!({"metadata": meta_a(), "spec": {"completions": 2, "selector": {"matchExpressions": [
        {"key": "x", "operator": "In", "values": ["b", "a"]}]}}, "status": {"succeeded": 1,
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:10Z"}});
    assert_eq!(row("batch", "jobs", job), json!(["a", "Running", "1/2", "10s", "60s", "", "", "x in (a,b)"]));
}

#[test]
fn services_and_nodes() {
    let spec = json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"app": "a"},
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
    assert_eq!(
        row("", "services", json!({"metadata": meta_a(), "spec": spec})),
        json!(["a", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP", "60s", "app=a"])
    );
    let node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
            "nodeInfo": {"kubeletVersion": "v1", "kernelVersion": "6", "architecture": "amd64"}}});
    assert_eq!(
        row("", "nodes", node),
        json!([
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "60s",
            "v1",
            "1.2.3.4",
            "<none>",
            "<unknown>",
            "6 (amd64)",
            "<unknown>"
        ])
    );
}
