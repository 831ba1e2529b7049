//! The entries of `metadata.managedFields`: who owns what, since when, in which version.
//!
//! Invariant: an entry read from a stored object keeps its wire form until something about it changes; stored entries
//! are canonical because only this module writes them.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::conflict::Conflict;
use super::fields_v1::{self, Wire};
use super::reconcile;
use super::scope::{Scope, Write};
use super::set::Set;
use super::{UNKNOWN_MANAGER, time};
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

/// How the fields of an entry came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells entries apart. Appliers keep their entry when they change the version they apply in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub manager: String,
    pub operation: Operation,
    /// Empty for [`Operation::Apply`].
    pub api_version: String,
    pub subresource: String,
}

impl Identity {
    pub fn update(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: if manager.is_empty() { UNKNOWN_MANAGER } else { manager }.to_owned(),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    pub fn apply(manager: &str, subresource: &str) -> Self {
        Self { operation: Operation::Apply, ..Self::update(manager, "", subresource) }
    }

    /// Upstream's identifier (`BuildManagerIdentifier`); its text decides the order of conflicts and of old entries.
    pub fn text(&self) -> String {
        let mut text = format!("{{\"manager\":{},\"operation\":\"{}\"", quoted(&self.manager), self.operation.as_str());
        for (name, value) in [("apiVersion", &self.api_version), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                text.push_str(&format!(",\"{name}\":{}", quoted(value)));
            }
        }
        text.push('}');
        text
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub identity: Identity,
    /// The version the fields are named in.
    pub api_version: String,
    pub time: Option<Timestamp>,
    fields: Fields,
    /// `time` is not the one of the stored form any more.
    is_stamped: bool,
}

#[derive(Clone, Debug)]
enum Fields {
    /// The whole entry as it is stored.
    Stored(Value),
    Set(Set),
}

impl Entry {
    pub fn new(identity: Identity, api_version: &str, time: Option<Timestamp>, set: Set) -> Self {
        Self { identity, api_version: api_version.to_owned(), time, fields: Fields::Set(set), is_stamped: true }
    }

    /// Reads everything but the fields.
    fn read(entry: &Value, index: usize) -> Result<(Identity, String, Option<Timestamp>), String> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let identity = Identity {
            manager: text("manager").to_owned(),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: text("subresource").to_owned(),
        };
        Ok((identity, api_version.to_owned(), text("time").parse().ok()))
    }

    fn wire_fields(entry: &Value) -> &Value {
        entry.get("fieldsV1").unwrap_or(&Value::Null)
    }

    pub fn set(&self) -> Set {
        match &self.fields {
            Fields::Set(set) => set.clone(),
            // What is stored was written here; should it be damaged, then nobody owns it.
            Fields::Stored(entry) => fields_v1::parse(Self::wire_fields(entry)).unwrap_or_default(),
        }
    }

    fn has_any(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => !own.intersection(set).is_empty(),
            Fields::Stored(entry) => Wire(Self::wire_fields(entry)).has_any(set),
        }
    }

    fn has_all(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => set.difference(own).is_empty(),
            Fields::Stored(entry) => Wire(Self::wire_fields(entry)).has_all(set),
        }
    }

    fn is_empty(&self) -> bool {
        match &self.fields {
            Fields::Set(set) => set.is_empty(),
            Fields::Stored(entry) => Self::wire_fields(entry).as_object().is_none_or(Map::is_empty),
        }
    }

    fn into_value(self) -> Value {
        let fields = match self.fields {
            Fields::Stored(mut entry) => {
                if let (true, Some(at), Some(map)) = (self.is_stamped, self.time, entry.as_object_mut()) {
                    map.insert("time".to_owned(), time::text(at).into());
                }
                return entry;
            }
            Fields::Set(set) => fields_v1::write(&set),
        };
        let mut map = Map::new();
        if !self.identity.manager.is_empty() {
            map.insert("manager".to_owned(), self.identity.manager.into());
        }
        map.insert("operation".to_owned(), self.identity.operation.as_str().into());
        map.insert("apiVersion".to_owned(), self.api_version.into());
        if let Some(at) = self.time {
            map.insert("time".to_owned(), time::text(at).into());
        }
        map.insert("fieldsType".to_owned(), "FieldsV1".into());
        map.insert("fieldsV1".to_owned(), fields);
        if !self.identity.subresource.is_empty() {
            map.insert("subresource".to_owned(), self.identity.subresource.into());
        }
        Value::Object(map)
    }
}

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
            if !self.entries.iter().any(|e| e.identity == bucket) {
                if let Some(first) = self.remove(&first) {
                    self.put(Entry::new(bucket.clone(), &identity.api_version, first.time, first.set()));
                }
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
