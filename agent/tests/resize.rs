//! Resize in place: a running container gets other limits without noticing, waits for what the node has not, and goes
//! on with what it has through an agent's restart.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive};

fn spec(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{
        "name": "main",
        "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}},
        "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        ],
    }]})
}

fn container(object: &Value) -> &Value {
    &object["status"]["containerStatuses"][0]
}

fn pending(object: &Value) -> Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == "PodResizePending").cloned().unwrap_or_default()
}

/// The pod as the server has it: with the status it was told.
fn put(node: &mut Node, spec: Value) -> Arc<Pod> {
    let mut pod = (*node.pod("sized", spec)).clone();
    pod.status = serde_json::from_value(node.board.get("sized")["status"].clone()).unwrap();
    let pod = Arc::new(pod);
    node.pods.put(pod.clone());
    pod
}

/// CPU time per 100 ms in microseconds and memory in bytes, as the container sees its cgroup.
async fn limits(node: &Node) -> (String, String) {
    let read = "cd /sys/fs/cgroup; cat cpu.max memory.max || cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes";
    let text = node.exec("sized", &["sh", "-c", &format!("({read}) 2>/dev/null")]).await;
    let mut lines = text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned());
    (lines.next().unwrap(), lines.next().unwrap())
}

fn mebibytes(count: u64) -> String {
    (count << 20).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_is_resized_in_place() {
    let containerd = Containerd::start();
    let archive = busybox_archive(containerd.directory.path());
    agent::image::import(&containerd.socket(), &containerd.namespace(), &archive).await.unwrap();
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    let board = node.board.clone();
    node.put("sized", spec("100m", "64Mi"));
    let first = board.wait_phase("sized", "Running").await;
    assert_eq!(limits(&node).await, ("10000".to_owned(), mebibytes(64)));

    put(&mut node, spec("200m", "64Mi"));
    let has = |cpu: &'static str| move |object: &Value| container(object)["resources"]["limits"]["cpu"] == cpu;
    let resized = board.wait("sized", "has 200m", has("200m")).await;
    assert_eq!(container(&resized)["containerID"], container(&first)["containerID"], "nothing was restarted");
    assert_eq!(container(&resized)["allocatedResources"]["cpu"], "200m");
    assert_eq!(limits(&node).await, ("20000".to_owned(), mebibytes(64)));

    let asked = spec("1000", "64Mi");
    put(&mut node, asked.clone());
    let waits = board.wait("sized", "waits", |object| pending(object)["reason"] == "Infeasible").await;
    assert_eq!(container(&waits)["allocatedResources"]["cpu"], "200m", "the pod goes on with what it has");

    let options = node.stop().await;
    let mut node = Node::start(options, board.clone()).await;
    put(&mut node, asked);
    node.pods.complete();
    assert_eq!(limits(&node).await, ("20000".to_owned(), mebibytes(64)), "also under the next agent");

    let pod = put(&mut node, spec("100m", "32Mi"));
    let restarted = board.wait("sized", "restarted", |object| container(object)["restartCount"] == 1).await;
    assert_eq!(container(&restarted)["resources"]["limits"]["memory"], "32Mi");
    let settled = board.wait("sized", "settled", |object| pending(object).is_null()).await;
    assert_eq!(container(&settled)["ready"], true);
    assert_eq!(limits(&node).await, ("10000".to_owned(), mebibytes(32)));
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeInfeasible"] {
        assert!(!board.events_with(reason).is_empty(), "{reason} was not told");
    }
    // Room that another pod has taken comes with its end.
    let cores = std::thread::available_parallelism().unwrap().get();
    let other = json!({"containers": [{
        "name": "main", "command": ["sleep", "1000"], "resources": {"requests": {"cpu": format!("{}m", cores * 1000 - 200)}},
    }]});
    let other = node.put("other", other);
    board.wait_phase("other", "Running").await;
    put(&mut node, spec("500m", "32Mi"));
    board.wait("sized", "waits for room", |object| pending(object)["reason"] == "Deferred").await;
    node.delete_and_wait(&other, 1).await;
    board.wait("sized", "has 500m", has("500m")).await;
    assert_eq!(limits(&node).await, ("50000".to_owned(), mebibytes(32)));
    node.delete_and_wait(&pod, 5).await;
    node.end(&containerd).await;
}
