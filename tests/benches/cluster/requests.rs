//! The API server alone: durable creates, and lists of many objects.

use std::time::{Duration, Instant};

use anyhow::Result;
use api_client::{Api, Client};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use serde_json::{Value, json};
use tests::process;
use tokio::task::JoinSet;

use super::rig::{self, Running, block_on, mebibytes, millis, percentile, row};

const CREATE_SECONDS: u64 = 5;
const PODS: usize = 10_000;
/// Clients that fill the server before a list.
const FILLERS: usize = 32;

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" },
        "data": { "k": "x".repeat(1024) } })
}

pub fn creates() -> Result<()> {
    for (clients, promise) in [(1, "the disk's fsync floor"), (64, "> 10 x upstream's 1,500/s")] {
        let dir = tempfile::tempdir()?;
        let running = Running::start(rig::options(dir.path(), false, &["--components=apiserver"])?)?;
        let before = process::cpu_time(running.pid()?)?;
        let kubeconfig = running.0.kubeconfig();
        let (count, mut latencies) = block_on(async {
            let mut workers = JoinSet::new();
            let until = Instant::now() + Duration::from_secs(CREATE_SECONDS);
            for worker in 0..clients {
                // A connection each, as separate clients have.
                let client = rig::client(&kubeconfig)?;
                workers.spawn(create_until(client, worker, until));
            }
            let mut all = Vec::new();
            while let Some(latencies) = workers.join_next().await {
                all.extend(latencies??);
            }
            Ok((all.len(), all))
        })?;
        latencies.sort();
        let cpu = process::cpu_time(running.pid()?)? - before;
        let rate = count as f64 / CREATE_SECONDS as f64;
        row(&format!("creates of 1 KiB per second, {clients} clients"), format!("{rate:.0}"), promise);
        let text = format!("{} / {}", millis(percentile(&latencies, 0.5)), millis(percentile(&latencies, 0.99)));
        row("  p50 / p99", text, "");
        row("  server CPU per create", format!("{:.0} us", cpu.as_secs_f64() * 1e6 / count as f64), "");
    }
    Ok(())
}

async fn create_until(client: Client, worker: usize, until: Instant) -> Result<Vec<Duration>> {
    let api: Api<ConfigMap> = client.api();
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let object = config_map(&format!("c-{worker}-{}", latencies.len()));
        let start = Instant::now();
        api.create_value(&object).await?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

pub fn list() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let running = Running::start(rig::options(dir.path(), false, &["--components=apiserver"])?)?;
    let kubeconfig = running.0.kubeconfig();
    let before = process::resident_kib(running.pid()?)?;
    block_on(async {
        // No controller runs here that would make the account every pod needs.
        let accounts: Api<ServiceAccount> = rig::client(&kubeconfig)?.api();
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "default", "namespace": "default" } });
        accounts.create_value(&account).await?;
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS {
            let api: Api<Pod> = rig::client(&kubeconfig)?.api();
            fillers.spawn(async move {
                for index in (filler..PODS).step_by(FILLERS) {
                    api.create_value(&typical_pod(index)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = fillers.join_next().await {
            done??;
        }
        let after = process::resident_kib(running.pid()?)?;
        let per_pod = (after - before) as f64 / PODS as f64;
        row(&format!("server memory per pod object ({PODS} pods)"), format!("{per_pod:.1} KiB"), "< 6 KB");
        row("RSS with them", mebibytes(after), "< 100 MB");
        let client = rig::client(&kubeconfig)?;
        let mut taken = Vec::new();
        let mut bytes = 0;
        for _ in 0..10 {
            let request = http::Request::get("/api/v1/pods").body(Bytes::new())?;
            let start = Instant::now();
            bytes = client.call(request).await?.len();
            taken.push(start.elapsed());
        }
        taken.sort();
        row(
            &format!("LIST of {PODS} pods ({:.1} MB), p50", bytes as f64 / 1e6),
            millis(percentile(&taken, 0.5)),
            "upstream 278-718 ms",
        );
        Ok(())
    })
}

/// About what a Deployment's pod holds before it runs.
fn typical_pod(index: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("web-6cf989b98b-{index:05}"), "namespace": "default",
            "labels": { "app": "web", "pod-template-hash": "6cf989b98b" } },
        "spec": { "automountServiceAccountToken": false, "containers": [{
            "name": "web", "image": "registry.example/web:1.2.3",
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "ports": [{ "containerPort": 8080 }],
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } },
        }] },
    })
}
