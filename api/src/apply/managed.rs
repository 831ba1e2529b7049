//! All entries of an object's `metadata.managedFields`, and how writes move ownership between them.
//!
//! Invariant: an entry read from a stored object keeps its wire form until something about it changes; stored entries
//! are canonical because only this module writes them.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use super::conflict::Conflict;
use super::entry::{Entry, Fields, Identity, Operation};
use super::fields_v1;
use super::reconcile;
use super::scope::{Scope, Write};
use super::set::Set;
use crate::meta;

/// Most entries of updates on one object; the oldest are merged beyond that (upstream's `DefaultMaxUpdateManagers`).
pub const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that merged old entries get.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Paths that are never owned: they identify the object or belong to the server (upstream's `stripMetaManager`).
pub(super) static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::from_dotted(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// All entries of one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads entries of unknown origin in full.
    pub fn parse(entries: &[Value]) -> Result<Self, String> {
        let mut managed = Self::default();
        for (i, entry) in entries.iter().enumerate() {
            let (identity, api_version, time) = Entry::read(entry, i)?;
            let set = fields_v1::parse(Entry::wire_fields(entry)).map_err(|e| format!("error decoding set: {e}"))?;
            managed.put(Entry { identity, api_version, time, fields: Fields::Set(set), is_stamped: true });
        }
        Ok(managed)
    }

    /// Takes over entries of a stored object without looking at their fields.
    pub fn trusted(entries: Vec<Value>) -> Self {
        let mut managed = Self::default();
        for (i, entry) in entries.into_iter().enumerate() {
            match Entry::read(&entry, i) {
                Ok((identity, api_version, time)) => {
                    managed.put(Entry {
                        identity,
                        api_version,
                        time,
                        fields: Fields::Stored(entry),
                        is_stamped: false,
                    });
                }
                Err(_) => return Self::default(),
            }
        }
        managed
    }

    /// What an update starts from (upstream's `decodeLiveOrNew`): the entries it sends if they are valid, the stored
    /// ones if it sends none or invalid ones, nothing if it resets them.
    pub fn for_update(sent: Option<Value>, live: &[Value]) -> Self {
        match sent {
            Some(Value::Array(sent)) if sent == live => Self::trusted(sent),
            Some(Value::Array(sent)) if is_reset(&sent) => Self::default(),
            Some(Value::Array(sent)) => match Self::parse(&sent) {
                Ok(managed) => managed,
                Err(_) => Self::trusted(live.to_vec()),
            },
            _ => Self::trusted(live.to_vec()),
        }
    }

    fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|e| e.identity == entry.identity) {
            Some(found) => *found = entry,
            None => self.entries.push(entry),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes an entry out.
    pub fn remove(&mut self, identity: &Identity) -> Option<Entry> {
        let at = self.entries.iter().position(|e| e.identity == *identity)?;
        Some(self.entries.remove(at))
    }

    pub fn add(&mut self, entry: Entry) {
        if !entry.is_empty() {
            self.put(entry);
        }
    }

    /// Adapts the entries to a schema that changed since they were written, and drops those of versions that are gone.
    pub fn reconcile(&mut self, scope: &Scope<'_>, live: &Value) {
        self.entries.retain_mut(|entry| {
            let Some((ty, _)) = scope.at(live, &entry.api_version) else { return false };
            let is_stale = match &entry.fields {
                Fields::Stored(stored) => reconcile::is_stale(ty, Entry::wire_fields(stored)),
                Fields::Set(_) => true,
            };
            if is_stale {
                entry.fields = Fields::Set(reconcile::reconcile(ty, &entry.set()));
            }
            true
        });
    }

    /// Takes from every entry what a write changed or removed. The writer itself keeps what it `gains`.
    pub fn lose(&mut self, scope: &Scope<'_>, write: &Write<'_>, writer: Option<(&Identity, &Set)>) {
        let all = write.changes.all();
        self.entries.retain_mut(|entry| {
            let foreign;
            let mut lost = &all;
            if scope.is_foreign(&entry.api_version) {
                let Some(changes) = scope.changes_at(write, &entry.api_version) else { return false };
                foreign = changes.all();
                lost = &foreign;
            }
            let kept;
            if let Some((_, gained)) = writer.filter(|(identity, _)| **identity == entry.identity) {
                kept = lost.difference(gained);
                lost = &kept;
            }
            if entry.has_any(lost) {
                let mut left = entry.set();
                left.subtract(lost);
                entry.fields = Fields::Set(left);
            }
            !entry.is_empty()
        });
    }

    /// Records that `identity` now owns `set` too.
    pub fn gain(&mut self, identity: Identity, set: Set, now: Timestamp) {
        match self.entries.iter_mut().find(|e| e.identity == identity) {
            Some(entry) => {
                if !entry.has_all(&set) {
                    let mut all = entry.set();
                    all.extend(set);
                    entry.fields = Fields::Set(all);
                }
                entry.time = Some(now);
                entry.is_stamped = true;
            }
            None => {
                let api_version = identity.api_version.clone();
                self.entries.push(Entry {
                    identity,
                    api_version,
                    time: Some(now),
                    fields: Fields::Set(set),
                    is_stamped: true,
                });
            }
        }
    }

    /// The changed fields that others own.
    pub fn conflicts(&self, scope: &Scope<'_>, write: &Write<'_>) -> Vec<Conflict> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_cached_key(|entry| entry.identity.text());
        let mut found = Vec::new();
        for entry in entries {
            let foreign = scope.is_foreign(&entry.api_version).then(|| scope.changes_at(write, &entry.api_version));
            let changes = match &foreign {
                None => &write.changes,
                Some(Some(foreign)) => foreign,
                Some(None) => continue,
            };
            let shared = entry.set().intersection(&changes.modified.union(&changes.added));
            found.extend(shared.paths().into_iter().map(|path| Conflict::new(&entry.identity, path)));
        }
        found
    }

    /// Keeps the number of update entries at [`MAX_UPDATE_MANAGERS`]: the oldest of each version are merged into one
    /// (upstream's `capManagersManager`).
    pub fn cap(&mut self) {
        let mut updates: Vec<(i64, Identity)> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let seconds = entry.time.map_or(0, Timestamp::as_second);
                (entry.identity.operation == Operation::Update).then(|| (seconds, entry.identity.clone()))
            })
            .collect();
        let mut count = updates.len();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        updates.sort_by_cached_key(|(seconds, identity)| (*seconds, identity.text()));
        let mut firsts: Vec<Identity> = Vec::new();
        for (_, identity) in updates {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let Some(first) = firsts.iter().find(|f| f.api_version == identity.api_version).cloned() else {
                firsts.push(identity);
                continue;
            };
            let bucket = Identity::update(ANCIENT_CHANGES, &identity.api_version, "");
            let Some(entry) = self.remove(&identity) else { continue };
            let has_bucket = self.entries.iter().any(|e| e.identity == bucket);
            let renamed = if has_bucket { None } else { self.remove(&first) };
            if let Some(first) = renamed {
                self.put(Entry::new(bucket.clone(), &identity.api_version, first.time, first.set()));
            }
            let merged = match self.remove(&bucket) {
                Some(bucket) => entry.set().union(&bucket.set()),
                None => entry.set(),
            };
            // The time of the entry merged last, which is the most recent.
            self.put(Entry::new(bucket, &identity.api_version, entry.time, merged));
            count -= 1;
        }
    }

    /// The wire form in upstream's order; `None` when there are no entries.
    pub fn into_value(mut self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.sort_by(|l, r| {
            let seconds = |entry: &Entry| entry.time.map_or(0, Timestamp::as_second);
            let operations = l.identity.operation.cmp(&r.identity.operation);
            operations
                .then_with(|| seconds(l).cmp(&seconds(r)))
                .then_with(|| l.identity.manager.cmp(&r.identity.manager))
                .then_with(|| l.api_version.cmp(&r.api_version))
                .then_with(|| l.identity.subresource.cmp(&r.identity.subresource))
        });
        Some(Value::Array(self.entries.into_iter().map(Entry::into_value).collect()))
    }
}

/// The user asks to forget all ownership: an empty list, or one entry in which nothing is set.
fn is_reset(sent: &[Value]) -> bool {
    match sent {
        [] => true,
        [Value::Object(entry)] => entry.values().all(|value| value.is_null() || value.as_str() == Some("")),
        _ => false,
    }
}

/// Checks managedFields that came from somewhere else, such as an admission webhook.
pub fn validate(object: &Value) -> Result<(), String> {
    Managed::parse(of(object)).map(drop)
}

/// The entries of an object.
pub(super) fn of(object: &Value) -> &[Value] {
    let fields = object.get("metadata").and_then(|m| m.get("managedFields")).and_then(Value::as_array);
    fields.map_or(&[], Vec::as_slice)
}

/// Takes the entries out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// A copy of an object without its entries.
pub(super) fn without(object: &Value) -> Value {
    let mut object = object.clone();
    take(&mut object);
    object
}

pub(super) fn set(object: &mut Value, entries: Option<Value>) {
    match entries {
        Some(entries) => {
            meta::metadata_mut(object).insert("managedFields".to_owned(), entries);
        }
        None => {
            take(object);
        }
    }
}
