//! A cache of one resource: an immutable snapshot at a revision, replaced as events arrive. Readers never lock and
//! never see half a change. One task writes; it belongs to the tracker given at start and ends with the token.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::api::meta::ObjectKey;
use arc_swap::ArcSwap;
use rpds::RedBlackTreeMapSync;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::list_watch::{Delivery, ListWatch};
use crate::{Api, Client, ListParams, Object, Revision};

/// Changes kept for a subscriber that is behind; beyond it the subscriber is told to rescan the snapshot.
const SUBSCRIPTION_CHANGES: usize = 1024;
/// Deliveries folded into one published snapshot.
const BATCH_DELIVERIES_MAX: usize = 256;

/// One object's change. `old` and `new` are never both `None`.
#[derive(Debug)]
pub struct Change<T> {
    pub key: ObjectKey,
    pub old: Option<Arc<T>>,
    pub new: Option<Arc<T>>,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), old: self.old.clone(), new: self.new.clone() }
    }
}

/// A secondary order of a cache: objects by a computed string, such as the pod's node or its controller's uid.
/// An object with an empty string is not in the index.
pub struct Index<T> {
    pub name: &'static str,
    pub of: fn(&T) -> &str,
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Index<T> {}

type IndexMap<T> = RedBlackTreeMapSync<(String, ObjectKey), Arc<T>>;

/// All objects at one revision.
pub struct Snapshot<T> {
    revision: Revision,
    objects: RedBlackTreeMapSync<ObjectKey, Arc<T>>,
    indexes: Vec<(Index<T>, IndexMap<T>)>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, objects: self.objects.clone(), indexes: self.indexes.clone() }
    }
}

impl<T: Object> Snapshot<T> {
    pub fn empty(indexes: &[Index<T>]) -> Self {
        Self {
            revision: Revision::NONE,
            objects: RedBlackTreeMapSync::new_sync(),
            indexes: indexes.iter().map(|i| (*i, IndexMap::new_sync())).collect(),
        }
    }

    /// A snapshot of given objects, for tests and for plans over made-up states.
    pub fn of(objects: impl IntoIterator<Item = T>, indexes: &[Index<T>]) -> Self {
        let mut snapshot = Self::empty(indexes);
        for object in objects {
            snapshot.revision = snapshot.revision.max(object.revision());
            snapshot.insert(Arc::new(object));
        }
        snapshot
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }
    pub fn len(&self) -> usize {
        self.objects.size()
    }
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        self.objects.get(key)
    }
    /// All objects, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }
    /// The objects of one namespace, ordered by name.
    pub fn namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> + 'a {
        let start = ObjectKey::new(namespace, "");
        self.objects.range(start..).take_while(move |(k, _)| k.namespace == namespace).map(|(_, object)| object)
    }
    /// The objects whose index string is `value`. An index that was not asked for at start is empty.
    pub fn indexed<'a>(&'a self, index: &str, value: &'a str) -> impl Iterator<Item = &'a Arc<T>> + 'a {
        let map = self.indexes.iter().find(|(i, _)| i.name == index).map(|(_, map)| map);
        let start = (value.to_owned(), ObjectKey::default());
        map.into_iter()
            .flat_map(move |map| map.range(start.clone()..))
            .take_while(move |((v, _), _)| v == value)
            .map(|(_, object)| object)
    }

    /// The objects of one namespace whose index string is `value`, ordered by name.
    pub fn indexed_in<'a>(
        &'a self,
        index: &str,
        value: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<T>> + 'a {
        let map = self.indexes.iter().find(|(i, _)| i.name == index).map(|(_, map)| map);
        let start = (value.to_owned(), ObjectKey::new(namespace, ""));
        map.into_iter()
            .flat_map(move |map| map.range(start.clone()..))
            .take_while(move |((v, k), _)| v == value && k.namespace == namespace)
            .map(|(_, object)| object)
    }

    fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let key = object.key();
        let old = self.objects.get(&key).cloned();
        for (index, map) in &mut self.indexes {
            let new_value = (index.of)(&object);
            if let Some(old_value) = old.as_deref().map(index.of).filter(|v| !v.is_empty() && *v != new_value) {
                map.remove_mut(&(old_value.to_owned(), key.clone()));
            }
            if !new_value.is_empty() {
                map.insert_mut((new_value.to_owned(), key.clone()), object.clone());
            }
        }
        self.objects.insert_mut(key, object);
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        let old = self.objects.get(key).cloned()?;
        for (index, map) in &mut self.indexes {
            let value = (index.of)(&old);
            if !value.is_empty() {
                map.remove_mut(&(value.to_owned(), key.clone()));
            }
        }
        self.objects.remove_mut(key);
        Some(old)
    }
}

type Observer<T> = Box<dyn Fn(&Change<T>) + Send + Sync>;

struct Shared<T> {
    snapshot: ArcSwap<Snapshot<T>>,
    /// The snapshot's revision once synced, else [`Revision::NONE`]; never goes back except on a re-list of a server
    /// restored from backup.
    revision: watch::Sender<Option<Revision>>,
    /// Held while a batch is published and observed, so that a new observer misses nothing and sees nothing twice.
    observers: Mutex<Vec<Observer<T>>>,
    changes: OnceLock<broadcast::Sender<Change<T>>>,
}

/// A live cache. Cheap to clone.
pub struct Cache<T>(Arc<Shared<T>>);

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Object> Cache<T> {
    /// Starts to list and watch what `params` select; the task ends with `shutdown`.
    pub fn start(client: &Client, params: ListParams, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        Self::start_indexed(client.api::<T>(), params, &[], tasks, shutdown)
    }

    pub fn start_indexed(
        api: Api<T>,
        params: ListParams,
        indexes: &[Index<T>],
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self::start_kept(api, params, indexes, None, tasks, shutdown)
    }

    /// The same, and until the first list is there the cache has what an earlier process kept: a synced cache may then
    /// be older than the server.
    pub fn start_kept(
        api: Api<T>,
        params: ListParams,
        indexes: &[Index<T>],
        kept: Option<Vec<T>>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let cache = Self::detached(indexes);
        if let Some(items) = kept {
            cache.deliver(vec![Delivery::Replaced { items, revision: Revision::NONE }]);
        }
        let list_watch = ListWatch::new(api, params);
        let writer = cache.clone();
        tasks.spawn(async move { shutdown.run_until_cancelled_owned(writer.run(list_watch)).await });
        cache
    }

    /// A cache that nothing fills but [`Cache::deliver`].
    pub fn detached(indexes: &[Index<T>]) -> Self {
        Self(Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::empty(indexes)),
            revision: watch::Sender::new(None),
            observers: Mutex::new(Vec::new()),
            changes: OnceLock::new(),
        }))
    }

    async fn run(self, mut list_watch: ListWatch<T>) {
        loop {
            let mut batch = vec![list_watch.next().await];
            while batch.len() < BATCH_DELIVERIES_MAX
                && let Some(delivery) = list_watch.ready()
            {
                batch.push(delivery);
            }
            self.deliver(batch);
        }
    }

    /// Publishes the state after these deliveries, then tells observers and subscribers.
    pub fn deliver(&self, batch: Vec<Delivery<T>>) {
        let observers = self.0.observers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.0.snapshot.load());
        let mut changes = Vec::new();
        for delivery in batch {
            apply(&mut snapshot, delivery, &mut changes);
        }
        let revision = snapshot.revision;
        self.0.snapshot.store(Arc::new(snapshot));
        for change in &changes {
            observers.iter().for_each(|observer| observer(change));
        }
        self.0.revision.send_if_modified(|r| r.replace(revision) != Some(revision));
        if let Some(sender) = self.0.changes.get() {
            for change in changes {
                // Nobody listening is no failure.
                drop(sender.send(change));
            }
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.0.snapshot.load_full()
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.0.snapshot.load().get(key).cloned()
    }

    /// The revision of the snapshot; [`Revision::NONE`] until synced.
    pub fn revision(&self) -> Revision {
        self.0.revision.borrow().unwrap_or_default()
    }

    pub fn is_synced(&self) -> bool {
        self.0.revision.borrow().is_some()
    }

    /// Returns when the first complete state is there.
    pub async fn synced(&self) {
        self.wait_for(Revision::NONE).await;
    }

    /// Returns when the snapshot is at `revision` or later. Pending forever if the cache's task has ended: wait beside
    /// a shutdown.
    pub async fn wait_for(&self, revision: Revision) {
        let mut receiver = self.0.revision.subscribe();
        // The sender lives in `self`, so this can't fail.
        drop(receiver.wait_for(|seen| seen.is_some_and(|seen| seen >= revision)).await);
    }

    /// Returns when `condition` holds of the snapshot. Pending like [`Cache::wait_for`].
    pub async fn wait_until(&self, condition: impl Fn(&Snapshot<T>) -> bool) {
        let mut receiver = self.0.revision.subscribe();
        // The sender lives in `self`, so this can't fail.
        drop(receiver.wait_for(|seen| seen.is_some() && condition(&self.0.snapshot.load())).await);
    }

    /// Calls `observer` for every object there is, as an addition, then for every change, in order. It runs on the
    /// cache's task after the snapshot was published: it must be quick and must not call back into the cache's writer.
    pub fn observe(&self, observer: impl Fn(&Change<T>) + Send + Sync + 'static) {
        let mut observers = self.0.observers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.snapshot().iter() {
            observer(&Change { key: object.key(), old: None, new: Some(object.clone()) });
        }
        observers.push(Box::new(observer));
    }

    /// Changes from now on. Take a snapshot after subscribing to miss nothing.
    pub fn subscribe(&self) -> Subscription<T> {
        let sender = self.0.changes.get_or_init(|| broadcast::Sender::new(SUBSCRIPTION_CHANGES));
        Subscription(sender.subscribe())
    }
}

/// What a subscriber gets.
#[derive(Debug)]
pub enum Received<T> {
    Change(Change<T>),
    /// Changes were missed: scan the snapshot.
    Rescan,
}

pub struct Subscription<T>(broadcast::Receiver<Change<T>>);

impl<T: Object> Subscription<T> {
    /// The next change; `None` when the cache is gone. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Received<T>> {
        match self.0.recv().await {
            Ok(change) => Some(Received::Change(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Received::Rescan),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

fn apply<T: Object>(snapshot: &mut Snapshot<T>, delivery: Delivery<T>, changes: &mut Vec<Change<T>>) {
    match delivery {
        Delivery::Progress(revision) => snapshot.revision = revision,
        Delivery::Applied(object) => {
            snapshot.revision = snapshot.revision.max(object.revision());
            let object = Arc::new(object);
            let old = snapshot.insert(object.clone());
            changes.push(Change { key: object.key(), old, new: Some(object) });
        }
        Delivery::Deleted(object) => {
            snapshot.revision = snapshot.revision.max(object.revision());
            let key = object.key();
            if let Some(old) = snapshot.remove(&key) {
                changes.push(Change { key, old: Some(old), new: None });
            }
        }
        Delivery::Replaced { items, revision } => replace(snapshot, items, revision, changes),
    }
}

/// Only differences are changes: an object whose version is the one we had was not changed. One that was deleted and
/// made again under the same name is a deletion and an addition.
fn replace<T: Object>(snapshot: &mut Snapshot<T>, items: Vec<T>, revision: Revision, changes: &mut Vec<Change<T>>) {
    use crate::Metadata;
    let indexes: Vec<Index<T>> = snapshot.indexes.iter().map(|(i, _)| *i).collect();
    let before = std::mem::replace(snapshot, Snapshot::empty(&indexes));
    snapshot.revision = revision;
    for object in items {
        let key = object.key();
        let old = before.get(&key).cloned();
        match old {
            Some(old) if old.metadata().resource_version() == object.metadata().resource_version() => {
                snapshot.insert(old);
            }
            Some(old) if old.metadata().uid() != object.metadata().uid() => {
                let object = Arc::new(object);
                snapshot.insert(object.clone());
                changes.push(Change { key: key.clone(), old: Some(old), new: None });
                changes.push(Change { key, old: None, new: Some(object) });
            }
            old => {
                let object = Arc::new(object);
                snapshot.insert(object.clone());
                changes.push(Change { key, old, new: Some(object) });
            }
        }
    }
    for old in before.iter() {
        let key = old.key();
        if snapshot.get(&key).is_none() {
            changes.push(Change { key, old: Some(old.clone()), new: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PartialObject;

    fn object(name: &str, uid: &str, revision: u64, node: &str) -> PartialObject {
        let mut object = PartialObject::default();
        object.metadata.name = name.into();
        object.metadata.namespace = "a".into();
        object.metadata.uid = uid.into();
        object.metadata.resource_version = revision.to_string();
        object.metadata.labels = [("node".to_owned(), node.to_owned())].into();
        object
    }

    fn node(object: &PartialObject) -> &str {
        object.metadata.labels.get("node").map_or("", String::as_str)
    }

    const BY_NODE: Index<PartialObject> = Index { name: "node", of: node };

    fn on_node(cache: &Cache<PartialObject>, node: &str) -> Vec<String> {
        cache.snapshot().indexed("node", node).map(|o| o.metadata.name.clone()).collect()
    }

    fn seen(cache: &Cache<PartialObject>) -> Arc<Mutex<Vec<String>>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        cache.observe(move |change| {
            let version = |o: &Option<Arc<PartialObject>>| {
                o.as_ref().map_or("-".to_owned(), |o| format!("{}@{}", o.metadata.uid, o.metadata.resource_version))
            };
            let line = format!("{} {} {}", change.key, version(&change.old), version(&change.new));
            log.lock().unwrap().push(line);
        });
        seen
    }

    #[test]
    fn observers_see_each_change_once_and_indexes_follow() {
        let cache = Cache::detached(&[BY_NODE]);
        let items = vec![object("x", "1", 3, "n1"), object("y", "2", 4, "n1")];
        cache.deliver(vec![Delivery::Replaced { items, revision: Revision(5) }]);
        let log = seen(&cache);
        assert_eq!(on_node(&cache, "n1"), ["x", "y"]);
        cache.deliver(vec![Delivery::Applied(object("x", "1", 6, "n2")), Delivery::Deleted(object("y", "2", 7, "n1"))]);
        assert_eq!(on_node(&cache, "n1"), [""; 0]);
        assert_eq!(on_node(&cache, "n2"), ["x"]);
        assert_eq!(cache.revision(), Revision(7));
        // A re-list: x unchanged, z new.
        let items = vec![object("x", "1", 6, "n2"), object("z", "3", 8, "")];
        cache.deliver(vec![Delivery::Replaced { items, revision: Revision(9) }]);
        // x was made again meanwhile.
        let items = vec![object("x", "4", 10, "n2")];
        cache.deliver(vec![Delivery::Replaced { items, revision: Revision(11) }]);
        assert_eq!(
            *log.lock().unwrap(),
            ["a/x - 1@3", "a/y - 2@4", "a/x 1@3 1@6", "a/y 2@4 -", "a/z - 3@8", "a/x 1@6 -", "a/x - 4@10", "a/z 3@8 -"]
        );
    }

    #[tokio::test]
    async fn waiting_for_a_revision_and_lagging_subscribers() {
        let cache = Cache::<PartialObject>::detached(&[]);
        let mut subscription = cache.subscribe();
        let waiter = cache.clone();
        let waiting = tokio::spawn(async move { waiter.wait_for(Revision(2000)).await });
        cache.deliver(vec![Delivery::Replaced { items: vec![], revision: Revision(1) }]);
        for revision in 2..=2000 {
            cache.deliver(vec![Delivery::Applied(object("x", "1", revision, ""))]);
        }
        waiting.await.unwrap();
        assert!(matches!(subscription.recv().await, Some(Received::Rescan)));
        assert!(matches!(subscription.recv().await, Some(Received::Change(_))));
    }

    #[test]
    fn old_snapshots_stay_as_they_were() {
        let cache = Cache::<PartialObject>::detached(&[]);
        cache.deliver(vec![Delivery::Applied(object("x", "1", 2, ""))]);
        let before = cache.snapshot();
        cache.deliver(vec![Delivery::Deleted(object("x", "1", 3, ""))]);
        assert_eq!((before.len(), cache.snapshot().len()), (1, 0));
        assert_eq!(before.namespace("a").count(), 1);
        assert_eq!(before.namespace("b").count(), 0);
    }
}
