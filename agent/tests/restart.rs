//! Fail-static: agents and containerd come and go, pods stay as they are.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive, uid};

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
    assert!(!node.shared.paths.pod(&uid(&node.options, "left")).exists());
    node.end(&containerd).await;
}

/// What an agent leaves that is killed while containerd starts a container's shim. Gives all shims, and the reader of
/// the new one's log, without which it ends.
fn start_lost_shim(containerd: &Containerd, group: &str) -> (Vec<i32>, std::fs::File) {
    let bundle = containerd.directory.path().join(group);
    std::fs::create_dir_all(&bundle).unwrap();
    nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let log = std::fs::File::options().read(true).write(true).open(bundle.join("log")).unwrap();
    let spec = json!({"ociVersion": "1.0.2", "annotations": {"io.containerd.runc.v2.group": group}});
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let socket = containerd.socket().display().to_string();
    let started = std::process::Command::new("containerd-shim-runc-v2")
        .args(["-namespace", &containerd.namespace(), "-id", "lost", "-address", &socket, "start"])
        .env("TTRPC_ADDRESS", format!("{socket}.ttrpc"))
        .current_dir(&bundle)
        .output()
        .unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    (shims(containerd), log)
}

/// The shims of this containerd, by their command lines.
fn shims(containerd: &Containerd) -> Vec<i32> {
    let socket = containerd.socket().display().to_string();
    let processes = procfs::process::all_processes().unwrap().flatten();
    let of = |process: &procfs::process::Process| {
        let alive = process.stat().is_ok_and(|stat| stat.state != 'Z');
        alive
            && process.cmdline().is_ok_and(|words| {
                words.first().is_some_and(|word| word.contains("containerd-shim")) && words.contains(&socket)
            })
    };
    processes.filter(of).map(|process| process.pid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_was_lost_in_the_middle_of_a_start_goes_with_its_pod() {
    let containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("lost", json!({"containers": [{"name": "main", "command": ["sleep", "1000"]}]}));
    node.board.wait_phase("lost", "Running").await;
    let (id, board) = (node.container_id("lost"), node.board.clone());
    let options = node.stop().await;
    containerd.runtime().kill_and_delete_task(&id).await.unwrap();
    // The regular shim ends by itself, after the last of its tasks.
    let gone = async {
        while !shims(&containerd).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, gone).await.expect("the shim ends");
    let (lost, _log) = start_lost_shim(&containerd, &uid(&options, "lost"));
    assert_eq!(lost.len(), 1);
    let (others, _other_log) = start_lost_shim(&containerd, "uid-other");
    assert_eq!(others.len(), 2);

    let mut node = Node::start(options, board).await;
    node.pods.complete();
    node.pods.reap().await;
    let left = shims(&containerd);
    assert!(left.len() == 1 && others.contains(&left[0]), "{left:?} of {others:?}");
    assert_eq!(containerd.runtime().end_lost_shim("uid-other"), 1);
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_does_not_answer_is_not_taken_for_dead() {
    let signal_all = |containerd: &Containerd, signal| {
        for pid in shims(containerd) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        }
    };
    let containerd = Containerd::start();
    image(&containerd).await;
    let mut node = Node::start(Node::options(&containerd, "n1"), Board::default()).await;
    node.put("count", counting());
    node.board.wait_phase("count", "Running").await;
    let (id, board) = (node.container_id("count"), node.board.clone());
    let pid = node.shared.runtime.task(&id).await.unwrap().unwrap().pid;
    let options = node.stop().await;

    signal_all(&containerd, nix::sys::signal::Signal::SIGSTOP);
    // Waits for what containerd makes of the silence: a task in an unknown state.
    let mut node = Node::start(options, board.clone()).await;
    signal_all(&containerd, nix::sys::signal::Signal::SIGCONT);
    let pod = with_status(&node, "count", counting());
    node.pods.put(pod.clone());
    node.pods.complete();
    grows(&node, node.log("count", "main", 0).len()).await;
    let status = board.get("count")["status"]["containerStatuses"][0].clone();
    assert!(status["restartCount"] == 0 && !status["state"]["running"].is_null(), "{status}");
    assert_eq!(node.shared.runtime.task(&id).await.unwrap().unwrap().pid, pid);
    node.delete_and_wait(&pod, 1).await;
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

/// The pod as the server has it, with the status it was told.
fn with_status(node: &Node, name: &str, spec: Value) -> Arc<Pod> {
    let mut pod = (*node.pod(name, spec)).clone();
    pod.status = serde_json::from_value(node.board.get(name)["status"].clone()).unwrap();
    Arc::new(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_pods_are_made_again() {
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
    let of = |pod: &str, file: &str| options.state_dir.join("pods").join(uid(&options, pod)).join(file);
    std::fs::remove_file(of("count", "sandbox.json")).unwrap();
    std::fs::remove_file(of("shared", "ns/pid.pid")).unwrap();
    std::fs::write(of("shared", "sandbox.json"), r#"{"version": 1000}"#).unwrap();
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
