//! A node's life, in the order it happens: connect, register, take back, follow, leave.

use std::{sync::Arc, time::Duration};

use api_client::{Cache, Client, ListParams, Received, events::Recorder};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Options, Progress, certificates, cgroup,
    cluster::server::ApiCluster,
    image::{
        drop_in::DropIn,
        gc::{self, Collector},
    },
    lock,
    node::{self, NodeKeeper, lease},
    node_api,
    pod::{PodId, Pods, Shared},
    runtime::{self, Runtime},
    sandbox::mend,
};

/// Between tries to reach containerd.
const CONTAINERD_RETRY: Duration = Duration::from_millis(500);
/// What still runs after this at shutdown is left: pods go on either way.
const DRAIN: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error("node API")]
    NodeApi(#[from] node_api::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("create {path}")]
    Directory { path: String, source: std::io::Error },
}

/// Runs this host as a node until shutdown. Pods keep running after it.
pub async fn run(client: Client, mut options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    std::fs::create_dir_all(&options.state_dir)
        .map_err(|source| Error::Directory { path: options.state_dir.display().to_string(), source })?;
    let _lock = lock::take(&options.state_dir)?;
    let addresses = node::own_addresses(&options)?;
    let runtime = Runtime::new(
        &options.containerd_address,
        &options.containerd_namespace,
        &options.snapshotter,
        options.oci_runtime.as_deref(),
    )?;
    let tasks = TaskTracker::new();
    let cluster = Arc::new(ApiCluster::start(&client, &options.node_name, &tasks, shutdown.clone()));
    let events = cluster.recorder();
    let shared = Arc::new(Shared::new(&options, runtime, cluster, addresses, shutdown.clone()));
    shared.cgroups.ensure_classes(shared.node_cpu_milli)?;

    let server = node_api::Server::bind(&options, shared.clone()).await?;
    // The Node tells the port, which the kernel may have chosen.
    options.bind = server.address();
    tasks.spawn(server.run(shutdown.clone()));
    let keeper = NodeKeeper::new(&client, &options, shared.clone());
    let Some(node) = shutdown.run_until_cancelled(keeper.register()).await else { return Ok(()) };
    let node = node?;
    shared.sandboxes.set_pod_ranges(&node::pod_ranges(&node));
    shared.sandboxes.warn_of_rival();
    tasks.spawn(mend::keep(shared.sandboxes.clone(), shutdown.clone()));
    let uid = node.metadata.uid.clone().unwrap_or_default();
    tasks.spawn(lease::keep(client.clone(), options.node_name.clone(), uid, shutdown.clone()));
    tasks.spawn(keeper.keep(client.clone(), node, tasks.clone()));
    keep_certificates(&client, &options, &shared, &tasks, &shutdown);

    keep_images(&options, &shared, events, &tasks, &shutdown);
    if let Some(pods) = shutdown.run_until_cancelled(containerd(&shared, &options.progress)).await {
        follow(&client, &options, pods, &tasks, &shutdown).await;
    }
    drain(&tasks, &shared.tasks).await;
    Ok(())
}

/// Renews what the node got by certificate requests. After registration: a serving certificate is for the addresses
/// that the Node tells.
fn keep_certificates(
    client: &Client,
    options: &Options,
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let Some(certificates) = options.certificates.clone() else { return };
    let node = options.node_name.clone();
    tasks.spawn(certificates::renew_client(client.clone(), certificates.clone(), node.clone(), shutdown.clone()));
    let (shared, name) = (shared.clone(), node.clone());
    // Asked for each time: the host's address may change.
    let names = move || certificates::Names { dns: vec![name.clone()], addresses: shared.node().addresses.clone() };
    tasks.spawn(certificates::renew_serving(client.clone(), certificates, node, names, shutdown.clone()));
}

/// Imports of archives and the removal of unused images.
fn keep_images(
    options: &Options,
    shared: &Arc<Shared>,
    events: Recorder,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    if let Some(directory) = &options.image_dir {
        let drop_in = DropIn::new(shared.runtime.clone(), directory.clone(), &options.state_dir);
        tasks.spawn(drop_in.run(shutdown.clone()));
    }
    let collector = Collector::new(shared.runtime.clone(), shared.images.uses.clone(), options.image_gc.clone());
    let node = node::reference(&options.node_name);
    let report = move |error: &gc::Error| events.warning(node.clone(), error.reason(), error.to_string());
    tasks.spawn(collector.run(report, shutdown.clone()));
}

/// What containerd has. Waits for containerd: without it nothing is known and nothing must be started.
async fn containerd(shared: &Arc<Shared>, progress: &Progress) -> Pods {
    let mut told = String::new();
    loop {
        let error = match shared.runtime.version().await {
            Ok(_) => match Pods::new(shared.clone()).await {
                Ok(pods) => return pods,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        // Tried often, told once.
        if error != told {
            progress.waits_for(format!("containerd: {error}"));
            tracing::warn!(error, "waiting for containerd: pods neither start nor stop until it answers");
            told = error;
        }
        tokio::time::sleep(CONTAINERD_RETRY).await;
    }
}

/// Hands every pod of this node to its owner, until shutdown.
async fn follow(client: &Client, options: &Options, mut pods: Pods, tasks: &TaskTracker, shutdown: &CancellationToken) {
    pods.follow_exits();
    let here = ListParams::default().fields(format!("spec.nodeName={}", options.node_name));
    let cache = Cache::<Pod>::start(client, here, tasks, shutdown.clone());
    let mut changes = cache.subscribe();
    if shutdown.run_until_cancelled(cache.synced()).await.is_none() {
        return;
    }
    reconcile(&mut pods, &cache);
    pods.complete();
    let mut questions = options.progress.following();
    loop {
        options.progress.pods(pods.len());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = pods.reap() => {}
            () = questions.answer() => {}
            received = changes.recv() => match received {
                Some(Received::Change(change)) => match (change.old, change.new) {
                    (old, Some(new)) => {
                        let replaced = old.filter(|old| old.metadata.uid != new.metadata.uid);
                        if let Some(old) = replaced {
                            pods.gone(&PodId::of(&old));
                        }
                        pods.put(new);
                    }
                    (Some(old), None) => pods.gone(&PodId::of(&old)),
                    (None, None) => {}
                },
                Some(Received::Rescan) => reconcile(&mut pods, &cache),
                None => return,
            },
        }
    }
}

/// Puts every pod of the snapshot, and tells of those that are not in it.
fn reconcile(pods: &mut Pods, cache: &Cache<Pod>) {
    let snapshot = cache.snapshot();
    let current = snapshot.iter().map(|pod| PodId::of(pod)).collect::<std::collections::HashSet<_>>();
    for id in pods.ids() {
        if !current.contains(&id) {
            pods.gone(&id);
        }
    }
    snapshot.iter().for_each(|pod| pods.put(pod.clone()));
}

async fn drain(tasks: &TaskTracker, pods: &TaskTracker) {
    tasks.close();
    pods.close();
    let all = async { tokio::join!(tasks.wait(), pods.wait()) };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::warn!("some of the agent's work did not end in time");
    }
}
