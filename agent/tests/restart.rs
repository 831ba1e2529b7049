//! Fail-static: agents and containerd come and go, pods stay as they are.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive};

async fn image(containerd: &Containerd) {
    let archive = busybox_archive(containerd.directory.path());
    agent::image::import(&containerd.socket(), &containerd.namespace(), &archive).await.unwrap();
}

fn counting() -> Value {
    json!({"containers": [{"name": "main", "command": [
        "sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done",
    ]}]})
}

/// Lines `line 0`, `line 1`, … without a gap.
fn assert_unbroken(output: &str) {
    for (number, line) in output.lines().enumerate() {
        assert_eq!(line, format!("line {number}"), "in\n{output}");
    }
}

/// Reads the log until it is longer than it was.
async fn grows(node: &Node, than: usize) {
    let longer = async {
        while node.log("count", "main", 0).len() <= than {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, longer).await.expect("the log grows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_running_pods_back_without_touching_them() {
    let containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("count", counting());
    node.board.wait_phase("count", "Running").await;
    let (id, board) = (node.container_id("count"), node.board.clone());
    let pid = node.shared.runtime.task(&id).await.unwrap().unwrap().pid;
    grows(&node, 100).await;
    let status = board.get("count")["status"].clone();
    let options = node.stop().await;

    let mut node = Node::start(options, board.clone()).await;
    let mut pod = (*node.pod("count", counting())).clone();
    pod.status = serde_json::from_value(status.clone()).unwrap();
    node.pods.put(std::sync::Arc::new(pod.clone()));
    node.pods.complete();
    grows(&node, node.log("count", "main", 0).len()).await;
    assert_eq!(node.shared.runtime.task(&id).await.unwrap().unwrap().pid, pid);
    assert_eq!(board.get("count")["status"], status, "nothing changed, so nothing is told");
    assert_unbroken(&node.output("count", "main", 0));
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_no_agent_ran_is_found() {
    let containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["sleep", "1000"]}]});
    node.put("short", spec.clone());
    node.board.wait_phase("short", "Running").await;
    let (id, board) = (node.container_id("short"), node.board.clone());
    let options = node.stop().await;
    let runtime = containerd.runtime();
    runtime.kill_task(&id, 9, true).await.unwrap();
    runtime.wait_task(&id).await.unwrap();

    let mut node = Node::start(options, board).await;
    node.put("short", spec);
    node.pods.complete();
    let object = node.board.wait_phase("short", "Failed").await;
    assert_eq!(object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_deleted_while_no_agent_ran_are_removed() {
    let containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("left", json!({"containers": [{"name": "main", "command": ["sleep", "1000"]}]}));
    node.board.wait_phase("left", "Running").await;
    let board = node.board.clone();
    let options = node.stop().await;

    let mut node = Node::start(options, board).await;
    node.pods.complete();
    node.pods.reap().await;
    assert!(node.pods.is_empty());
    assert!(containerd.runtime().list_containers(&[]).await.unwrap().is_empty());
    assert!(!node.shared.paths.pod("uid-left").exists());
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_may_crash_under_running_pods() {
    let mut containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    let pod = node.put("count", counting());
    node.board.wait_phase("count", "Running").await;
    let id = node.container_id("count");
    let pid = node.shared.runtime.task(&id).await.unwrap().unwrap().pid;
    containerd.restart();
    grows(&node, node.log("count", "main", 0).len()).await;
    assert_eq!(containerd.runtime().task(&id).await.unwrap().unwrap().pid, pid);
    // Ends are heard again.
    containerd.runtime().kill_task(&id, 9, true).await.unwrap();
    node.board
        .wait("count", "restarted", |object| {
            let status = &object["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && !status["state"]["running"].is_null()
        })
        .await;
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}
