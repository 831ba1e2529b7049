//! A node at rest and at work: memory, CPU, and how long pods take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api_client::{Api, Cache, Client, DeleteParams, ListParams, Received};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tests::{image, process};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rig::{self, Running, block_on, mebibytes, millis, percentile, row};

/// How long a cluster is left alone before and while its CPU time is counted.
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// A pod that sleeps.
pub fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": image, "command": ["/bin/sleep", "100000"] }],
        },
    })
}

/// Creates a pod, waiting for the namespace's service account on a cluster that has just started.
pub async fn create_when_allowed(client: &Client, pod: &Value) -> Result<()> {
    let pods: Api<Pod> = client.api();
    let start = Instant::now();
    loop {
        match pods.create_value(pod).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_forbidden() && start.elapsed() < LIMIT => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => return Err(error).context("create a pod"),
        }
    }
}

/// Watches until `count` pods of the default namespace are Running; when each was, by name.
pub async fn until_running(client: &Client, count: usize) -> Result<BTreeMap<String, Instant>> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    let cache = Cache::<Pod>::start(client, ListParams::namespace("default"), &tasks, stop);
    let mut changes = cache.subscribe();
    let mut running = BTreeMap::new();
    let look = |running: &mut BTreeMap<String, Instant>| {
        for pod in cache.snapshot().iter() {
            if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running") {
                let name = pod.metadata.name.clone().unwrap_or_default();
                running.entry(name).or_insert_with(Instant::now);
            }
        }
    };
    let all = async {
        cache.synced().await;
        look(&mut running);
        while running.len() < count {
            match changes.recv().await {
                Some(Received::Change(_) | Received::Rescan) => look(&mut running),
                None => break,
            }
        }
    };
    tokio::time::timeout(LIMIT, all).await.context("pods did not come to run in time")?;
    ensure!(running.len() >= count, "the watch ended early");
    Ok(running)
}

fn with_image(dir: &std::path::Path) -> Result<(Running, String)> {
    let running = Running::start(rig::options(dir, true, &[])?)?;
    let hello = image::hello("1");
    hello.write(&dir.join("hello.tar"))?;
    running.0.import_image(&dir.join("hello.tar"))?;
    Ok((running, hello.reference))
}

pub fn idle() -> Result<()> {
    for (what, agent, promise) in [("control plane", false, "< 40 MB"), ("control plane and node", true, "< 60 MB")] {
        let dir = tempfile::tempdir()?;
        let running = Running::start(rig::options(dir.path(), agent, &[])?)?;
        std::thread::sleep(SETTLE);
        let (before, start) = (process::cpu_time(running.pid()?)?, Instant::now());
        std::thread::sleep(WATCHED);
        let used = process::cpu_time(running.pid()?)? - before;
        let share = used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
        row(&format!("idle RSS, {what}"), mebibytes(process::resident_kib(running.pid()?)?), promise);
        row(&format!("idle CPU, {what}"), format!("{share:.2} %"), "< 0.2 % of a core");
    }
    Ok(())
}

/// Bursts of pods, each on an otherwise empty node.
pub fn pods() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (running, image) = with_image(dir.path())?;
    block_on(async {
        let client = running.client()?;
        let api: Api<Pod> = client.api();
        create_when_allowed(&client, &pod("warm", &image)).await?;
        until_running(&client, 1).await?;
        remove_all(&api).await?;
        for (burst, rounds, promise) in [(1, 20, "p50 < 80 ms"), (10, 3, ""), (50, 2, ""), (100, 1, "all < 4 s")] {
            let mut latencies = Vec::new();
            let mut whole = Duration::ZERO;
            for round in 0..rounds {
                let start = Instant::now();
                let names: Vec<String> = (0..burst).map(|i| format!("p{round}-{i}")).collect();
                let watch = until_running(&client, burst);
                let create = async {
                    for name in &names {
                        api.create_value(&pod(name, &image)).await?;
                    }
                    anyhow::Ok(())
                };
                let (running, created) = tokio::join!(watch, create);
                created?;
                latencies.extend(running?.values().map(|at| at.duration_since(start)));
                whole = whole.max(start.elapsed());
                remove_all(&api).await?;
            }
            latencies.sort();
            let text = format!("{} / {}", millis(percentile(&latencies, 0.5)), millis(percentile(&latencies, 0.99)));
            row(&format!("create to Running, {burst} at once, p50 / p99"), text, promise);
            row(&format!("  all {burst} Running after (slowest round)"), millis(whole), "");
        }
        row("RSS after these pods", mebibytes(process::resident_kib(running.pid()?)?), "");
        Ok(())
    })
}

async fn remove_all(api: &Api<Pod>) -> Result<()> {
    let here = ListParams::namespace("default");
    api.delete_collection(&here, &DeleteParams::default().grace_period_seconds(0)).await?;
    let start = Instant::now();
    while !api.list(&here).await?.items.is_empty() {
        ensure!(start.elapsed() < LIMIT, "pods were not removed in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Grace 0 removes the object at once; the node needs a moment more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}
