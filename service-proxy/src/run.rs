//! The proxy at work: wait for a change, plan the Services it concerns, change their elements. Changes that come while
//! a transaction is being applied are taken together by the next one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::meta::ObjectKey;
use api_client::{Cache, Change, Client, ListParams, Object};
use jiff::Timestamp;
use nftables::{Family, Monitor, Table};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::apply::{Plans, Tables};
use crate::endpoints::{Place, local_ready};
use crate::flows::Flows;
use crate::health::{Health, HealthChecks, serve_node};
use crate::metrics::Metrics;
use crate::objects::{BY_SERVICE, EndpointSlice, NodeObject, Service, ServiceRanges, ZONE_LABEL};
use crate::plan::{Node, plan};
use crate::settings;
use crate::table::Fixed;
use api::cidr::Cidr;

/// Pause after a refused transaction, or after a repair, before the tables are looked at as a whole again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long chains without use stay, before and between the two steps of their removal.
const TIDY_PAUSE: Duration = Duration::from_secs(2);
/// How long the ranges of cluster addresses are waited for at the start: an API server may have none to tell.
const RANGES_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel's nftables cannot be used: {0}")]
    Kernel(#[from] nftables::Error),
    #[error("a change of the tables was given up: {0}")]
    Task(#[from] tokio::task::JoinError),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// This node's DNS server: behind the DNS Service as long as that has no endpoints.
    pub dns: Option<SocketAddrV4>,
    pub table: Fixed,
    /// Where `/healthz` and `/livez` are, if anywhere.
    pub healthz: Option<SocketAddr>,
    pub metrics: Metrics,
    /// Addresses of pods here that have stopped taking connections, kept up to date by whoever runs them.
    pub unready: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
}

/// Keeps this node's tables up to date until `shutdown`. They stay when it ends: connections go on.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    settings::prepare(options.table.pods.iter().any(|r| r.base.is_ipv6()), options.table.localhost_node_ports);
    let tasks = TaskTracker::new();
    let caches = shutdown.child_token();
    // The caches end with this function, however it ends.
    let _end_caches = caches.clone().drop_guard();
    let health = Health::default();
    if let Some(address) = options.healthz {
        let (end, serving) = (caches.clone(), serve_node(address, health.clone(), options.metrics.clone()));
        tasks.spawn(async move { end.run_until_cancelled(serving).await });
    }
    let own_node = ListParams::default().fields(format!("metadata.name={}", options.node_name));
    let sources = Sources {
        services: Cache::start(&client, ListParams::default(), &tasks, caches.clone()),
        slices: Cache::start_indexed(client.api(), ListParams::default(), &[BY_SERVICE], &tasks, caches.clone()),
        ranges: Cache::start(&client, ListParams::default(), &tasks, caches.clone()),
        node: Cache::start(&client, own_node, &tasks, caches),
        options,
        health,
    };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        // Before the first full state is known nothing is touched: what an earlier run left goes on working. The node
        // itself may not be registered yet, and only its zone and addresses are missing then.
        () = sources.synced() => {}
    }
    Proxy::start(sources)?.work(shutdown).await
}

/// Removes the tables.
pub fn cleanup(table: &Fixed) -> Result<(), Error> {
    Ok(Tables::open(table.clone())?.remove()?)
}

struct Sources {
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    ranges: Cache<ServiceRanges>,
    node: Cache<NodeObject>,
    options: Options,
    health: Health,
}

/// Services that changed since they were last looked at.
struct Changed {
    waiting: Mutex<Waiting>,
    notify: Notify,
    health: Health,
    metrics: Metrics,
    /// Causes before this are of no interest: it was not this process that took so long.
    start: Timestamp,
}

#[derive(Default)]
struct Waiting {
    services: BTreeSet<ObjectKey>,
    /// When the causes of endpoints' changes were, and of which family they are.
    causes: Vec<(bool, Timestamp)>,
}

impl Changed {
    fn service(&self, key: ObjectKey) {
        self.metrics.services_changed();
        self.waiting().services.insert(key);
        self.wake();
    }

    fn slice(&self, change: &Change<EndpointSlice>) {
        self.metrics.endpoints_changed();
        let mut waiting = self.waiting();
        for slice in change.old.iter().chain(&change.new).filter(|slice| !slice.service().is_empty()) {
            waiting.services.insert(ObjectKey::new(slice.namespace(), slice.service()));
        }
        let cause = change.new.as_ref().and_then(|slice| slice.cause().map(|at| (slice.is_of(true), at)));
        waiting.causes.extend(cause.filter(|(_, at)| *at > self.start));
        drop(waiting);
        self.wake();
    }

    fn wake(&self) {
        self.health.queued();
        self.metrics.queued();
        self.notify.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Waiting {
        self.health.working();
        self.metrics.taken();
        std::mem::take(&mut *self.waiting())
    }
}

impl Sources {
    async fn synced(&self) {
        tokio::join!(self.services.synced(), self.slices.synced(), self.node.synced());
        // Without them nothing fails: what goes to an address that nobody has is then not dropped here.
        drop(tokio::time::timeout(RANGES_WAIT, self.ranges.synced()).await);
    }

    fn observe(&self, changed: &Arc<Changed>) {
        let of = changed.clone();
        self.services.observe(move |change| of.service(change.key.clone()));
        let of = changed.clone();
        self.slices.observe(move |change| of.slice(change));
        let of = changed.clone();
        self.ranges.observe(move |_| of.notify.notify_one());
        let of = changed.clone();
        self.node.observe(move |_| of.notify.notify_one());
    }

    fn node(&self) -> Node {
        let name = self.options.node_name.clone();
        let object = self.node.get(&ObjectKey::new("", &name));
        self.health.set_eligible(object.as_ref().is_some_and(|node| node.is_eligible()));
        let object = object.unwrap_or_default();
        let zone = object.metadata.labels.get(ZONE_LABEL).cloned().unwrap_or_default();
        let addresses = object.status.addresses.iter().filter_map(|a| a.address.parse().ok()).collect();
        let unready = self.options.unready.borrow().clone();
        Node { place: Place { node: name, zone, unready }, dns: self.options.dns, addresses }
    }

    /// Services with endpoints on this node at any of these addresses.
    fn at(&self, addresses: &BTreeSet<&IpAddr>) -> BTreeSet<ObjectKey> {
        let slices = self.slices.snapshot();
        let concerned = slices.iter().filter(|slice| {
            let mut here = slice.endpoints.iter().filter(|endpoint| *endpoint.node_name == *self.options.node_name);
            here.any(|endpoint| endpoint.address.is_some_and(|address| addresses.contains(&address)))
        });
        concerned.map(|slice| ObjectKey::new(slice.namespace(), slice.service())).collect()
    }

    /// Ranges of cluster addresses, in order.
    fn ranges(&self) -> Vec<Cidr> {
        let all = self.ranges.snapshot();
        let mut ranges: Vec<Cidr> = all.iter().flat_map(|object| object.spec.cidrs.iter().copied()).collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    fn all(&self) -> BTreeSet<ObjectKey> {
        self.services.snapshot().iter().map(|service| service.key()).collect()
    }
}

struct Proxy {
    sources: Sources,
    changed: Arc<Changed>,
    node: Node,
    ranges: Vec<Cidr>,
    /// `None` only while a change is being applied.
    work: Option<Work>,
    checks: HealthChecks,
    /// The tables as a whole have to be looked at, not before then.
    repair_at: Option<Instant>,
    tidy_at: Option<Instant>,
}

/// What a change needs to be applied.
struct Work {
    tables: Tables,
    flows: Flows,
}

impl Proxy {
    fn start(sources: Sources) -> Result<Self, Error> {
        let Options { metrics, table, .. } = &sources.options;
        let changed = Arc::new(Changed {
            waiting: Mutex::default(),
            notify: Notify::new(),
            health: sources.health.clone(),
            metrics: metrics.clone(),
            start: Timestamp::now(),
        });
        sources.observe(&changed);
        let mut tables = Tables::open(table.clone())?;
        tables.metrics = metrics.clone();
        let checks = HealthChecks::new(sources.health.clone(), table.node_port_ranges.clone());
        Ok(Self {
            node: sources.node(),
            ranges: sources.ranges(),
            sources,
            changed,
            work: Some(Work { tables, flows: Flows::default() }),
            checks,
            repair_at: Some(Instant::now()),
            tidy_at: None,
        })
    }

    async fn work(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        // The first state is the largest transaction; nobody needs to hear of it.
        self.reconcile().await?;
        let listening = self.work.as_mut().expect("no change is being applied").tables.listen()?;
        // Whatever somebody changed between the two is found by looking once more.
        self.repair_at = Some(Instant::now());
        info!(services = self.sources.services.snapshot().len(), table = self.name(), "service proxy is ready");
        let mut unready = self.sources.options.unready.clone();
        loop {
            if self.repair_at.is_some_and(|at| at <= Instant::now()) {
                self.reconcile().await?;
            }
            let name = self.name();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = moved(&mut unready) => self.update().await?,
                () = self.changed.notify.notified() => self.update().await?,
                news = changed(&listening, &name), if self.repair_at.is_none() => {
                    news?;
                    warn!(table = name, "somebody else changed the Services' table: repairing it");
                    self.reconcile().await?;
                }
                () = until(self.repair_at) => {}
                () = until(self.tidy_at) => self.tidy().await?,
            }
        }
    }

    fn name(&self) -> String {
        self.sources.options.table.name.clone()
    }

    /// Brings the tables to what all Services want, whatever is there.
    async fn reconcile(&mut self) -> Result<(), Error> {
        (self.node, self.ranges) = (self.sources.node(), self.sources.ranges());
        // Those that are gone are among the changed ones alone.
        let Waiting { mut services, causes } = self.changed.take();
        services.extend(self.sources.all());
        let plans = self.plans(services);
        self.repair_at = None;
        self.apply(plans, causes, Tables::reconcile).await
    }

    /// Changes what the Services that changed want; all of them when the node itself changed.
    async fn update(&mut self) -> Result<(), Error> {
        if self.repair_at.is_some() {
            // Before the tables are as they should be, there is nothing that could be changed: all is done together.
            return Ok(());
        }
        let Waiting { mut services, causes } = self.changed.take();
        let node = self.sources.node();
        let (before, after) = (self.node.place.unready.clone(), node.place.unready.clone());
        self.node.place.unready = after.clone();
        if node != self.node {
            self.node = node;
            services.extend(self.sources.all());
        } else if before != after {
            services.extend(self.sources.at(&before.symmetric_difference(&after).collect()));
        }
        let ranges = std::mem::replace(&mut self.ranges, self.sources.ranges());
        let plans = self.plans(services);
        if plans.is_empty() && ranges == self.ranges {
            // Slices of no Service have changed, or the node in nothing that counts.
            let active = self.work.as_ref().map_or([false; 2], |work| work.tables.active());
            self.sources.health.updated(active);
            return Ok(());
        }
        self.apply(plans, causes, Tables::update).await
    }

    fn plans(&mut self, services: BTreeSet<ObjectKey>) -> Plans {
        let (all, slices) = (self.sources.services.snapshot(), self.sources.slices.snapshot());
        let mut plans = Vec::with_capacity(services.len());
        for key in services {
            let of_service: Vec<&EndpointSlice> =
                slices.indexed_in(BY_SERVICE.name, &key.name, &key.namespace).map(AsRef::as_ref).collect();
            let service = all.get(&key);
            let families = [false, true].map(|ipv6| plan(service?, &of_service, &self.node, ipv6));
            let asked = service.and_then(|service| service.health_check_port());
            self.checks.serve(&key, asked.map(|port| (port, local_ready(&of_service, &self.node.place))));
            plans.push((key, families));
        }
        plans
    }

    async fn apply(
        &mut self,
        plans: Plans,
        causes: Vec<(bool, Timestamp)>,
        change: fn(&mut Tables, Plans) -> Result<(), nftables::Error>,
    ) -> Result<(), Error> {
        let mut work = self.work.take().expect("no change is being applied");
        work.tables.ranges.clone_from(&self.ranges);
        // Small changes take less time than a thread's turn, but the kernel may be busy with others' transactions.
        let (work, result) = tokio::task::spawn_blocking(move || {
            work.flows.plan(&plans);
            let metrics = work.tables.metrics.clone();
            let result =
                change(&mut work.tables, plans).and_then(|()| work.flows.clean(work.tables.socket(), &metrics));
            (work, result)
        })
        .await?;
        if let Err(error) = &result {
            warn!(%error, "applying Services failed");
        } else {
            self.sources.health.updated(work.tables.active());
            causes.into_iter().for_each(|(ipv6, at)| work.tables.metrics.programmed(ipv6, at));
        }
        if result.is_err() || work.tables.is_doubtful {
            self.repair_at = Some(Instant::now() + RETRY_PAUSE);
        }
        self.work = Some(work);
        self.tidy_at.get_or_insert(Instant::now() + TIDY_PAUSE);
        Ok(())
    }

    async fn tidy(&mut self) -> Result<(), Error> {
        let mut work = self.work.take().expect("no change is being applied");
        let (work, result) = tokio::task::spawn_blocking(move || {
            let result = work.tables.tidy();
            (work, result)
        })
        .await?;
        self.work = Some(work);
        let more = result.unwrap_or_else(|error| {
            warn!(%error, "taking away what no Service needs failed");
            self.sources.options.metrics.cleanup_failed();
            self.repair_at = Some(Instant::now() + RETRY_PAUSE);
            false
        });
        self.tidy_at = more.then(|| Instant::now() + TIDY_PAUSE);
        Ok(())
    }
}

async fn changed(monitor: &Monitor, name: &str) -> Result<(), nftables::Error> {
    monitor.changed(&[Family::Ip, Family::Ip6].map(|family| Table { family, name })).await
}

/// Returns when the value is another; never once nobody can change it.
async fn moved(unready: &mut watch::Receiver<Arc<BTreeSet<IpAddr>>>) {
    if unready.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
