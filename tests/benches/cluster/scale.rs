//! A large cluster without containers: `cargo xtask bench scale --nodes 500 --pods 5000`. Nodes of `keelson simulate`
//! join a server without an agent, Deployments are applied, rolled out and deleted, and each step says how long it took
//! and what of the server's CPU. Server, simulated nodes and this program share the machine, as the rows say.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api_client::{Api, Cache, Client, DeleteParams, ListParams, Meta, ObjectKey, Patch};
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::process::{self, Background, command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rig::{self, Running, block_on, mebibytes, row};

/// Pods of one Deployment; more pods are more Deployments, as nobody has 50,000 of one.
const PODS_PER_DEPLOYMENT: usize = 5_000;
/// Longest time for one step.
const LIMIT: Duration = Duration::from_secs(1_800);
/// How long the cluster at rest is watched.
const REST: Duration = Duration::from_secs(20);

/// What is measured; the defaults are those of the project's promises for one 2-core server.
#[derive(Clone, Copy)]
pub struct Size {
    pub nodes: usize,
    pub pods: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { nodes: 500, pods: 5_000 }
    }
}

/// The part of a pod that is counted.
#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Container {
    image: String,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Status {
    phase: String,
}

api_client::projection!(Pod as core::Pod);

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Node {
    metadata: Meta,
    spec: NodeSpec,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    taints: Vec<core::Taint>,
}

api_client::projection!(Node as core::Node);

/// Counts kept from a watch; walking 50,000 pods for every event would be what is measured.
#[derive(Default)]
struct Counts {
    all: AtomicUsize,
    bound: AtomicUsize,
    /// Running, by image: of the first version, and of the second.
    running: [AtomicUsize; 2],
    untainted_nodes: AtomicUsize,
    changed: Notify,
}

const IMAGES: [&str; 2] = ["app:1", "app:2"];

impl Counts {
    fn pod(&self, pod: &Pod, by: fn(&AtomicUsize)) {
        by(&self.all);
        if !pod.spec.node_name.is_empty() {
            by(&self.bound);
        }
        let image = pod.spec.containers.first().map(|c| c.image.as_str());
        if let Some(version) = IMAGES.iter().position(|known| Some(*known) == image)
            && pod.status.phase == "Running"
            && !pod.metadata.is_deleting()
        {
            by(&self.running[version]);
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let wait = async {
            while !holds(self) {
                self.changed.notified().await;
            }
        };
        let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        tokio::time::timeout(LIMIT, wait).await.with_context(|| {
            let running = self.running.each_ref().map(now);
            format!("{what}: {} pods, {} bound, running by version {running:?}", now(&self.all), now(&self.bound))
        })
    }
}

fn up(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn down(count: &AtomicUsize) {
    count.fetch_sub(1, Ordering::Relaxed);
}

/// Counts kept up to date until the token is cancelled.
fn watch(client: &Client, stop: &CancellationToken) -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    let tasks = TaskTracker::new();
    let seen = Arc::clone(&counts);
    Cache::<Pod>::start(client, ListParams::namespace("default"), &tasks, stop.clone()).observe(move |change| {
        change.old.iter().for_each(|pod| seen.pod(pod, down));
        change.new.iter().for_each(|pod| seen.pod(pod, up));
        seen.changed.notify_one();
    });
    let seen = Arc::clone(&counts);
    Cache::<Node>::start(client, ListParams::default(), &tasks, stop.clone()).observe(move |change| {
        let is_free = |node: &Arc<Node>| node.spec.taints.is_empty();
        change.old.iter().filter(|n| is_free(n)).for_each(|_| down(&seen.untainted_nodes));
        change.new.iter().filter(|n| is_free(n)).for_each(|_| up(&seen.untainted_nodes));
        seen.changed.notify_one();
    });
    counts
}

/// Times of the two processes at the start of a step.
struct Step {
    start: Instant,
    pids: [u32; 2],
    cpu: [Duration; 2],
}

impl Step {
    fn begin(server: u32, nodes: u32) -> Result<Self> {
        let pids = [server, nodes];
        Ok(Self { start: Instant::now(), pids, cpu: [process::cpu_time(server)?, process::cpu_time(nodes)?] })
    }

    fn so_far(&self, what: &str) {
        row(what, format!("{:.2} s", self.start.elapsed().as_secs_f64()), "");
    }

    fn end(&self, what: &str, things: usize) -> Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        row(what, format!("{seconds:.2} s"), &format!("{:.0} a second", things as f64 / seconds));
        let used = |at: usize| anyhow::Ok((process::cpu_time(self.pids[at])? - self.cpu[at]).as_secs_f64());
        row("  CPU: server / simulated nodes", format!("{:.1} / {:.1} s", used(0)?, used(1)?), "");
        row("  server's memory now", mebibytes(process::resident_kib(self.pids[0])?), "");
        Ok(())
    }
}

pub fn scale(size: Size) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let running = Running::start(rig::options(dir.path(), false, &[])?)?;
    let simulated = simulate(dir.path(), &running.0.kubeconfig(), size.nodes)?;
    let result = block_on(measure(&running, &simulated, size));
    if result.is_err() {
        eprintln!("{}", running.0.diagnosis());
    }
    simulated.stop()?;
    result
}

fn simulate(dir: &Path, kubeconfig: &Path, nodes: usize) -> Result<Background> {
    let mut simulate = command(rig::binary()?, ["simulate", "--prefix=sim-", "--nodes"]);
    simulate.arg(nodes.to_string()).arg("--kubeconfig").arg(kubeconfig);
    Background::start(simulate, &dir.join("simulate.pid"), &dir.join("simulate.log"))
}

async fn measure(running: &Running, simulated: &Background, size: Size) -> Result<()> {
    let (server, nodes) = (running.pid()?, simulated.pid().context("the simulated nodes have ended")?);
    let client = running.client()?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let counts = watch(&client, &stop);
    let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);

    let step = Step::begin(server, nodes)?;
    counts.until("nodes", |c| now(&c.untainted_nodes) == size.nodes).await?;
    step.end(&format!("{} nodes registered and Ready", size.nodes), size.nodes)?;

    let step = Step::begin(server, nodes)?;
    tokio::time::sleep(REST).await;
    step.end(&format!("at rest for {} s, leases renewed", REST.as_secs()), 0)?;

    let api: Api<apps::Deployment> = client.api();
    let step = Step::begin(server, nodes)?;
    let deployments = apply(&api, size.pods).await?;
    counts.until("pods made", |c| now(&c.all) >= size.pods).await?;
    step.so_far(&format!("  {} pods made", size.pods));
    counts.until("pods bound", |c| now(&c.bound) >= size.pods).await?;
    step.so_far("  all bound");
    counts.until("pods running", |c| now(&c.running[0]) >= size.pods).await?;
    step.end(&format!("{} pods, apply to all Running", size.pods), size.pods)?;
    until_status(&api, &deployments, |status, wanted| status.ready_replicas == Some(wanted)).await?;
    step.so_far("  the Deployments say so");

    let step = Step::begin(server, nodes)?;
    for key in deployments.keys() {
        let container = json!([{ "name": "c", "image": IMAGES[1] }]);
        let patch = json!({ "spec": { "template": { "spec": { "containers": container } } } });
        api.patch(key, &Patch::Strategic(patch)).await?;
    }
    let rolled_out = |c: &Counts| now(&c.running[1]) == size.pods && now(&c.all) == size.pods;
    counts.until("rollout", rolled_out).await?;
    step.end("rollout of all", size.pods)?;

    let step = Step::begin(server, nodes)?;
    for key in deployments.keys() {
        api.delete(key, &DeleteParams::default()).await?;
    }
    counts.until("deletion", |c| now(&c.all) == 0).await?;
    step.end("deletion of all", size.pods)?;
    row("server's memory at its peak", mebibytes(process::peak_kib(server)?), "");
    Ok(())
}

/// Makes Deployments of as many pods together; how many pods each has.
async fn apply(api: &Api<apps::Deployment>, pods: usize) -> Result<HashMap<ObjectKey, i32>> {
    let mut made = HashMap::new();
    for (index, start) in (0..pods).step_by(PODS_PER_DEPLOYMENT).enumerate() {
        let (name, replicas) = (format!("web-{index}"), (pods - start).min(PODS_PER_DEPLOYMENT));
        api.create_value(&deployment(&name, replicas)).await.context("create a Deployment")?;
        made.insert(ObjectKey::new("default", name), i32::try_from(replicas)?);
    }
    Ok(made)
}

fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({ "app": name });
    let container = json!({ "name": "c", "image": IMAGES[0],
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    })
}

async fn until_status(
    api: &Api<apps::Deployment>,
    wanted: &HashMap<ObjectKey, i32>,
    holds: impl Fn(&apps::DeploymentStatus, i32) -> bool,
) -> Result<()> {
    let start = Instant::now();
    for (key, replicas) in wanted {
        while !api.get(key).await?.status.is_some_and(|status| holds(&status, *replicas)) {
            if start.elapsed() > LIMIT {
                bail!("Deployment {key} did not come to its state in time");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
