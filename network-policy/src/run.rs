//! The engine at work: gather what is new, plan where that needs a plan, commit the difference, answer who waits.
//!
//! While a cluster has no policy, nothing is watched but policies, and the kernel has nothing of ours.

use std::sync::Arc;
use std::time::Duration;

use api_client::{Cache, Client, ListParams, Received, Subscription};
use nftables::{Batch, Monitor, Socket};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::gate::{Arrivals, Message};
use crate::objects::{Namespace, NetworkPolicy, Pod};
use crate::plan::Plan;
use crate::state::State;
use crate::table;

/// After a refused transaction.
const RETRY: Duration = Duration::from_secs(1);
/// Whether the pod network is ours is looked at this often: a CNI configuration may appear on the host.
const LOOK: Duration = Duration::from_secs(60);
/// After somebody else's change: they may have more of them.
const REPAIR_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {0} cache ended unexpectedly")]
    CacheEnded(&'static str),
    #[error(transparent)]
    Kernel(#[from] nftables::Error),
    #[error("the thread that talks to the kernel ended early")]
    Thread,
}

#[derive(Clone)]
pub struct Options {
    pub node_name: String,
    /// Name of the nftables tables, of both address families.
    pub table: String,
    /// Whether this node's pods are in the built-in network. Another one has policies of its own.
    pub active: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What is watched while there are policies.
struct Cluster {
    namespaces: Cache<Namespace>,
    pods: Cache<Pod>,
    namespace_news: Subscription<Namespace>,
    pod_news: Subscription<Pod>,
    synced: bool,
    _end: DropGuard,
}

impl Cluster {
    fn start(client: &Client, tasks: &TaskTracker, shutdown: &CancellationToken) -> Self {
        let end = shutdown.child_token();
        let namespaces = Cache::start(client, ListParams::default(), tasks, end.clone());
        let pods = Cache::start(client, ListParams::default(), tasks, end.clone());
        let (namespace_news, pod_news) = (namespaces.subscribe(), pods.subscribe());
        Self { namespaces, pods, namespace_news, pod_news, synced: false, _end: end.drop_guard() }
    }
}

enum News {
    Policies,
    Namespaces,
    Pod(Received<Pod>),
    Synced,
    Agent(Message),
    /// Somebody else has changed our tables.
    Foreign,
    Time,
    End,
}

struct Engine {
    options: Options,
    state: State,
    policies: Cache<NetworkPolicy>,
    policy_news: Subscription<NetworkPolicy>,
    cluster: Option<Cluster>,
    arrivals: Arrivals,
    waiting: Vec<oneshot::Sender<()>>,
    socket: Option<Socket>,
    monitor: Monitor,
    /// What the kernel has; `None` when that is not known.
    applied: Option<Plan>,
    failed: bool,
}

/// Enforces the policies on this node's pods until `shutdown`. The tables stay when it ends: pods go on.
pub async fn run(
    client: Client,
    options: Options,
    arrivals: Arrivals,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    let caches = shutdown.child_token();
    let _end_caches = caches.clone().drop_guard();
    let policies = Cache::<NetworkPolicy>::start(&client, ListParams::default(), &tasks, caches.clone());
    let policy_news = policies.subscribe();
    let socket = Socket::open()?;
    let monitor = Monitor::open(&[socket.port()?])?;
    let mut engine = Engine {
        state: State::new(&options.node_name),
        policies,
        policy_news,
        cluster: None,
        arrivals,
        waiting: Vec::new(),
        socket: Some(socket),
        monitor,
        applied: None,
        failed: false,
        options,
    };
    loop {
        match engine.news(&shutdown).await? {
            News::End => return Ok(()),
            news => engine.take(news),
        }
        // Whatever else is there goes into the same transaction.
        while let Some(news) = engine.more(&shutdown)? {
            engine.take(news);
        }
        engine.follow_cluster(&client, &tasks, &caches);
        if engine.is_ready() {
            engine.converge().await?;
        }
    }
}

impl Engine {
    async fn news(&mut self, shutdown: &CancellationToken) -> Result<News, Error> {
        let pause = if self.failed { RETRY } else { LOOK };
        let policies_synced = self.policies.is_synced();
        let tables = table::tables(&self.options.table);
        let cluster = self.cluster.as_mut();
        let from_cluster = async {
            let Some(cluster) = cluster else { return std::future::pending().await };
            if !cluster.synced {
                tokio::join!(cluster.namespaces.synced(), cluster.pods.synced());
                return Ok(News::Synced);
            }
            tokio::select! {
                change = cluster.pod_news.recv() => change.map(News::Pod).ok_or(Error::CacheEnded("Pod")),
                change = cluster.namespace_news.recv() => {
                    change.map(|_| News::Namespaces).ok_or(Error::CacheEnded("Namespace"))
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(News::End),
            () = self.policies.synced(), if !policies_synced => Ok(News::Policies),
            change = self.policy_news.recv(), if policies_synced => {
                change.map(|_| News::Policies).ok_or(Error::CacheEnded("NetworkPolicy"))
            }
            Some(message) = self.arrivals.0.recv() => Ok(News::Agent(message)),
            news = from_cluster => news,
            changed = self.monitor.changed(&tables) => {
                changed?;
                Ok(News::Foreign)
            }
            () = tokio::time::sleep(pause) => Ok(News::Time),
        }
    }

    /// News that are there already.
    fn more(&mut self, shutdown: &CancellationToken) -> Result<Option<News>, Error> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let news = std::pin::pin!(self.news(shutdown));
        match news.poll(&mut context) {
            std::task::Poll::Ready(Ok(News::End)) | std::task::Poll::Pending => Ok(None),
            std::task::Poll::Ready(news) => news.map(Some),
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Policies => {
                let snapshot = self.policies.snapshot();
                self.state.set_policies(snapshot.iter().map(AsRef::as_ref));
            }
            News::Synced => {
                let Some(cluster) = &mut self.cluster else { return };
                cluster.synced = true;
                self.state.set_namespaces(&cluster.namespaces.snapshot());
                self.state.set_pods(&cluster.pods.snapshot());
            }
            News::Namespaces => {
                if let Some(cluster) = &self.cluster {
                    self.state.set_namespaces(&cluster.namespaces.snapshot());
                }
            }
            News::Pod(Received::Change(change)) => self.state.change_pod(change.old.as_ref(), change.new.as_ref()),
            News::Pod(Received::Rescan) => {
                if let Some(cluster) = &self.cluster {
                    self.state.set_pods(&cluster.pods.snapshot());
                }
            }
            News::Agent(Message::Came { pod, protected }) => {
                self.state.come(pod);
                self.waiting.extend(protected);
            }
            News::Agent(Message::Left { uid }) => self.state.leave(&uid),
            News::Foreign => self.applied = None,
            News::Time => self.state.stale = true,
            News::End => {}
        }
    }

    /// Pods and namespaces are watched for policies alone.
    fn follow_cluster(&mut self, client: &Client, tasks: &TaskTracker, shutdown: &CancellationToken) {
        match (&self.cluster, self.state.has_policies()) {
            (None, true) => self.cluster = Some(Cluster::start(client, tasks, shutdown)),
            (Some(_), false) => {
                self.cluster = None;
                self.state.forget_cluster();
            }
            _ => {}
        }
    }

    /// Before everything was read once, what an earlier run left in the kernel stays.
    fn is_ready(&self) -> bool {
        self.policies.is_synced() && self.cluster.as_ref().is_none_or(|cluster| cluster.synced)
    }

    async fn converge(&mut self) -> Result<(), Error> {
        if self.applied.is_none() {
            self.state.stale = true;
            prepare_kernel();
        }
        let before = self.applied.take();
        let fresh = self.state.stale.then(|| self.state.plan((self.options.active)()));
        let name = &self.options.table;
        let (batch, plan) = match (&before, fresh) {
            (Some(old), Some(new)) => (self.change(old, &new), new),
            (Some(old), None) => (self.change(old, old), old.clone()),
            (None, Some(new)) if new.chains.is_empty() => (table::removal(name), new),
            (None, new) => {
                let new = new.unwrap_or_default();
                (table::replacement(name, &new, &self.state.membership), new)
            }
        };
        match self.commit(batch).await? {
            Ok(()) => {
                if before.is_none_or(|old| old.chains.is_empty()) && !plan.chains.is_empty() {
                    info!(pods = plan.isolated().len(), table = self.options.table, "network policies are enforced");
                }
                self.state.membership.settle();
                self.applied = Some(plan);
                self.failed = false;
                self.release();
            }
            Err(error) => {
                // The tables are not what we take them for: they are written whole next time. Who waits goes on waiting.
                warn!(%error, "network policies were not applied; new pods wait");
                self.failed = true;
                if !self.state.has_policies() {
                    self.release();
                }
                tokio::time::sleep(REPAIR_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Whoever waits may start.
    fn release(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Where the agent has given the pod up, nobody waits any more.
            let _gone = waiting.send(());
        }
    }

    /// The transaction between two plans. The tables come with the first isolated pod and go with the last.
    fn change(&self, old: &Plan, new: &Plan) -> Batch {
        let name = &self.options.table;
        match (old.chains.is_empty(), new.chains.is_empty()) {
            (true, true) => Batch::new(),
            (false, true) => table::removal(name),
            (true, false) => table::replacement(name, new, &self.state.membership),
            (false, false) => {
                let mut batch = Batch::new();
                table::difference(&mut batch, name, old, new, &self.state.membership);
                batch
            }
        }
    }

    async fn commit(&mut self, mut batch: Batch) -> Result<Result<(), nftables::Error>, Error> {
        if batch.is_empty() {
            return Ok(Ok(()));
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => return Err(Error::Thread),
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = socket.commit(&mut batch);
            (socket, result)
        });
        let (socket, result) = done.await.map_err(|_| Error::Thread)?;
        self.socket = Some(socket);
        Ok(result)
    }
}

/// Removes the tables. Success when there are none.
pub fn cleanup(name: &str) -> Result<(), Error> {
    Ok(Socket::open()?.commit(&mut table::removal(name))?)
}

/// Frames between pods of one bridge pass the host's filters only where the kernel is told so.
pub(crate) fn prepare_kernel() {
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            continue;
        }
        if let Err(error) = std::fs::write(&path, "1") {
            warn!(path, %error, "policies between pods of this node need a kernel parameter that could not be set");
        }
    }
}
