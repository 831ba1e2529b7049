//! The cache of one resource: an immutable snapshot of its objects in key order, swapped with each commit, and the
//! ring of its recent events. One writer (the pump), any number of readers that never wait for it.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use rpds::RedBlackTreeMapSync;
use tokio::time::Instant;

use super::extract::{Extract, INDEXED_FIELD};
use super::item::{EventKind, Item};
use super::ring::{Channel, Event};

type Map = RedBlackTreeMapSync<Arc<str>, Arc<Item>>;

/// The objects of one resource at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    map: Map,
    /// Objects by `value of the indexed field`, NUL, key.
    index: Map,
    /// Revision of the last change in here.
    revision: u64,
}

impl Snapshot {
    pub fn get(&self, key: &str) -> Option<&Arc<Item>> {
        self.map.get(key)
    }
    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Item>)> {
        self.map.iter()
    }
    pub fn len(&self) -> usize {
        self.map.size()
    }
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Objects whose key begins with `prefix` (`namespace/`, or empty for all) and is not before `start`.
    pub fn range<'a>(&'a self, prefix: &'a str, start: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Item>)> {
        let from = if start > prefix { start } else { prefix };
        self.map
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
    /// Objects whose indexed field has this value, in key order.
    pub fn indexed<'a>(&'a self, value: &str) -> impl Iterator<Item = (&'a str, &'a Arc<Item>)> {
        let prefix = format!("{value}\0");
        let skip = prefix.len();
        let from: Arc<str> = prefix.into();
        let wanted = Arc::clone(&from);
        self.index
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(&*wanted))
            .map(move |(key, item)| (&key[skip..], item))
    }

    fn put(&mut self, key: Arc<str>, item: Arc<Item>, indexed: bool) {
        if indexed {
            if let Some(old) = self.map.get(&key).cloned() {
                self.index.remove_mut(&index_key(&old, &key));
            }
            self.index.insert_mut(index_key(&item, &key), Arc::clone(&item));
        }
        self.map.insert_mut(key, item);
    }

    fn remove(&mut self, key: &str, indexed: bool) -> Option<Arc<Item>> {
        let old = self.map.get(key).cloned()?;
        if indexed {
            self.index.remove_mut(&index_key(&old, key));
        }
        self.map.remove_mut(key);
        Some(old)
    }
}

fn index_key(item: &Item, key: &str) -> Arc<str> {
    format!("{}\0{key}", item.field(INDEXED_FIELD).unwrap_or_default()).into()
}

/// The part of a resource a watcher is interested in, where events can be dispatched to it without filtering.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slice {
    All,
    Namespace(String),
    /// One object by its key.
    Object(String),
    /// Objects with this value of the indexed field.
    Indexed(String),
}

impl Slice {
    fn holds(&self, event: &Event) -> bool {
        let indexed = |item: &Item, value: &str| item.field(INDEXED_FIELD).unwrap_or_default() == value;
        match self {
            Self::All => true,
            Self::Namespace(namespace) => event.key.split_once('/').is_some_and(|(n, _)| n == namespace),
            Self::Object(key) => *event.key == **key,
            Self::Indexed(value) => {
                indexed(&event.item, value) || event.previous.as_ref().is_some_and(|item| indexed(item, value))
            }
        }
    }
}

pub struct ResourceCache {
    extract: Option<Extract>,
    indexed: bool,
    snapshot: ArcSwap<Snapshot>,
    all: Arc<Channel>,
    slices: Mutex<HashMap<Slice, Weak<Channel>>>,
}

impl ResourceCache {
    /// A cache that is empty and complete at `revision`.
    pub fn new(extract: Option<Extract>, revision: u64) -> Self {
        let indexed = extract.as_ref().is_some_and(Extract::indexed);
        let snapshot = ArcSwap::from_pointee(Snapshot { revision, ..Snapshot::default() });
        let (all, slices) = (Arc::new(Channel::new(revision)), Mutex::default());
        Self { extract, indexed, snapshot, all, slices }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn indexed(&self) -> bool {
        self.indexed
    }

    /// The objects as they were at `revision`, undoing later events; `None` when the ring is too short for that.
    pub fn snapshot_at(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let now = self.snapshot();
        if now.revision <= revision {
            return Some(now);
        }
        let later = self.all.since(revision)?;
        let mut then = (*now).clone();
        for event in later.iter().filter(|event| event.revision() <= now.revision) {
            match &event.previous {
                Some(previous) => then.put(Arc::clone(&event.key), Arc::clone(previous), self.indexed),
                None => drop(then.remove(&event.key, self.indexed)),
            }
        }
        then.revision = revision;
        Some(Arc::new(then))
    }

    /// The ring of a slice. Rings of slices live as long as somebody holds them.
    pub fn channel(&self, slice: &Slice) -> Arc<Channel> {
        if *slice == Slice::All || (matches!(slice, Slice::Indexed(_)) && !self.indexed) {
            return Arc::clone(&self.all);
        }
        let mut slices = self.slices();
        if let Some(channel) = slices.get(slice).and_then(Weak::upgrade) {
            return channel;
        }
        // The pump pushes to `all` and to the slices under this same lock, so that no event falls between.
        let channel = Arc::new(self.all.filtered(|event| slice.holds(event)));
        slices.insert(slice.clone(), Arc::downgrade(&channel));
        channel
    }

    fn slices(&self) -> MutexGuard<'_, HashMap<Slice, Weak<Channel>>> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a range read at start found. Makes no events.
    pub(super) fn load<'a>(&self, records: impl Iterator<Item = (&'a str, &'a [u8], u64)>, revision: u64) {
        self.snapshot.store(Arc::new(self.read(records, revision)));
    }

    /// A snapshot of stored records: key below the prefix, value, revision.
    pub fn read<'a>(&self, records: impl Iterator<Item = (&'a str, &'a [u8], u64)>, revision: u64) -> Snapshot {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        for (key, value, mod_revision) in records {
            match Item::new(value, mod_revision, EventKind::Added, self.extract.as_ref()) {
                Ok(item) => snapshot.put(key.into(), Arc::new(item), self.indexed),
                Err(error) => tracing::error!(key, %error, "the store holds an object that cannot be read; ignored"),
            }
        }
        snapshot
    }

    /// Applies changes of one batch in order: the value written, or `None` for a deletion.
    pub(super) fn apply<'a>(&self, changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>, u64)>, now: Instant) {
        let mut snapshot = (*self.snapshot()).clone();
        let mut events = Vec::new();
        for (key, value, revision) in changes {
            let event = match value {
                Some(value) => self.put(&mut snapshot, key, value, revision, now),
                None => self.remove(&mut snapshot, key, revision, now),
            };
            events.extend(event.map(Arc::new));
            snapshot.revision = revision;
        }
        let touched = self.push(&events);
        self.snapshot.store(Arc::new(snapshot));
        touched.iter().for_each(|channel| channel.announce());
    }

    fn put(&self, snapshot: &mut Snapshot, key: &str, value: &[u8], revision: u64, now: Instant) -> Option<Event> {
        let previous = snapshot.get(key).cloned();
        let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
        let item = match Item::new(value, revision, kind, self.extract.as_ref()) {
            Ok(item) => Arc::new(item),
            Err(error) => {
                tracing::error!(key, revision, %error, "the store holds an object that cannot be read; ignored");
                return None;
            }
        };
        let key: Arc<str> = key.into();
        snapshot.put(Arc::clone(&key), Arc::clone(&item), self.indexed);
        Some(Event { kind, key, item, previous, at: now })
    }

    fn remove(&self, snapshot: &mut Snapshot, key: &str, revision: u64, now: Instant) -> Option<Event> {
        let previous = snapshot.remove(key, self.indexed)?;
        let item = Arc::new(previous.deleted(revision));
        Some(Event { kind: EventKind::Deleted, key: key.into(), item, previous: Some(previous), at: now })
    }

    /// Pushes to the main ring and to the rings of slices; returns the rings that got something.
    fn push(&self, events: &[Arc<Event>]) -> Vec<Arc<Channel>> {
        let mut touched: HashMap<Slice, Arc<Channel>> = HashMap::new();
        let mut slices = self.slices();
        for event in events {
            self.all.push(Arc::clone(event));
            if slices.is_empty() {
                continue;
            }
            for slice in self.slices_of(event) {
                match slices.get(&slice).map(Weak::upgrade) {
                    Some(Some(channel)) => {
                        channel.push(Arc::clone(event));
                        touched.insert(slice, channel);
                    }
                    Some(None) => drop(slices.remove(&slice)),
                    None => {}
                }
            }
        }
        drop(slices);
        let mut touched: Vec<_> = touched.into_values().collect();
        touched.push(Arc::clone(&self.all));
        touched
    }

    fn slices_of(&self, event: &Event) -> Vec<Slice> {
        let mut slices = vec![Slice::Object(event.key.to_string())];
        if let Some((namespace, _)) = event.key.split_once('/') {
            slices.push(Slice::Namespace(namespace.to_owned()));
        }
        if self.indexed {
            let value = |item: &Item| Slice::Indexed(item.field(INDEXED_FIELD).unwrap_or_default().to_owned());
            slices.push(value(&event.item));
            if let Some(before) = event.previous.as_deref().map(value)
                && Some(&before) != slices.last()
            {
                slices.push(before);
            }
        }
        slices
    }

    /// Drops old events and rings without watchers.
    pub(super) fn sweep(&self, oldest: Instant) {
        self.all.trim(oldest);
        self.slices().retain(|_, channel| match channel.upgrade() {
            Some(channel) => {
                channel.trim(oldest);
                true
            }
            None => false,
        });
    }
}
