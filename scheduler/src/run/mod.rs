//! The scheduler at work: one task owns the cluster's picture and the queue, and decides one pod after another;
//! bindings, evictions and status reports are written beside it.

mod bind;
mod changes;
mod devices;
mod extend;
mod feed;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use api_client::events::Recorder;
use api_client::leader::Elector;
use api_client::{Client, Object, ObjectKey};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::cluster::Cluster;
use crate::config::{Config, Profile};
use crate::cycle::{self, Choice, Failure};
use crate::extender::Speaker;
use crate::objects::Pod;
use crate::plugins::{Context, Plugin};
use crate::preemption::{self, Outcome};
use crate::queue::{Event, Queue};
use feed::{Feed, Update};
use write::{Nomination, Written};

/// Writes (bindings, reports) on their way at once. At the limit deciding pauses: what is decided later is decided
/// on a fresher picture.
const WRITES_MAX: usize = 128;
/// Decisions in a row before other tasks of the thread have their turn.
const DECISIONS_IN_A_ROW: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the scheduler's {0} task ended unexpectedly")]
    TaskEnded(&'static str),
    #[error("leading the schedulers: {0}")]
    Leader(#[from] api_client::Error),
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub config: Config,
    /// This process's identity in the leader election. `None` runs without election, which is right for a cluster
    /// with one server: it then writes no lease.
    pub leader_identity: Option<String>,
}

/// The lease that the active scheduler holds: namespace and name, upstream's.
const LEASE: (&str, &str) = ("kube-system", "kube-scheduler");

/// Schedules until `shutdown`; with an identity, while this process leads.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let Some(identity) = options.leader_identity.clone() else { return lead(client, options, shutdown).await };
    let lease = ObjectKey::new(LEASE.0, LEASE.1);
    let ended = Arc::new(OnceLock::new());
    let work = |leading: CancellationToken| {
        let (client, ended) = (client.clone(), Arc::clone(&ended));
        async move {
            if let Err(error) = lead(client, options, leading).await {
                // Only one term is served, so the place is free.
                drop(ended.set(error));
            }
        }
    };
    Elector::new(&client, lease, identity).run(shutdown, work).await?;
    match Arc::into_inner(ended).and_then(OnceLock::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

async fn lead(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    // The caches end with this function, however it ends.
    let caches = shutdown.child_token();
    let _end_caches = caches.clone().drop_guard();
    let feed = Feed::start(&client, &tasks, caches.clone());
    let component = options.config.profiles.first().map_or("", |p| p.scheduler_name.as_str());
    let recorder = Recorder::start(&client, component, "", &tasks, caches);
    tasks.close();
    let scheduler = Scheduler {
        client,
        recorder,
        feed,
        cluster: Cluster::default(),
        queue: Queue::new(&options.config),
        config: Arc::new(options.config),
        writes: JoinSet::new(),
        extenders: Speaker::default(),
        decisions: 0,
        start: 0,
    };
    scheduler.run(shutdown).await
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    feed: Feed,
    config: Arc<Config>,
    cluster: Cluster,
    queue: Queue,
    writes: JoinSet<Written>,
    extenders: Speaker,
    decisions: usize,
    /// Where the next search over the nodes begins.
    start: usize,
}

impl Scheduler {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = self.feed.synced() => {}
        }
        self.take_updates();
        info!(nodes = self.feed.nodes.snapshot().len(), pods = self.feed.pods.snapshot().len(), "scheduler is ready");
        loop {
            // What others did first: decisions see all that is known.
            self.take_updates();
            let wake_at = self.queue.tick(Instant::now());
            let may_decide = self.writes.len() < WRITES_MAX && self.queue.has_ready();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(written) = self.writes.join_next() => match written {
                    Ok(written) => self.finish(written),
                    Err(_) => return Err(Error::TaskEnded("write")),
                },
                update = self.feed.updates.recv() => match update {
                    Some(update) => self.update(update),
                    None => return Err(Error::TaskEnded("cache")),
                },
                () = std::future::ready(()), if may_decide => {
                    self.decide().await;
                    if self.decisions.is_multiple_of(DECISIONS_IN_A_ROW) {
                        tokio::task::yield_now().await;
                    }
                }
                () = until(wake_at) => {}
            }
        }
    }

    fn take_updates(&mut self) {
        while let Ok(update) = self.feed.updates.try_recv() {
            self.update(update);
        }
    }

    fn wake(&mut self, event: &Event<'_>) {
        self.queue.wake(event, &self.config, &self.cluster, Instant::now());
    }

    /// The newest of a pod, if it is still the same one and ours to schedule.
    fn current(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.feed.pods.get(&pod.key()).filter(|p| p.metadata.uid == pod.metadata.uid && self.is_waiting(p))
    }

    async fn decide(&mut self) {
        let Some(pod) = self.queue.pop() else { return };
        let uid = pod.metadata.uid.as_str();
        let Some(pod) = self.current(&pod).filter(|_| !self.cluster.is_placed(uid)) else {
            return self.queue.remove(uid);
        };
        let config = Arc::clone(&self.config);
        let Some(profile) = config.profile(&pod) else { return self.queue.remove(uid) };
        self.decisions += 1;
        if config.extenders.iter().any(|e| e.is_interested(&pod)) {
            return self.decide_extended(profile, &pod).await;
        }
        let (cluster, start) = (&mut self.cluster, &mut self.start);
        match cycle::schedule(&pod, &config, profile, cluster, start, self.decisions) {
            Ok(choice) => self.bind(profile, &pod, choice),
            Err(failure) => self.failed(profile, &pod, failure),
        }
    }

    fn bind(&mut self, profile: &Profile, pod: &Arc<Pod>, choice: Choice) {
        let (uid, node) = (&pod.metadata.uid, &choice.node.metadata.name);
        self.cluster.assume(pod, node);
        self.cluster.storage.reserve(uid, node, choice.bindings.clone());
        self.cluster.devices.grant(uid, choice.grants.clone());
        self.spawn_binding(profile, pod, choice);
    }

    /// No node fits: room is made where that helps, and the pod says why it waits.
    fn failed(&mut self, profile: &Profile, pod: &Arc<Pod>, failure: Failure) {
        self.failed_with(profile, pod, failure, None);
    }

    /// `outcome`: of preemption, where it is decided already.
    fn failed_with(&mut self, profile: &Profile, pod: &Arc<Pod>, mut failure: Failure, outcome: Option<Outcome>) {
        let mut nomination = Nomination::Keep;
        if failure.error.nodes == 0 {
            self.cluster.nominated.remove(&pod.metadata.uid);
            nomination = Nomination::Clear;
        } else {
            let context = Context { pod, profile, cluster: &self.cluster };
            let decided = outcome.unwrap_or_else(|| preemption::plan(&context, &failure, self.decisions));
            let (message, outcome) = post_filter(profile, &failure, decided);
            failure.error.preemption = message;
            match outcome {
                Some(Outcome::Room { node, victims }) => {
                    let name = node.metadata.name.clone();
                    self.make_room(profile, pod, &name, victims);
                    nomination = Nomination::Set(name);
                }
                Some(Outcome::NoHelp(_)) => {
                    self.cluster.nominated.remove(&pod.metadata.uid);
                    nomination = Nomination::Clear;
                }
                Some(Outcome::Wait(_)) | None => {}
            }
        }
        self.report(profile, pod, "Unschedulable", failure.error.to_string(), nomination);
        self.queue.refused(&pod.metadata.uid, failure.error.plugins, Instant::now());
    }
}

/// What is tried when no node fits, and what it says (`RunPostFilterPlugins`).
fn post_filter(profile: &Profile, failure: &Failure, planned: Outcome) -> (Option<String>, Option<Outcome>) {
    let mut messages: Vec<String> = Vec::new();
    let mut outcome = None;
    for plugin in &profile.post_filters {
        match plugin {
            // The plugin looks for what it left before the nodes were looked at; where an earlier plugin gave up then,
            // there is nothing, and that is the end of it (`DynamicResources.PostFilter`).
            Plugin::DynamicResources if failure.state.is_none() && failure.error.rejection.is_some() => {
                messages.push("not found".to_owned());
                break;
            }
            Plugin::DynamicResources => {
                // Upstream also takes an allocation back that nobody uses and no node reaches; here its owner must.
                let has_claims = failure.state.as_ref().is_some_and(|s| !s.devices.is_empty());
                let message = if has_claims { "still not schedulable" } else { "no new claims to deallocate" };
                messages.push(message.to_owned());
            }
            Plugin::DefaultPreemption => {
                match &planned {
                    Outcome::Room { .. } => messages.clear(),
                    Outcome::Wait(message) | Outcome::NoHelp(message) => {
                        messages.push(format!("preemption: {message}"))
                    }
                }
                outcome = Some(planned);
                break;
            }
            _ => {}
        }
    }
    let message = (!messages.is_empty()).then(|| messages.join(", "));
    (message, outcome)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
