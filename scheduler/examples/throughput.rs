//! How fast decisions are, without an API server: pods over nodes made up here.
//!
//!     cargo run --release -p scheduler --example throughput -- 1000 10000
//!
//! prints decisions per second and their latency for pods of one ReplicaSet (spread by default), pods with a hard
//! spread over zones, pods that repel each other, and pods that fit nowhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler::cluster::Cluster;
use scheduler::config::Config;
use scheduler::cycle;
use scheduler::objects::{Node, Pod};
use serde_json::{Value, json};

const ZONES: usize = 3;

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for index in 0..nodes {
        let name = format!("node-{index}");
        let node: Node = read(json!({
            "metadata": { "name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", index % ZONES) } },
            "status": { "allocatable": { "cpu": "16", "memory": "64Gi", "pods": "110" } },
        }));
        cluster.set_node(Arc::new(node));
    }
    cluster
}

fn pod(name: &str, spec: &Value) -> Arc<Pod> {
    let mut spec = spec.clone();
    spec["schedulerName"] = "default-scheduler".into();
    if spec["containers"].is_null() {
        spec["containers"] =
            json!([{ "image": "app", "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } } }]);
    }
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true }]);
    Arc::new(read(json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" },
            "ownerReferences": owner },
        "spec": spec,
    })))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object as the API has it")
}

fn run(title: &str, nodes: usize, pods: usize, spec: &Value) {
    let mut cluster = cluster(nodes);
    let config = Config::default();
    let (mut start, mut placed) = (0, 0);
    let mut times: Vec<Duration> = Vec::with_capacity(pods);
    let pods: Vec<Arc<Pod>> = (0..pods).map(|index| pod(&format!("pod-{index}"), spec)).collect();
    let begin = Instant::now();
    for (tie, pod) in pods.iter().enumerate() {
        let before = Instant::now();
        let decision = cycle::schedule(pod, &config, &config.profiles[0], &mut cluster, &mut start, tie);
        if let Ok(choice) = decision {
            cluster.assume(pod, &choice.node.metadata.name);
            placed += 1;
        }
        times.push(before.elapsed());
    }
    let rate = pods.len() as f64 / begin.elapsed().as_secs_f64();
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{title:<22} {nodes} nodes: {rate:>8.0} decisions/s, p50 {:?}, p99 {:?}, placed {placed}/{}",
        at(50),
        at(99),
        pods.len()
    );
}

fn main() {
    let number = |index: usize, default| std::env::args().nth(index).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (nodes, pods) = (number(1, 1000), number(2, 10_000));
    run("default spread", nodes, pods, &json!({}));
    let spread = json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] });
    run("hard zone spread", nodes, pods, &spread);
    let apart = json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "kubernetes.io/hostname" }] } } });
    run("hostname anti-affinity", nodes, nodes.min(pods), &apart);
    let huge = json!({ "containers": [{ "image": "app", "resources": { "requests": { "cpu": "64" } } }] });
    run("fits nowhere", nodes, pods.min(1000), &huge);
}
