//! Fail-static: agents and containerd come and go, pods stay as they are.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
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

/// Pods of the same name have the same uid here, and the host's end of a pod's network is named after that: tests that ran
/// side by side would take each other's interfaces away.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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
    let _alone = ALONE.lock().await;
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
    let _alone = ALONE.lock().await;
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
    let _alone = ALONE.lock().await;
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
    let _alone = ALONE.lock().await;
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

/// The pod as the server has it, with the status it was told.
fn with_status(node: &Node, name: &str, spec: Value) -> Arc<Pod> {
    let mut pod = (*node.pod(name, spec)).clone();
    pod.status = serde_json::from_value(node.board.get(name)["status"].clone()).unwrap();
    Arc::new(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_pods_are_made_again() {
    let _alone = ALONE.lock().await;
    let mut containerd = Containerd::start();
    image(&containerd).await;
    let never = json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["sleep", "1000"]}]});
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("count", counting());
    node.put("once", never.clone());
    node.board.wait_phase("count", "Running").await;
    node.board.wait_phase("once", "Running").await;
    let (board, before) = (node.board.clone(), node.container_id("count"));
    let options = node.stop().await;
    containerd.reboot();

    let mut node = Node::start(options, board).await;
    let pod = with_status(&node, "count", counting());
    node.pods.put(pod.clone());
    let once = with_status(&node, "once", never);
    node.pods.put(once.clone());
    node.pods.complete();
    let object = node
        .board
        .wait("count", "restarted", |object| {
            let status = &object["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && status["ready"] == true
        })
        .await;
    let status = &object["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 255, "{status:#}");
    assert_eq!(status["lastState"]["terminated"]["reason"], "Unknown", "{status:#}");
    assert_ne!(node.container_id("count"), before);
    // Its namespaces and address are there again, with a way out.
    assert!(node.exec("count", &["ip", "route"]).await.contains("default via"));
    let object = node.board.wait_phase("once", "Failed").await;
    assert_eq!(object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 255);
    node.delete_and_wait(&pod, 1).await;
    node.delete_and_wait(&once, 1).await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_records_are_lost_go_on() {
    let _alone = ALONE.lock().await;
    let containerd = Containerd::start();
    image(&containerd).await;
    let shared = json!({"shareProcessNamespace": true, "containers": [{"name": "main", "command": ["sleep", "1000"]}]});
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("count", counting());
    node.put("shared", shared.clone());
    node.board.wait_phase("count", "Running").await;
    node.board.wait_phase("shared", "Running").await;
    let (board, id) = (node.board.clone(), node.container_id("count"));
    let pid = node.shared.runtime.task(&id).await.unwrap().unwrap().pid;
    let address = board.get("count")["status"]["podIP"].as_str().unwrap().to_owned();
    let options = node.stop().await;
    // One record is gone, one is of a later version.
    let pods = options.state_dir.join("pods");
    std::fs::remove_file(pods.join("uid-count/sandbox.json")).unwrap();
    std::fs::remove_file(pods.join("uid-shared/ns/pid.pid")).unwrap();
    std::fs::write(pods.join("uid-shared/sandbox.json"), r#"{"version": 1000}"#).unwrap();
    std::fs::remove_dir_all(options.state_dir.join("addresses")).unwrap();

    let mut node = Node::start(options, board).await;
    let (count, shared) = (with_status(&node, "count", counting()), with_status(&node, "shared", shared));
    node.pods.put(count.clone());
    node.pods.put(shared.clone());
    node.pods.complete();
    // A new pod does not get the address of a running one.
    let new = node.put("new", json!({"containers": [{"name": "main", "command": ["sleep", "1000"]}]}));
    let new_object = node.board.wait_phase("new", "Running").await;
    assert_ne!(new_object["status"]["podIP"], address.as_str());
    assert!(node.shared.paths.addresses().join(&address).exists());
    let task = node.shared.runtime.task(&id).await.unwrap().unwrap();
    assert_eq!(task.pid, pid, "nothing was started again");
    // A restarted container joins the old one's network.
    containerd.runtime().kill_task(&id, 9, true).await.unwrap();
    let object = node
        .board
        .wait("count", "restarted", |object| {
            let status = &object["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && !status["state"]["running"].is_null()
        })
        .await;
    assert_eq!(object["status"]["podIP"], address.as_str());
    let shown = node.exec("count", &["ip", "addr"]).await;
    assert!(shown.contains(&address), "{address} in {shown}");
    for pod in [count, shared, new] {
        node.delete_and_wait(&pod, 1).await;
    }
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ran_and_is_lost_counts_as_a_restart() {
    let _alone = ALONE.lock().await;
    let mut containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("count", counting());
    node.board.wait_phase("count", "Running").await;
    let board = node.board.clone();
    let options = node.stop().await;
    containerd.reboot();
    // The same boot: somebody killed the shim while containerd was down.
    std::fs::write(containerd.boot_id_file(), "first").unwrap();

    let mut node = Node::start(options, board).await;
    let pod = with_status(&node, "count", counting());
    node.pods.put(pod.clone());
    node.pods.complete();
    node.board.wait("count", "restarted", |object| object["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}
