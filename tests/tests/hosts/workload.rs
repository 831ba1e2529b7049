//! What runs during all of it: a web server in four replicas spread over both hosts, behind one Service, and on each
//! host a pod that asks that Service all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::hosts::{Hosts, Member, condition};
use tests::image::Image;
use tests::wait;

use crate::LIMIT;

pub const IMAGE: &str = "keelson.local/who:1";
pub const NODE_PORT: u16 = 30080;
const REPLICAS: usize = 4;
/// Bytes of the large answer.
pub const LARGE_BYTES: usize = 1 << 20;

/// Tells who answers, and whom it sees asking.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho \"$(hostname) $REMOTE_ADDR\"\n";
const START: &str = "#!/bin/sh\n\
    head -c 1048576 /dev/zero | tr '\\0' x > /www/large\n\
    trap 'exit 0' TERM\n\
    httpd -f -p 8080 -h /www &\n\
    wait\n";
/// Waits for nothing: what it is told of failures is what it has seen.
const ASK: &str = "#!/bin/sh\n\
    trap 'exit 0' TERM\n\
    while :; do timeout 5 wget -q -O - http://$WHO_SERVICE_HOST/cgi-bin/who || echo FAILED; usleep 20000; done\n";

pub fn start(hosts: &mut Hosts) -> Result<()> {
    let archive = hosts.a.host.dir.join("who.tar");
    let image = Image {
        reference: IMAGE,
        files: &[
            ("start.sh", START, 0o755),
            ("ask.sh", ASK, 0o755),
            ("www/cgi-bin/who", WHO, 0o755),
            ("www/index.html", "ok", 0o644),
        ],
        entrypoint: &["/start.sh"],
        env: &["PATH=/bin"],
    };
    image.write(&archive)?;
    for member in hosts.members() {
        member.import_image(&archive)?;
    }
    hosts.wait_nodes_ready()?;
    hosts.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [service(), deployment()] }))?;
    wait::until("the web servers to be ready", LIMIT, || {
        let pods = ready(hosts)?;
        Ok((pods.len() == REPLICAS).then_some(()))
    })?;
    let nodes = ready(hosts)?.into_values().map(|pod| pod.node).collect::<std::collections::BTreeSet<_>>();
    ensure!(nodes.len() == 2, "all pods are on {nodes:?}");
    for member in hosts.members() {
        hosts.apply(&asker(member.name()))?;
    }
    for member in hosts.members() {
        wait::until("the asking pods to be answered", LIMIT, || {
            Ok(asked(member)?.lines().any(|line| line.starts_with("who-")).then_some(()))
        })?;
    }
    Ok(())
}

fn service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "who", "namespace": "default" },
        "spec": { "type": "NodePort", "selector": { "app": "who" },
            "ports": [{ "port": 80, "targetPort": 8080, "nodePort": NODE_PORT }] } })
}

fn deployment() -> Value {
    let spread = json!([{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "who" } } }]);
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "who", "namespace": "default" },
        "spec": { "replicas": REPLICAS, "selector": { "matchLabels": { "app": "who" } }, "template": {
            "metadata": { "labels": { "app": "who" } },
            "spec": { "terminationGracePeriodSeconds": 1, "topologySpreadConstraints": spread, "containers": [{
                "name": "who", "image": IMAGE, "imagePullPolicy": "Never",
                "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 } }] } } } })
}

/// A pod that asks the Service from inside the node it is bound to.
fn asker(node: &str) -> Value {
    sleeper(&format!("ask-{node}"), node, &["/ask.sh"])
}

/// A pod of one container on one node.
pub fn sleeper(name: &str, node: &str, program: &[&str]) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": program }] } })
}

/// A ready web server.
#[derive(Clone, Debug)]
pub struct Server {
    pub node: String,
    pub address: IpAddr,
    pub restarts: u64,
}

/// Ready web servers by pod name.
pub fn ready(hosts: &Hosts) -> Result<BTreeMap<String, Server>> {
    let pods = hosts.get(&["pods", "-l", "app=who"])?;
    let items = pods["items"].as_array().into_iter().flatten();
    let of = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str()?.to_owned();
        let server = Server {
            node: pod["spec"]["nodeName"].as_str()?.to_owned(),
            address: pod["status"]["podIP"].as_str()?.parse().ok()?,
            restarts: pod["status"]["containerStatuses"][0]["restartCount"].as_u64()?,
        };
        (condition(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()).then_some((name, server))
    };
    Ok(items.filter_map(of).collect())
}

pub fn service_address(hosts: &Hosts) -> Result<SocketAddr> {
    let service = hosts.get(&["service", "who"])?;
    let address = service["spec"]["clusterIP"].as_str().context("a cluster IP")?;
    Ok(SocketAddr::new(address.parse()?, 80))
}

/// What the asking pod of a node has printed so far.
pub fn asked(member: &Member) -> Result<String> {
    output(member, &format!("ask-{}", member.name()))
}

/// The output of a pod's first container, read from the node's disk: it must be there without any server.
pub fn output(member: &Member, pod: &str) -> Result<String> {
    let logs = member.data_dir().join("log/pods");
    let prefix = format!("default_{pod}_");
    let mut text = String::new();
    for entry in std::fs::read_dir(&logs).with_context(|| format!("list {logs:?}"))?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        for attempt in 0.. {
            let Ok(log) = std::fs::read_to_string(entry.path().join(format!("main/{attempt}.log"))) else { break };
            text.extend(log.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default())));
        }
    }
    Ok(text)
}
