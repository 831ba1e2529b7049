//! Watches the metadata of every deletable resource and feeds the graph. The set of resources follows discovery: a new
//! CustomResourceDefinition is noticed by its own watch, anything else by a slow look now and then.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api_client::discovery::{self, Discovery, Served};
use api_client::list_watch::{Delivery, ListWatch};
use api_client::{Client, GroupVersionResource, ListParams, ObjectKey, OwnerReference, PartialObject};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::graph::{Graph, Node, Owner, ResourceId, Uid};

/// How often discovery is read though nothing hints at a change (upstream's garbage collector does every 30 s).
const DISCOVERY_PERIOD: Duration = Duration::from_secs(60);
/// A definition is served only a moment after it was written.
const DEFINITION_DELAY: Duration = Duration::from_millis(500);
/// How long collection waits for the first look at every resource; one that can't be listed must not hold up all.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Metadata that the graph needs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Observed {
    metadata: ObservedMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservedMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    owner_references: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deletion_timestamp: Option<Timestamp>,
}

impl api_client::Metadata for ObservedMeta {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

api_client::projection!(Observed as PartialObject, ObservedMeta);

/// The graph and the table of resources it speaks of.
#[derive(Default)]
pub struct State {
    pub graph: Graph,
    /// By [`ResourceId`]; entries are never removed, so that ids stay valid.
    resources: Vec<Served>,
    discovery: Discovery,
    namespaces: HashSet<Arc<str>>,
}

impl State {
    pub fn resource(&self, id: ResourceId) -> Option<&Served> {
        self.resources.get(usize::from(id.0))
    }

    /// The resource an owner reference speaks of.
    pub fn of_reference(&self, reference: &OwnerReference) -> Option<&Served> {
        let (group, _) = api::meta::split_api_version(&reference.api_version);
        self.discovery.of_kind(group, &reference.kind)
    }

    fn id_of(&mut self, served: &Served) -> ResourceId {
        let known = self.resources.iter().position(|r| r.gvr == served.gvr);
        let index = known.unwrap_or_else(|| {
            self.resources.push(served.clone());
            self.resources.len() - 1
        });
        ResourceId(u16::try_from(index).expect("a server has far fewer than 65,536 resources"))
    }

    fn node(&mut self, resource: ResourceId, object: Observed) -> Node {
        let meta = object.metadata;
        let has = |finalizer: &str| meta.finalizers.iter().any(|f| f == finalizer);
        let (foreground, orphan) = (has("foregroundDeletion"), has("orphan"));
        let namespace = match self.namespaces.get(meta.namespace.as_str()) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = meta.namespace.as_str().into();
                self.namespaces.insert(new.clone());
                new
            }
        };
        Node {
            resource,
            namespace,
            name: meta.name.into(),
            revision: api_client::Revision::parse(&meta.resource_version),
            owners: meta.owner_references.into_iter().map(|r| self.owner(r)).collect(),
            uid: meta.uid.into(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground,
            orphan,
        }
    }

    /// Siblings share one copy of the reference they have in common.
    fn owner(&self, reference: OwnerReference) -> Owner {
        let uid = Uid::parse(&reference.uid);
        let siblings = self.graph.dependents(uid).take(1).flat_map(|(_, sibling)| sibling.owners.iter());
        let shared = siblings.filter(|o| *o.reference == reference).map(|o| o.reference.clone()).next();
        Owner { uid, reference: shared.unwrap_or_else(|| Arc::new(reference)) }
    }
}

type Waker = Arc<dyn Fn(ObjectKey) + Send + Sync>;
/// Gets the namespace of an object that is gone.
type RemovalObserver = Box<dyn Fn(&str) + Send + Sync>;

/// Runs the watches.
pub struct Monitor {
    client: Client,
    pub state: Mutex<State>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    definitions_changed: Notify,
    /// Resources not looked at yet; `None` until discovery was read.
    unseen: watch::Sender<Option<usize>>,
    waker: OnceLock<Waker>,
    removals: Mutex<Vec<RemovalObserver>>,
}

impl Monitor {
    pub fn new(client: Client, tasks: TaskTracker, shutdown: CancellationToken) -> Arc<Self> {
        let unseen = watch::Sender::new(None);
        Arc::new(Self {
            client,
            state: Mutex::default(),
            tasks,
            shutdown,
            definitions_changed: Notify::new(),
            unseen,
            waker: OnceLock::new(),
            removals: Mutex::default(),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to watch; `wake` gets the uids of objects to look at.
    pub fn start(self: &Arc<Self>, wake: Waker) {
        self.waker.get_or_init(|| wake);
        let this = self.clone();
        let follow = async move { this.follow_discovery().await };
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled_owned(follow).await });
    }

    /// Tells of every object that goes, by its namespace.
    pub fn observe_removals(&self, observer: RemovalObserver) {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    fn removed(&self, namespace: &str) {
        let observers = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        observers.iter().for_each(|observer| observer(namespace));
    }

    /// Has an object looked at.
    pub fn wake(&self, uid: Uid) {
        if let Some(wake) = self.waker.get() {
            wake(ObjectKey::new("", uid.key()));
        }
    }

    /// Takes an object that is known to be gone out of the graph.
    pub fn forget(&self, uid: Uid) {
        let visit = self.state().graph.remove(uid);
        visit.into_iter().for_each(|uid| self.wake(uid));
    }

    /// Returns when every resource was looked at once, or after [`FIRST_LOOK_TIMEOUT`].
    pub async fn synced(&self) {
        let mut unseen = self.unseen.subscribe();
        let first_look = unseen.wait_for(|unseen| *unseen == Some(0));
        if tokio::time::timeout(FIRST_LOOK_TIMEOUT, first_look).await.is_err() {
            warn!("garbage collection starts though not all resources could be looked at");
        }
    }

    async fn follow_discovery(self: Arc<Self>) {
        let mut running: HashMap<GroupVersionResource, CancellationToken> = HashMap::new();
        loop {
            let pause = match discovery::read(&self.client).await {
                Ok(discovery) => {
                    self.adjust(discovery, &mut running);
                    DISCOVERY_PERIOD
                }
                Err(error) => {
                    warn!(%error, "garbage collection can't discover resources; will try again");
                    Duration::from_secs(1)
                }
            };
            if tokio::time::timeout(pause, self.definitions_changed.notified()).await.is_ok() {
                tokio::time::sleep(DEFINITION_DELAY).await;
            }
        }
    }

    /// Watches what is new, and stops to watch what is gone. A resource that merely can't be described now stays
    /// watched, and objects of one that is gone stay in the graph: its absence proves nothing about them.
    fn adjust(self: &Arc<Self>, discovery: Discovery, running: &mut HashMap<GroupVersionResource, CancellationToken>) {
        let wanted: Vec<Served> = discovery.resources.iter().filter(|r| is_collected(r)).cloned().collect();
        running.retain(|gvr, token| {
            let failed = discovery.failed.contains(&api::meta::api_version(&gvr.group, &gvr.version));
            let keep = failed || wanted.iter().any(|r| r.gvr == *gvr);
            if !keep {
                token.cancel();
            }
            keep
        });
        let new: Vec<Served> = wanted.into_iter().filter(|r| !running.contains_key(&r.gvr)).collect();
        self.unseen.send_modify(|unseen| *unseen = Some(unseen.unwrap_or_default() + new.len()));
        for served in new {
            let token = self.shutdown.child_token();
            running.insert(served.gvr.clone(), token.clone());
            let id = self.state().id_of(&served);
            let watch = self.clone().watch(served.gvr, id);
            self.tasks.spawn(async move { token.run_until_cancelled_owned(watch).await });
        }
        self.state().discovery = discovery;
    }

    async fn watch(self: Arc<Self>, gvr: GroupVersionResource, id: ResourceId) {
        let defines = gvr.resource == "customresourcedefinitions" && gvr.group == "apiextensions.k8s.io";
        let api = self.client.metadata_api_of::<Observed>(gvr);
        let mut list_watch = ListWatch::new(api, ListParams::default());
        let mut first = true;
        loop {
            let delivery = list_watch.next().await;
            if matches!(delivery, Delivery::Progress(_)) {
                continue;
            }
            if let Delivery::Deleted(object) = &delivery
                && !object.metadata.namespace.is_empty()
            {
                self.removed(&object.metadata.namespace);
            }
            let visit = self.feed(id, delivery);
            visit.into_iter().for_each(|uid| self.wake(uid));
            if std::mem::take(&mut first) {
                self.unseen.send_modify(|unseen| *unseen = unseen.map(|n| n.saturating_sub(1)));
            } else if defines {
                self.definitions_changed.notify_one();
            }
        }
    }

    fn feed(&self, id: ResourceId, delivery: Delivery<Observed>) -> Vec<Uid> {
        let mut state = self.state();
        match delivery {
            Delivery::Progress(_) => Vec::new(),
            Delivery::Applied(object) => {
                let node = state.node(id, object);
                state.graph.observe(node)
            }
            Delivery::Deleted(object) => state.graph.remove(Uid::parse(&object.metadata.uid)),
            Delivery::Replaced { items, .. } => {
                let uids: HashSet<Uid> = items.iter().map(|o| Uid::parse(&o.metadata.uid)).collect();
                let mut visit = state.graph.retain(id, &uids);
                for object in items {
                    let node = state.node(id, object);
                    visit.extend(state.graph.observe(node));
                }
                visit
            }
        }
    }
}

/// Everything that can be listed, watched and deleted, but events (`DefaultIgnoredResources`).
fn is_collected(served: &Served) -> bool {
    served.has_verbs(&["delete", "list", "watch"]) && served.kind != "Event"
}
