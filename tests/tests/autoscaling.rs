//! Metrics from the nodes to `kubectl top` and to an autoscaler, on real containerd: load in a real pod makes its
//! Deployment grow, and its end makes it shrink.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Options};
use tests::image::Image;
use tests::kubectl::Kubectl;
use tests::wait;

/// An autoscaler looks every 15 seconds, and leaves out pods until what was measured is all from after their start.
const LIMIT: Duration = Duration::from_secs(180);
const IMAGE: &str = "keelson.local/load:1";
/// Works while there is a file `/load`.
const SCRIPT: &str = "#!/bin/sh\n\
    while :; do\n\
      if [ -e /load ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 1; fi\n\
    done\n";
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: load}
spec:
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: load
        image: keelson.local/load:1
        resources: {requests: {cpu: 50m, memory: 8Mi}, limits: {cpu: 250m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: load}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: load}
  maxReplicas: 3
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
"#;

#[test]
fn load_makes_a_deployment_grow_and_its_end_makes_it_shrink() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(Options::single("autoscaling-test", dir.path())?)?;
    let result = walk(&cluster);
    let log = cluster.diagnosis();
    let stopped = cluster.stop().context("stop the cluster");
    result.with_context(|| log)?;
    stopped
}

fn walk(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl()?;
    let archive = cluster.options.dir.join("load.tar");
    let files = [("start.sh", SCRIPT, 0o755)];
    let image = Image { reference: IMAGE, files: &files, entrypoint: &["/start.sh"], env: &["PATH=/bin"] };
    image.write(&archive)?;
    cluster.import_image(&archive)?;
    let manifest = cluster.options.dir.join("load.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    kubectl.run(&["apply", "-f", &manifest.to_string_lossy()])?;
    kubectl.run(&["rollout", "status", "deployment/load", "--timeout=60s"])?;

    wait::until("the node's and the pod's use to be told", LIMIT, || {
        let nodes = kubectl.run(&["top", "nodes", "--no-headers"])?;
        let pods = kubectl.run(&["top", "pods", "--no-headers"])?;
        ensure!(nodes.contains("autoscaling-test"), "{nodes}");
        Ok(pods.starts_with("load-").then_some(()))
    })?;
    let text = kubectl.run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Dload"])?;
    let pods: Value = serde_json::from_str(&text).context("the metrics are no JSON")?;
    ensure!(pods["items"][0]["containers"][0]["name"] == "load", "{pods}");
    ensure!(pods["items"].as_array().is_some_and(|items| items.len() == 1), "{pods}");

    work(&kubectl, &["touch", "/load"])?;
    replicas(&kubectl, 3)?;
    work(&kubectl, &["rm", "/load"])?;
    replicas(&kubectl, 1)
}

/// Runs a command in every pod.
fn work(kubectl: &Kubectl, command: &[&str]) -> Result<()> {
    let pods = kubectl.run(&["get", "pods", "-l", "app=load", "-o", "name"])?;
    for pod in pods.lines() {
        let mut all = vec!["exec", pod, "--"];
        all.extend(command);
        // Only the first pod ever has work.
        if kubectl.run(&all).is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("no pod took {command:?}: {pods}")
}

fn replicas(kubectl: &Kubectl, wanted: i64) -> Result<()> {
    wait::until(&format!("the autoscaler to want {wanted} replicas"), LIMIT, || {
        let deployment = kubectl.get(&["deployment", "load"])?;
        let autoscaler = kubectl.get(&["hpa", "load"])?;
        ensure!(deployment["spec"]["replicas"] == wanted, "it is {}", autoscaler["status"]);
        Ok(Some(()))
    })
}
