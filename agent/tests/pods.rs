//! Pods on a real containerd: from their JSON to running containers, through their troubles, and gone without a trace.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive};

/// A shell loop that ends on SIGTERM.
const LOOP: &str = "trap 'exit 0' TERM; while true; do sleep 0.05; done";

async fn node(containerd: &Containerd) -> Node {
    let archive = busybox_archive(containerd.directory.path());
    let names = agent::image::import(&containerd.socket(), &containerd.namespace(), &archive).await.unwrap();
    assert_eq!(names, ["localhost/busybox:test"]);
    Node::start(Node::options(containerd, "n1"), Board::default()).await
}

fn sh(script: &str) -> Value {
    json!({"name": "main", "command": ["sh", "-c", script]})
}

fn terminated(object: &Value) -> Value {
    object["status"]["containerStatuses"][0]["state"]["terminated"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_from_its_json_and_leaves_nothing() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let script = format!("echo $GREETING $FROM_IMAGE from $(hostname); echo oops >&2; {LOOP}");
    let mut container = sh(&script);
    container["env"] = json!([{"name": "GREETING", "value": "hello"}]);
    let pod = node.put("web", json!({"containers": [container]}));
    let object = node.board.wait_phase("web", "Running").await;
    let status = &object["status"];
    assert_eq!(status["containerStatuses"][0]["ready"], true, "{status:#}");
    assert_eq!(status["qosClass"], "BestEffort");
    let hosts = node.exec("web", &["cat", "/etc/hosts"]).await;
    let line = format!("{}\tweb\n", status["podIP"].as_str().unwrap());
    assert!(hosts.ends_with(&line), "{hosts}");
    let interfaces = node.exec("web", &["ip", "addr"]).await;
    assert!(interfaces.contains(status["podIP"].as_str().unwrap()) && interfaces.contains("LOOPBACK,UP"));

    assert_eq!(node.exec("web", &["hostname"]).await, "web\n");
    let log = node.log("web", "main", 0);
    assert!(log.contains(" stdout F hello yes from web\n") && log.contains(" stderr F oops\n"), "{log}");

    let gone = node.delete_and_wait(&pod, 5).await;
    assert_eq!(terminated(&gone)["exitCode"], 0, "{gone:#}");
    assert_eq!(terminated(&gone)["reason"], "Completed");
    assert!(node.pods.is_empty());
    assert!(node.shared.runtime.list_containers(&[]).await.unwrap().is_empty());
    assert!(!node.shared.paths.pod(&support::uid(&node.options, "web")).exists());
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_an_ended_container_is_complete_in_its_log() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let script = "echo last words > /dev/termination-log; seq 1 20000; echo end >&2; exit 3";
    node.put("job", json!({"restartPolicy": "Never", "containers": [sh(script)]}));
    let object = node.board.wait_phase("job", "Failed").await;
    let ended = terminated(&object);
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(ended["message"], "last words\n");
    let log = node.log("job", "main", 0);
    let lines = |stream: &str| log.lines().filter(|line| line.contains(stream)).count();
    assert_eq!((lines(" stdout F "), lines(" stderr F ")), (20_000, 1));
    // The pod is over: its network and namespaces are released, its log stays.
    let released = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|one| one["type"] == "PodReadyToStartContainers" && one["status"] == "False")
    };
    node.board.wait("job", "torn down", released).await;
    assert!(!node.shared.paths.namespaces(&support::uid(&node.options, "job")).join("net").exists());
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_come_first_and_a_sidecar_stays() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let named = |name: &str, script: &str| json!({"name": name, "command": ["sh", "-c", script]});
    let mut sidecar = named("side", LOOP);
    sidecar["restartPolicy"] = json!("Always");
    node.put(
        "staged",
        json!({
            "restartPolicy": "Never",
            "initContainers": [named("one", "echo one"), sidecar, named("two", "echo two")],
            "containers": [named("main", "echo main")],
        }),
    );
    let object = node.board.wait_phase("staged", "Succeeded").await;
    let ended = |list: &str, index: usize| {
        let container = &object["status"][list][index];
        let ended = &container["state"]["terminated"];
        (ended["startedAt"].as_str().unwrap().to_owned(), ended["exitCode"].as_i64().unwrap())
    };
    assert_eq!(ended("initContainerStatuses", 0).1, 0);
    assert_eq!(ended("initContainerStatuses", 1).1, 0, "the sidecar was asked to end");
    assert!(ended("initContainerStatuses", 0).0 <= ended("initContainerStatuses", 2).0);
    assert!(ended("initContainerStatuses", 2).0 <= ended("containerStatuses", 0).0);
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_container_is_restarted_at_once_and_then_waits() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let pod = node.put("crash", json!({"containers": [sh("echo attempt; exit 7")]}));
    let object = node
        .board
        .wait("crash", "waiting for its second restart", |object| {
            let status = &object["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let status = &object["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 7, "{status:#}");
    assert_eq!(node.output("crash", "main", 0), "attempt\n");
    assert_eq!(node.output("crash", "main", 1), "attempt\n");
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_kills() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let mut container = sh("exec dd if=/dev/zero of=/dev/null bs=200M");
    container["resources"] = json!({"limits": {"memory": "20Mi"}});
    node.put("hungry", json!({"restartPolicy": "Never", "containers": [container]}));
    let ended = terminated(&node.board.wait_phase("hungry", "Failed").await);
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("OOMKilled")), "{ended:#}");
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let waits = |reason: &'static str| {
        move |object: &Value| object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    let image = |image: &str, policy: &str| json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": policy}]});
    node.put("never", image("localhost/none:1", "Never"));
    node.put("pull", image("localhost/none:1", "IfNotPresent"));
    node.put("always", image("localhost/busybox:test", "Always"));
    node.put("name", image("Bad//Name", "IfNotPresent"));
    let mut missing = sh("true");
    missing["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    node.put("config", json!({"containers": [missing]}));
    node.put(
        "program",
        json!({"restartPolicy": "Never", "containers": [{"name": "main", "command": ["/no/such/program"]}]}),
    );
    node.board.wait("never", "refused", waits("ErrImageNeverPull")).await;
    node.board.wait("pull", "not pulled", waits("ErrImagePull")).await;
    node.board.wait("always", "not pulled", waits("ErrImagePull")).await;
    node.board.wait("name", "refused", waits("InvalidImageName")).await;
    let object = node.board.wait("config", "misconfigured", waits("CreateContainerConfigError")).await;
    let message = &object["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"settings\" not found");
    let ended = terminated(&node.board.wait_phase("program", "Failed").await);
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(128), &json!("StartError")), "{ended:#}");
    assert!(ended["message"].as_str().unwrap().contains("/no/such/program"), "{ended:#}");

    // What was missing appears.
    node.board.config_maps.lock().unwrap().insert("settings".into(), json!({"data": {"A": "1"}}));
    node.board
        .wait("config", "started", |object| !object["status"]["containerStatuses"][0]["containerID"].is_null())
        .await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ignores_its_signal_is_killed_after_its_grace() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let mut container = sh("trap 'echo asked' TERM; while true; do sleep 0.05; done");
    container["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /tmp/hook"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo from the hook > /proc/1/fd/1"]}},
    });
    let pod = node.put("stubborn", json!({"containers": [container]}));
    node.board.wait_phase("stubborn", "Running").await;
    node.board
        .wait("stubborn", "past its hook", |object| object["status"]["containerStatuses"][0]["ready"] == true)
        .await;
    assert_eq!(node.exec("stubborn", &["cat", "/tmp/hook"]).await, "started\n");
    let before = std::time::Instant::now();
    node.delete(&pod, 1);
    let gone = node.board.wait("stubborn", "deleted", |object| object["deleted"] == true).await;
    assert_eq!(terminated(&gone)["exitCode"], 137);
    // The least a container gets is two seconds.
    assert!(before.elapsed().as_secs_f64() > 1.5);
    node.pods.reap().await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_what_the_pod_asks_for() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let named = |name: &str| json!({"name": name, "command": ["sh", "-c", LOOP]});
    let pod = node.put(
        "shared",
        json!({
            "shareProcessNamespace": true,
            "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]},
            "containers": [named("a"), named("b")],
        }),
    );
    node.board.wait_phase("shared", "Running").await;
    let processes = node.exec("shared", &["ps"]).await;
    assert_eq!(processes.matches("while true").count(), 2, "{processes}");
    assert_eq!(node.exec("shared", &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await, "80\n");
    node.delete_and_wait(&pod, 1).await;

    let pod = node.put("host", json!({"hostNetwork": true, "hostPID": true, "containers": [sh(LOOP)]}));
    let object = node.board.wait_phase("host", "Running").await;
    assert_eq!(object["status"]["podIP"], "192.0.2.1");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let theirs = node.exec("host", &["ls", "-l", "/proc/self/ns/net"]).await;
    assert!(theirs.contains(&*own.to_string_lossy()), "{theirs}");
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_as_whom_and_with_what_they_are_told() {
    let containerd = Containerd::start();
    let mut node = node(&containerd).await;
    let mut container = sh(LOOP);
    container["securityContext"] = json!({
        "runAsUser": 1000, "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    container["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let pod = node.put(
        "confined",
        json!({
            "securityContext": {"fsGroup": 77, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }),
    );
    let object = node.board.wait_phase("confined", "Running").await;
    assert_eq!(object["status"]["qosClass"], "Burstable");
    assert_eq!(node.exec("confined", &["id"]).await, "uid=1000(app) gid=1000(app) groups=77,1000(app)\n");
    let status = node.exec("confined", &["cat", "/proc/self/status"]).await;
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let denied = node.exec("confined", &["sh", "-c", "touch /bin/x 2>&1; true"]).await;
    assert!(denied.contains("Read-only file system"), "{denied}");
    node.delete_and_wait(&pod, 1).await;
    node.end(&containerd).await;
}
