//! The store in memory: for tests and for servers that may forget everything. Same semantics as the others, no disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::cursor::{self, History};
use crate::index::{Index, Version};
use crate::write::{Kind, Write};
use crate::{Error, Event, Page, Range, Record, Result, Revision, Span, Status, Store, WatchStream};

/// Events per watch batch; a catching-up watcher takes several.
const BATCH_EVENTS_MAX: usize = 512;

/// A cheap handle; clones share one store.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    newest: watch::Sender<Revision>,
}

struct State {
    index: Index,
    /// Every retained write by revision: the history and the home of the values.
    events: BTreeMap<Revision, Event>,
    value_bytes: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store at [`Revision::EMPTY`].
    pub fn new() -> Self {
        let index = Index::new(Revision::EMPTY, Revision::ZERO);
        let state = State { index, events: BTreeMap::new(), value_bytes: 0 };
        let shared = Shared { state: Mutex::new(state), newest: watch::Sender::new(Revision::EMPTY) };
        Self { shared: Arc::new(shared) }
    }

    /// A store restored from a backup: every record created afresh behind `base`, and all of that old.
    pub fn restored(base: Revision, records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self> {
        let memory = Self::new();
        memory.shared.state().index.raise(base);
        for (key, value) in records {
            memory.write(Write { key, kind: Kind::Create { value } })?;
        }
        let revision = memory.shared.state().index.revision();
        memory.shared.state().index.compact(revision)?;
        memory.shared.newest.send_replace(revision);
        Ok(memory)
    }

    fn write(&self, write: Write) -> Result<Revision> {
        write.check_size()?;
        let mut state = self.shared.state();
        let revision = state.index.revision().next();
        let live = state.index.live(&write.key);
        let version = write.plan(live, revision).map_err(|refusal| {
            let current = live.map(|live| state.record(live));
            refusal.into_error(write.key.clone(), current)
        })?;
        state.push(write, version);
        self.shared.newest.send_replace(revision);
        Ok(revision)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the state")
    }
}

impl State {
    fn push(&mut self, write: Write, version: Version) {
        self.value_bytes += write.value().map_or(0, |value| value.len() as u64);
        self.index.push(write.key.clone(), version);
        self.events.insert(version.mod_revision, write.into_event(version));
    }

    fn record(&self, version: Version) -> Record {
        let event = self.events.get(&version.mod_revision).expect("the index names only retained revisions");
        event.record().expect("live versions are records").clone()
    }

    fn sweep(&mut self, from: Revision, to: Revision) {
        let keys: Vec<Bytes> = self.events.range(from..=to).map(|(_, event)| event.key.clone()).collect();
        for key in keys {
            for dead in self.index.forget(&key) {
                let event = self.events.remove(&dead);
                let bytes = event.as_ref().and_then(Event::record).map_or(0, |record| record.value.len());
                self.value_bytes -= bytes as u64;
            }
        }
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>> {
        let state = self.shared.state();
        Ok(state.index.live(key).map(|live| state.record(live)))
    }

    async fn range(&self, range: Range) -> Result<Page> {
        let state = self.shared.state();
        let revision = state.index.readable(range.at)?;
        let selection = state.index.select(&range.span(), revision, range.limit);
        let items = selection.items.iter().map(|(_, version)| state.record(*version)).collect();
        Ok(Page { revision, items, more: selection.remaining > 0, remaining: selection.remaining })
    }

    async fn create(&self, key: Bytes, value: Bytes) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Create { value } })
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Update { value, expected } })
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Delete { expected } })
    }

    async fn watch(&self, span: Span, after: Revision) -> Result<WatchStream> {
        let compacted = self.shared.state().index.compacted();
        if after < compacted {
            return Err(Error::Compacted { requested: after, compacted });
        }
        Ok(cursor::watch(self.shared.clone(), self.shared.newest.subscribe(), span, after))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let mut state = self.shared.state();
        let before = state.index.compacted();
        state.index.compact(revision)?;
        if revision > before {
            state.sweep(before, revision);
        }
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(*self.shared.newest.borrow())
    }

    async fn status(&self) -> Result<Status> {
        let state = self.shared.state();
        let (revision, compacted) = (state.index.revision(), state.index.compacted());
        Ok(Status { revision, compacted, bytes: state.value_bytes })
    }
}

#[async_trait]
impl History for Shared {
    async fn read(self: Arc<Self>, after: Revision) -> Result<(Vec<Event>, Revision)> {
        let state = self.state();
        let compacted = state.index.compacted();
        if after < compacted {
            return Err(Error::Compacted { requested: after, compacted });
        }
        let events: Vec<Event> =
            state.events.range(after.next()..).take(BATCH_EVENTS_MAX).map(|(_, event)| event.clone()).collect();
        let progress = events.last().map_or(after, |event| event.revision);
        Ok((events, progress))
    }
}
