//! What is really there: every object, read from the store itself and not through the API server, without delay and
//! without faults. Conditions are checked on it after every single write, so nothing passes unseen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::catalogue::{Catalogue, Resource};
use serde_json::Value;
use store_client::{Change, Range, Revision, Span, Store};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// A condition that must hold after every write, with the text it is known by.
pub type Always = (String, Box<dyn Fn(&Objects) -> Result<(), String> + Send>);

/// Objects by store key (`/registry/pods/NAMESPACE/NAME`).
#[derive(Default)]
pub struct Objects {
    pub by_key: BTreeMap<String, Value>,
    catalogue: Arc<Catalogue>,
}

impl Objects {
    /// The row of a resource by any of its names, or by `NAME.GROUP`.
    pub fn resource(&self, name: &str) -> Result<&Arc<Resource>, String> {
        let lower = name.to_ascii_lowercase();
        let (name, group) = lower.split_once('.').map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
        let named = |row: &&Arc<Resource>| {
            let is = |other: &str| other.eq_ignore_ascii_case(name);
            let names = is(&row.plural) || is(&row.singular) || is(&row.kind) || row.short_names.iter().any(|s| is(s));
            row.stored && names && group.is_none_or(|group| row.group == group)
        };
        // Core and the storage version first.
        let rows = self.catalogue.iter().filter(named);
        let best = rows.min_by_key(|row| (!row.group.is_empty(), row.version != row.storage_version));
        best.ok_or_else(|| format!("no resource is named {name:?}"))
    }

    pub fn set_catalogue(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = catalogue;
    }

    pub fn all(&self, resource: &Resource) -> impl Iterator<Item = &Value> {
        let prefix = format!("{}/", resource.storage_prefix());
        let depth = 1 + usize::from(resource.namespaced());
        let start = prefix.clone();
        self.by_key
            .range(start..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .filter(move |(key, _)| key[resource.storage_prefix().len()..].matches('/').count() == depth)
            .map(|(_, object)| object)
    }

    /// All objects of a resource named by its plural and group; nothing where there is no such resource.
    pub fn of(&self, name: &str) -> Vec<&Value> {
        self.resource(name).map(|row| self.all(row).collect()).unwrap_or_default()
    }

    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Value> {
        let prefix = resource.storage_prefix();
        let key =
            if resource.namespaced() { format!("{prefix}/{namespace}/{name}") } else { format!("{prefix}/{name}") };
        self.by_key.get(&key)
    }
}

#[derive(Default)]
struct State {
    objects: Objects,
    revision: Revision,
    /// When something other than a heartbeat or an event was written last.
    last_write: Option<Instant>,
    writes: BTreeMap<String, u64>,
    always: Vec<Always>,
    broken: Vec<String>,
    /// The store could not be followed.
    failed: Option<String>,
}

#[derive(Clone)]
pub struct Truth {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<Revision>,
    /// Told when a condition broke: who waits for simulated time would not hear of it if time stood still.
    alarm: Arc<Notify>,
}

impl Default for Truth {
    fn default() -> Self {
        Self { state: Arc::default(), newest: watch::Sender::new(Revision::ZERO), alarm: Arc::default() }
    }
}

impl Truth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a store until it ends. A store that was opened again must have all that was there before.
    pub async fn follow(self, store: Arc<dyn Store>) {
        let ended = self.try_follow(store).await;
        if let Err(error) = ended {
            self.state().failed = Some(error);
        }
    }

    async fn try_follow(&self, store: Arc<dyn Store>) -> Result<(), String> {
        let after = self.state().revision;
        if after > Revision::ZERO {
            self.compare(&*store).await?;
        }
        let mut batches = store.watch(Span::all(), after).await.map_err(|e| format!("watch the store: {e}"))?;
        drop(store);
        while let Some(batch) = batches.next().await {
            match batch {
                Ok(batch) => batch.events.into_iter().for_each(|event| self.take(event)),
                // The store was closed.
                Err(store_client::Error::Unavailable { .. }) => return Ok(()),
                Err(error) => return Err(format!("watch the store: {error}")),
            }
        }
        Ok(())
    }

    /// Every write that was seen must still be there.
    async fn compare(&self, store: &dyn Store) -> Result<(), String> {
        let page = store.range(Range::all()).await.map_err(|e| format!("read the store: {e}"))?;
        let state = self.state();
        if page.revision < state.revision {
            return Err(format!("the store is at {} and was at {}: writes were lost", page.revision, state.revision));
        }
        let found: BTreeMap<String, &[u8]> =
            page.items.iter().map(|r| (String::from_utf8_lossy(&r.key).into_owned(), &*r.value)).collect();
        for (key, value) in &state.objects.by_key {
            match found.get(key) {
                None => return Err(format!("{key} was lost by the store's restart")),
                Some(bytes) if serde_json::from_slice::<Value>(bytes).ok().as_ref() != Some(value) => {
                    return Err(format!("{key} is not what it was before the store's restart"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn take(&self, event: store_client::Event) {
        let key = String::from_utf8_lossy(&event.key).into_owned();
        let mut state = self.state();
        let noise = key.starts_with("/registry/leases/") || key.starts_with("/registry/events/");
        if !noise {
            state.last_write = Some(Instant::now());
        }
        *state.writes.entry(key.clone()).or_default() += 1;
        match &event.change {
            Change::Put(record) => {
                let value = serde_json::from_slice(&record.value).unwrap_or(Value::Null);
                state.objects.by_key.insert(key, value);
            }
            Change::Delete => {
                state.objects.by_key.remove(&key);
            }
        }
        state.revision = event.revision;
        let State { objects, always, broken, .. } = &mut *state;
        always.retain(|(text, holds)| match holds(objects) {
            Ok(()) => true,
            Err(error) => {
                let at = crate::simulation::elapsed();
                broken.push(format!("after {at:?}, at {}: {text}: {error}", String::from_utf8_lossy(&event.key)));
                false
            }
        });
        if !state.broken.is_empty() {
            self.alarm.notify_one();
        }
        drop(state);
        self.newest.send_replace(event.revision);
    }

    pub fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        read(&self.state().objects)
    }

    pub fn set_catalogue(&self, catalogue: Arc<Catalogue>) {
        self.state().objects.set_catalogue(catalogue);
    }

    /// Adds a condition that must hold now and after every write from now on.
    pub fn always(&self, always: Always) -> Result<(), String> {
        let mut state = self.state();
        always.1(&state.objects).map_err(|error| format!("{}: {error}", always.0))?;
        state.always.push(always);
        Ok(())
    }

    /// Conditions that did not hold at some time, and what else went wrong with the store.
    pub fn broken(&self) -> Vec<String> {
        let state = self.state();
        state.broken.iter().chain(&state.failed).cloned().collect()
    }

    /// Returns when a condition has broken.
    pub async fn alarmed(&self) {
        self.alarm.notified().await;
    }

    /// Writes so far by store key.
    pub fn writes(&self) -> BTreeMap<String, u64> {
        self.state().writes.clone()
    }

    pub fn last_write(&self) -> Option<Instant> {
        self.state().last_write
    }

    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    pub fn revision(&self) -> Revision {
        self.state().revision
    }
}
