//! Pods on a real containerd: from their JSON to running containers, and gone without a trace.

mod support;

use serde_json::json;
use support::{Board, Containerd, Node, busybox_archive};

async fn node(containerd: &Containerd) -> Node {
    let archive = busybox_archive(containerd.directory.path());
    let names = agent::image::import(&containerd.socket(), "k8s.io", &archive).await.unwrap();
    assert_eq!(names, ["localhost/busybox:test"]);
    Node::start(Node::options(containerd, "n1"), Board::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_from_its_json_and_leaves_nothing() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let pod = node.put(
        "web",
        json!({"containers": [{
            "name": "main",
            "command": ["sh", "-c", "echo $GREETING from $(hostname); trap 'exit 0' TERM; while true; do sleep 0.1; done"],
            "env": [{"name": "GREETING", "value": "hello"}],
        }]}),
    );
    let object = node.board.wait_phase("web", "Running").await;
    let status = &object["status"];
    assert_eq!(status["containerStatuses"][0]["ready"], true, "{status:#}");
    assert_eq!(status["qosClass"], "BestEffort");
    assert!(status["podIP"].as_str().unwrap().starts_with("10."), "{status:#}");
    node.delete(&pod, 5);
    let gone = node.board.wait("web", "deleted", |object| object["deleted"] == true).await;
    assert_eq!(gone["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0, "{gone:#}");
    node.pods.reap().await;
    assert!(node.pods.is_empty());
    assert!(node.shared.runtime.list_containers(&[]).await.unwrap().is_empty());
    assert!(!node.shared.paths.pod("uid-web").exists());
    node.stop().await;
}
