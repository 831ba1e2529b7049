//! The node API of an agent on a real containerd: logs, exec, attach and port-forward as their clients see them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod client;
mod support;

use agent::node_api::{Server, spdy::frame::Frame};
use client::{Authority, Client, Said, Spdy, in_time};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive};
use tokio_util::sync::CancellationToken;

struct Rig {
    node: Node,
    client: Client,
    authority: Authority,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    containerd: Containerd,
}

async fn rig() -> Rig {
    let containerd = Containerd::start();
    let directory = containerd.directory.path().to_owned();
    let archive = busybox_archive(&directory);
    agent::image::import(&containerd.socket(), &containerd.namespace(), &archive).await.unwrap();
    let mut options = Node::options(&containerd, "n1");
    options.bind = "127.0.0.1:0".parse().unwrap();
    options.client_ca = Some(directory.join("ca.crt"));
    let authority = Authority::new(&directory.join("ca.crt"));
    let node = Node::start(options, Board::default()).await;
    let server = Server::bind(&node.options, node.shared.clone()).await.unwrap();
    let identity = authority.client("kube-apiserver-kubelet-client", "system:masters");
    let client = Client::new(server.address(), &directory.join("agent/pki/kubelet.crt"), Some(identity));
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.run(stop.clone()));
    Rig { node, client, authority, stop, served, containerd }
}

impl Rig {
    async fn run(&mut self, name: &str, spec: Value) {
        self.node.put(name, spec);
        let running = |object: &Value| {
            let list = object["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            !list.is_empty() && list.iter().all(|status| status["state"]["running"].is_object())
        };
        self.node.board.wait(name, "running", running).await;
    }

    fn views(&self) -> Vec<String> {
        self.node.shared.views.list().iter().map(|view| view.id.name.clone()).collect()
    }

    async fn exec(&self, pod: &str, streams: &str, command: &[&str], protocol: &str) -> client::WebSocket {
        self.client.websocket(&exec_path(pod, streams, command), protocol).await
    }

    async fn end(self) {
        self.stop.cancel();
        in_time("the server's end", self.served).await.unwrap();
        self.node.end(&self.containerd).await;
    }
}

fn exec_path(pod: &str, streams: &str, command: &[&str]) -> String {
    let command = command.iter().map(|word| {
        let escaped = word.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02x}"),
        });
        format!("&command={}", escaped.collect::<String>())
    });
    format!("/exec/default/{pod}/main?{streams}{}", command.collect::<String>())
}

fn shell(script: &str) -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "command": ["sh", "-c", script]}]})
}

const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_server_and_masters_may_call() {
    let rig = rig().await;
    let server = rig.containerd.directory.path().join("agent/pki/kubelet.crt");
    let address = rig.client.address();
    assert_eq!(rig.client.get("/healthz").await, (200, "ok".to_owned()));
    let nobody = Client::new(address, &server, None);
    assert_eq!(nobody.get("/healthz").await.0, 401);
    let node = Client::new(address, &server, Some(rig.authority.client("system:node:n2", "system:nodes")));
    assert_eq!(node.get("/pods").await.0, 403);
    let other = Authority::new(&rig.containerd.directory.path().join("other.crt"));
    let stranger = Client::new(address, &server, Some(other.client("admin", "system:masters")));
    assert_eq!(stranger.get("/pods").await.0, 401);
    assert_eq!(rig.client.get("/nothing").await.0, 404);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_over_a_websocket() {
    let mut rig = rig().await;
    rig.run("web", shell(SLEEP)).await;

    let both = "output=1&error=1";
    let said = rig.exec("web", both, &["sh", "-c", "echo out; echo err >&2; exit 3"], "v4.channel.k8s.io").await;
    let said = said.rest().await;
    assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.exit_code()), ("out\n", "err\n", 3));

    // Half-close ends the input of cat.
    let mut cat = rig.exec("web", "input=1&output=1", &["cat"], "v5.channel.k8s.io").await;
    cat.send(0, b"hello ").await;
    cat.send(0, b"there\n").await;
    cat.until(1, "there").await;
    cat.send(255, &[0]).await;
    assert_eq!(cat.rest().await.exit_code(), 0);

    // More output than any buffer holds arrives whole.
    let dd = rig.exec("web", both, &["sh", "-c", "dd if=/dev/zero bs=1024 count=3000 2>/dev/null"], "").await;
    let said = dd.rest().await;
    assert_eq!((said.stdout.len(), said.error.as_str()), (3000 * 1024, ""));

    // A program that is not there.
    let none = rig.exec("web", both, &["/no/such/program"], "v4.channel.k8s.io").await.rest().await;
    assert!(none.error.contains("InternalError") && none.error.contains("no/such/program"), "{none:?}");

    // The text variant, with the kubelet's uid in the path.
    let uid = support::uid(&rig.node.options, "web");
    let path = format!("/exec/default/web/{uid}/main?output=1&command=echo&command=hi");
    let said = rig.client.websocket(&path, "base64.channel.k8s.io").await.rest().await;
    assert_eq!(said.stdout, "aGkK");

    assert_eq!(rig.client.get("/exec/default/web/main?output=1&command=ls").await.0, 400);
    assert_eq!(rig.client.get("/exec/default/none/main?output=1&command=ls").await.0, 404);
    let (code, text) = rig.client.get("/exec/default/web/other?output=1&command=ls").await;
    assert_eq!((code, text.as_str()), (500, "container not found (\"other\")"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_a_client_that_leaves_ends_its_process() {
    let mut rig = rig().await;
    rig.run("web", shell(SLEEP)).await;
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while true; do sleep 0.1; done";
    let mut shell = rig.exec("web", "input=1&output=1&tty=1", &["sh", "-c", script], "v5.channel.k8s.io").await;
    shell.until(1, "ready").await;
    shell.send(4, b"{\"Width\":123,\"Height\":45}").await;
    let said = shell.rest().await;
    assert!(said.stdout.contains("45 123"), "{said:?}");
    assert_eq!(said.exit_code(), 7);

    let mut left = rig.exec("web", "output=1", &["sh", "-c", "echo $$; sleep 1000"], "v4.channel.k8s.io").await;
    let pid = left.until(1, "\n").await.trim().to_owned();
    drop(left);
    let gone = ["sh", "-c", &format!("while kill -0 {pid} 2>/dev/null; do sleep 0.1; done; echo gone")];
    let said = rig.exec("web", "output=1", &gone, "v4.channel.k8s.io").await.rest().await;
    assert_eq!(said.stdout, "gone\n");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_over_spdy() {
    let mut rig = rig().await;
    rig.run("web", shell(SLEEP)).await;
    let script = ["sh", "-c", "cat; echo err >&2; exit 5"];
    let path = exec_path("web", "input=1&output=1&error=1", &script);
    let mut spdy = rig.client.spdy(&path, "v4.channel.k8s.io").await;
    let error = spdy.open(&[("streamtype", "error")]).await;
    spdy.finish(error).await;
    let stdin = spdy.open(&[("streamtype", "stdin")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    let stderr = spdy.open(&[("streamtype", "stderr")]).await;
    // Much more than a window, while the output comes back.
    let line = "0123456789abcdef".repeat(1024);
    for _ in 0..4 {
        spdy.data(stdin, &line).await;
    }
    spdy.finish(stdin).await;
    let said = spdy.all(&[error, stdout, stderr]).await;
    assert_eq!(said[1], (line.repeat(4), false));
    assert_eq!(said[2], ("err\n".to_owned(), false));
    let status = Said { error: said[0].0.clone(), ..Said::default() };
    assert_eq!(status.exit_code(), 5);
    assert!(matches!(spdy.next().await, Some(Frame::GoAway { .. })));
    assert_eq!(spdy.next().await, None);

    // More than is ever under way at once comes whole and in order.
    let path = exec_path("web", "output=1", &["seq", "1", "300000"]);
    let mut spdy = rig.client.spdy(&path, "v4.channel.k8s.io").await;
    let error = spdy.open(&[("streamtype", "error")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    let said = spdy.all(&[error, stdout]).await;
    let (lines, last) = (said[1].0.lines().count(), said[1].0.lines().last());
    assert_eq!((lines, last), (300_000, Some("300000")), "{:?}", said[0]);
    assert!(said[1].0.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=300_000));

    // Nothing but a terminal, in an older version, pinged meanwhile.
    let path = exec_path("web", "output=1&tty=1", &["sh", "-c", "tty; exit 1"]);
    let mut spdy = rig.client.spdy(&path, "v3.channel.k8s.io").await;
    spdy.send(Frame::Ping(1)).await;
    assert_eq!(spdy.next().await, Some(Frame::Ping(1)));
    let error = spdy.open(&[("streamtype", "error")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    spdy.open(&[("streamtype", "resize")]).await;
    let said = spdy.all(&[error, stdout]).await;
    assert!(said[0].0.starts_with("command terminated with non-zero exit code"), "{said:?}");
    assert!(said[1].0.starts_with("/dev/"), "{said:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed_to_their_end() {
    let mut rig = rig().await;
    let script = "echo one; echo oops >&2; echo two; while [ ! -e /tmp/go ]; do sleep 0.05; done; \
                  i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; sleep 1000";
    let mut spec = shell(script);
    spec["restartPolicy"] = json!("Never");
    rig.run("web", spec).await;
    let mut follow = rig.client.stream("/containerLogs/default/web/main?follow=true").await.into_body();
    let mut text = String::new();
    // Two streams have no order between them.
    while !text.contains("two\n") || !text.contains("oops\n") {
        let frame = in_time("a line", follow.frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let get = async |query: &str| rig.client.get(&format!("/containerLogs/default/web/main?{query}")).await;
    let last = get("").await.1.lines().last().unwrap().to_owned();
    let mut lines = get("").await.1.lines().map(str::to_owned).collect::<Vec<_>>();
    lines.sort();
    assert_eq!(lines, ["one", "oops", "two"]);
    assert_eq!(get("tailLines=1").await, (200, format!("{last}\n")));
    assert_eq!(get("stream=Stderr").await, (200, "oops\n".to_owned()));
    assert_eq!(get("limitBytes=5").await.1.len(), 5);
    assert_eq!(get("sinceTime=2100-01-01T00:00:00Z").await, (200, String::new()));
    assert!(get("timestamps=true&tailLines=1").await.1.ends_with(&format!("Z {last}\n")));
    let (code, text_of_error) = get("previous=true").await;
    let expected = "previous terminated container \"main\" in pod \"web\" not found";
    assert_eq!((code, text_of_error.as_str()), (400, expected));
    assert_eq!(get("tailLines=-1").await.0, 422);
    assert_eq!(rig.client.get("/containerLogs/default/web/other").await.0, 404);
    assert_eq!(rig.client.get("/containerLogs/default/none/main").await.0, 404);

    rig.exec("web", "output=1", &["touch", "/tmp/go"], "v4.channel.k8s.io").await.rest().await;
    while !text.contains("line 1999\n") {
        let frame = in_time("a line", follow.frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let numbers = text.lines().filter_map(|line| line.strip_prefix("line ")?.parse::<u32>().ok());
    assert!(numbers.eq(0..2000), "every line comes once and in order");
    // The follower's answer ends with the container.
    let id = rig.node.shared.views.find("default", "web", None).unwrap().containers["main"].id.clone();
    rig.node.shared.runtime.kill_task(&id, 9, true).await.unwrap();
    let end = in_time("the end of the log", follow.frame()).await;
    assert!(end.is_none(), "{end:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_waits_has_no_log_yet() {
    let mut rig = rig().await;
    let container = json!({"name": "main", "image": "localhost/none:1", "imagePullPolicy": "Never"});
    rig.node.put("web", json!({"containers": [container]}));
    let waits = |object: &Value| !object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].is_null();
    let object = rig.node.board.wait("web", "waiting", waits).await;
    assert_eq!(rig.views(), ["web"]);
    let (code, text) = rig.client.get("/containerLogs/default/web/main").await;
    let reason = object["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(code, 400);
    assert!(text.starts_with("container \"main\" in pod \"web\" is waiting to start"), "{text} ({reason})");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_joins_a_containers_streams() {
    let mut rig = rig().await;
    let echo = json!({"name": "main", "stdin": true, "stdinOnce": true,
        "command": ["sh", "-c", "while read line; do echo got $line; done; echo done; exit 4"]});
    rig.run("once", json!({"restartPolicy": "Never", "containers": [echo]})).await;
    let path = "/attach/default/once/main?input=1&output=1&error=1";
    let mut attached = rig.client.websocket(path, "v5.channel.k8s.io").await;
    attached.send(0, b"hello\n").await;
    attached.until(1, "got hello\n").await;
    // The end of the first client's input is the end of the container's.
    attached.send(255, &[0]).await;
    let said = attached.rest().await;
    assert_eq!((said.stdout.as_str(), said.exit_code()), ("done\n", 0));
    rig.node.board.wait_phase("once", "Failed").await;
    let (code, text) = rig.client.get(path).await;
    assert_eq!((code, text.as_str()), (500, "container main not found in pod once_default"));

    let shell = json!({"name": "main", "stdin": true, "tty": true, "command": ["sh"]});
    rig.run("tty", json!({"terminationGracePeriodSeconds": 1, "containers": [shell]})).await;
    for number in 0..2 {
        // A client that leaves does not end the container, and the next one finds it.
        let path = "/attach/default/tty/main?input=1&output=1&tty=1";
        let mut attached = rig.client.websocket(path, "v5.channel.k8s.io").await;
        attached.send(4, b"{\"Width\":99,\"Height\":33}").await;
        let wait = r#"while [ "$(stty size)" != "33 99" ]; do sleep 0.1; done"#;
        attached.send(0, format!("{wait}; echo sum $((40+{number}))\n").as_bytes()).await;
        attached.until(1, &format!("sum {}", 40 + number)).await;
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_pod_are_forwarded() {
    let mut rig = rig().await;
    let serve = "mkdir -p /tmp/w; echo hello from the pod > /tmp/w/index.html; httpd -f -p 127.0.0.1:8080 -h /tmp/w";
    rig.run("web", shell(serve)).await;
    let mut spdy = rig.client.spdy("/portForward/default/web", "portforward.k8s.io").await;
    let request = "GET / HTTP/1.0\r\n\r\n";
    for id in ["0", "1"] {
        let (error, data) = pair(&mut spdy, "8080", id).await;
        spdy.data(data, request).await;
        let said = spdy.all(&[error, data]).await;
        assert_eq!(said[0], (String::new(), false));
        assert!(said[1].0.ends_with("hello from the pod\n"), "{said:?}");
    }
    // Nobody listens: the error stream says so and the data stream is reset; the connection lives on.
    let (error, data) = pair(&mut spdy, "81", "2").await;
    let said = spdy.all(&[error, data]).await;
    let told = format!("error forwarding port 81 to pod web, uid {}: ", support::uid(&rig.node.options, "web"));
    assert!(said[0].0.starts_with(&told), "{said:?}");
    assert!(said[1].1, "{said:?}");
    let (_, data) = pair(&mut spdy, "8080", "3").await;
    spdy.data(data, request).await;

    let tunnel = rig.client.websocket("/portForward/default/web", "SPDY/3.1+portforward.k8s.io").await;
    let mut spdy = Spdy::new(client::Bytestream::over(tunnel));
    let (error, data) = pair(&mut spdy, "8080", "0").await;
    spdy.data(data, request).await;
    let said = spdy.all(&[error, data]).await;
    assert!(said[1].0.ends_with("hello from the pod\n"), "{said:?}");

    // Channels: each begins with its port, little-endian; what a port says is on the even one.
    let mut channels = rig.client.websocket("/portForward/default/web?port=8080,81", "v4.channel.k8s.io").await;
    channels.send(0, request.as_bytes()).await;
    let mut said: [Vec<u8>; 4] = Default::default();
    while let Some((channel, data)) = channels.next().await {
        said[usize::from(channel)].extend_from_slice(&data);
    }
    assert!(said[0].starts_with(&8080_u16.to_le_bytes()) && said[0].ends_with(b"hello from the pod\n"), "{said:?}");
    assert_eq!((&said[1][..], &said[2][..]), (&8080_u16.to_le_bytes()[..], &81_u16.to_le_bytes()[..]));
    assert!(said[3].windows(14).any(|text| text == b"failed to conn"), "{said:?}");
    assert_eq!(rig.client.get("/portForward/default/none").await.0, 404);
    rig.end().await;
}

async fn pair<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    spdy: &mut Spdy<S>,
    port: &str,
    id: &str,
) -> (u32, u32) {
    let error = spdy.open(&[("streamtype", "error"), ("port", port), ("requestid", id)]).await;
    spdy.finish(error).await;
    let data = spdy.open(&[("streamtype", "data"), ("port", port), ("requestid", id)]).await;
    (error, data)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_tells_what_it_runs_and_uses() {
    let mut rig = rig().await;
    rig.run("web", shell(SLEEP)).await;
    let (code, pods) = rig.client.get("/pods").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!((code, pods["kind"].as_str()), (200, Some("PodList")));
    assert_eq!(pods["items"][0]["metadata"]["name"], "web");
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    let summary: Value = serde_json::from_str(&rig.client.get("/stats/summary").await.1).unwrap();
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!(container["name"], "main");
    assert!(container["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{summary:#}");
    assert!(container["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{summary:#}");
    assert!(summary["node"]["memory"]["availableBytes"].as_u64().unwrap() > 0, "{summary:#}");
    let (_, text) = rig.client.get("/metrics/resource").await;
    let sample = "container_memory_working_set_bytes{container=\"main\",namespace=\"default\",pod=\"web\"} ";
    assert!(text.contains(sample), "{text}");
    assert!(rig.client.get("/metrics").await.1.contains("kubelet_running_pods 1"));
    rig.end().await;
}
