//! The scheduler at work: one task owns the cluster's picture and the queue, and decides one pod after another;
//! bindings and status reports are written beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api_client::events::{ObjectReference, Recorder};
use api_client::{Cache, Change, Client, ListParams, Object, ObjectKey, Patch, Received};
use futures_util::FutureExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::cycle::{self, FitError};
use crate::objects::{DEFAULT_SCHEDULER_NAME, Node, Pod};
use crate::queue::{Event, Queue};

/// Writes (bindings, reports) on their way at once. At the limit deciding pauses: what is decided later is decided
/// on a fresher picture.
const WRITES_MAX: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the scheduler's {0} task ended unexpectedly")]
    TaskEnded(&'static str),
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Pods whose `spec.schedulerName` is this are ours.
    pub scheduler_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { scheduler_name: DEFAULT_SCHEDULER_NAME.to_owned() }
    }
}

/// Schedules until `shutdown`.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    // The caches end with this function, however it ends.
    let caches = shutdown.child_token();
    let _end_caches = caches.clone().drop_guard();
    let pods = Cache::<Pod>::start(&client, ListParams::default(), &tasks, caches.clone());
    let nodes = Cache::<Node>::start(&client, ListParams::default(), &tasks, caches.clone());
    let recorder = Recorder::start(&client, &options.scheduler_name, "", &tasks, caches);
    tasks.close();
    let scheduler = Scheduler {
        client,
        recorder,
        options,
        pods,
        nodes,
        cluster: Cluster::default(),
        queue: Queue::default(),
        keys: BTreeMap::new(),
        writes: JoinSet::new(),
        decisions: 0,
    };
    scheduler.run(shutdown).await
}

/// What became of a write.
enum Written {
    Binding { uid: String, bound: bool },
    Report,
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    options: Options,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    cluster: Cluster,
    queue: Queue,
    /// Keys of the pods in the queue, by uid.
    keys: BTreeMap<String, ObjectKey>,
    writes: JoinSet<Written>,
    decisions: usize,
}

impl Scheduler {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut pod_changes = self.pods.subscribe();
        let mut node_changes = self.nodes.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = async { tokio::join!(self.nodes.synced(), self.pods.synced()); } => {}
        }
        self.rescan();
        info!(nodes = self.nodes.snapshot().len(), pods = self.pods.snapshot().len(), "scheduler is ready");
        loop {
            let wake_at = self.queue.tick(Instant::now());
            let may_write = self.writes.len() < WRITES_MAX;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(written) = self.writes.join_next() => match written {
                    Ok(written) => self.finish(written),
                    Err(_) => return Err(Error::TaskEnded("write")),
                },
                change = node_changes.recv() => match change {
                    Some(Received::Change(change)) => self.node_changed(change),
                    Some(Received::Rescan) => self.rescan(),
                    None => return Err(Error::TaskEnded("node cache")),
                },
                change = pod_changes.recv() => match change {
                    Some(Received::Change(change)) => self.pod_changed(change),
                    Some(Received::Rescan) => self.rescan(),
                    None => return Err(Error::TaskEnded("pod cache")),
                },
                () = std::future::ready(()), if may_write && self.queue.has_ready() => self.decide(),
                () = until(wake_at) => {}
            }
        }
    }

    /// Builds the picture anew from the caches: at the start, and after changes were missed.
    fn rescan(&mut self) {
        self.cluster = Cluster::default();
        for node in self.nodes.snapshot().iter() {
            self.cluster.set_node(Arc::clone(node));
        }
        for pod in self.pods.snapshot().iter() {
            self.pod_changed(Change { key: pod.key(), old: None, new: Some(Arc::clone(pod)) });
        }
        self.queue.wake(Event::Node, Instant::now());
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let Some(node) = change.new else { return self.cluster.remove_node(&change.key.name) };
        let matters = change.old.is_none_or(|old| {
            old.metadata.labels != node.metadata.labels
                || old.taints != node.taints
                || old.unschedulable != node.unschedulable
                || old.allocatable != node.allocatable
                || old.pods_max != node.pods_max
        });
        self.cluster.set_node(node);
        if matters {
            self.queue.wake(Event::Node, Instant::now());
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let now = Instant::now();
        let Some(pod) = change.new else {
            let Some(old) = change.old else { return };
            self.dequeue(&old.metadata.uid);
            self.cluster.remove_pod(&old.metadata.uid);
            return self.queue.wake(Event::PodGone, now);
        };
        let uid = &pod.metadata.uid;
        self.cluster.set_pod(&pod);
        if pod.is_terminal {
            self.dequeue(uid);
            self.queue.wake(Event::PodGone, now);
        } else if !pod.node_name.is_empty() {
            self.dequeue(uid);
            if change.old.is_none_or(|o| o.node_name.is_empty() || o.metadata.labels != pod.metadata.labels) {
                self.queue.wake(Event::PodPlaced, now);
            }
        } else if self.is_ours(&pod) && !self.cluster.is_placed(uid) {
            // Our own report changes the status and must not wake the pod it is about.
            let is_news = change.old.is_none_or(|old| wants(&old) != wants(&pod));
            if is_news {
                self.keys.insert(uid.clone(), change.key);
                self.queue.add(uid, pod.priority);
            }
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        pod.scheduler_name == self.options.scheduler_name && !pod.metadata.is_deleting() && pod.gates.is_empty()
    }

    fn dequeue(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.keys.remove(uid);
    }

    fn decide(&mut self) {
        let Some(uid) = self.queue.pop() else { return };
        let pod = self.keys.get(&uid).and_then(|key| self.pods.get(key)).filter(|p| p.metadata.uid == uid);
        let Some(pod) = pod.filter(|p| self.is_ours(p)) else { return self.dequeue(&uid) };
        self.decisions += 1;
        match cycle::schedule(&pod, &self.cluster, self.decisions) {
            Ok(node) => {
                self.cluster.assume(&pod, &node.metadata.name);
                self.bind(&pod, &node.metadata.name);
            }
            Err(error) => {
                self.report(&pod, &error);
                self.queue.refused(&uid, error.plugins, Instant::now());
            }
        }
    }

    fn bind(&mut self, pod: &Arc<Pod>, node: &str) {
        let pods = self.client.api::<Pod>();
        let recorder = self.recorder.clone();
        let (pod, node) = (Arc::clone(pod), node.to_owned());
        self.writes.spawn(async move {
            let key = pod.key();
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": { "name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid },
                "target": { "apiVersion": "v1", "kind": "Node", "name": node },
            });
            let answer = pods.post_subresource::<serde_json::Value>(&key, "binding", &binding).await;
            match &answer {
                Ok(_) => {
                    let message = format!("Successfully assigned {key} to {node}");
                    recorder.normal(ObjectReference::to(&*pod), "Scheduled", message);
                }
                Err(error) => warn!(pod = %key, node, %error, "binding failed"),
            }
            Written::Binding { uid: pod.metadata.uid.clone(), bound: answer.is_ok() }
        });
    }

    /// Writes why the pod waits, unless that is what its status says already.
    fn report(&mut self, pod: &Arc<Pod>, error: &FitError) {
        let message = error.to_string();
        if pod.unscheduled_message.as_ref() == Some(&message) {
            return;
        }
        self.recorder.warning(ObjectReference::to(&**pod), "FailedScheduling", message.as_str());
        let pods = self.client.api::<Pod>();
        let pod = Arc::clone(pod);
        self.writes.spawn(async move {
            let key = pod.key();
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            });
            let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
            if let Err(error) = pods.patch_status(&key, &Patch::Strategic(patch)).await
                && !error.is_not_found()
            {
                warn!(pod = %key, %error, "reporting an unschedulable pod failed");
            }
            Written::Report
        });
    }

    fn finish(&mut self, written: Written) {
        let Written::Binding { uid, bound: false } = written else { return };
        self.cluster.forget(&uid);
        self.queue.failed(&uid, Instant::now());
    }
}

/// What of a waiting pod decides whether it is worth another try.
fn wants(pod: &Pod) -> impl PartialEq + '_ {
    (&pod.metadata.labels, &pod.tolerations, &pod.node_selector, &pod.gates, &pod.request, &pod.affinity)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending::<()>().boxed().await,
    }
}
