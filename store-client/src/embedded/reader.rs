//! Reads of the embedded engine: a few connections, each read on its own snapshot.
//! Invariant: the snapshot is taken while the index lock is held, so every version selected has its row in it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::disk;
use crate::index::{Index, Version};
use crate::{Change, Error, Event, Page, Range, Record, Result, Revision};

/// Idle connections kept for the next read; the rest is closed to give memory back.
const IDLE_MAX: usize = 1;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub fn new(path: PathBuf, readers_max: usize) -> Self {
        Self { path, idle: Mutex::new(Vec::new()), permits: Arc::new(Semaphore::new(readers_max.max(1))) }
    }

    /// The right to one connection.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    pub fn get(&self, index: &RwLock<Index>, key: &Bytes) -> Result<Option<Record>> {
        self.snapshot(
            index,
            |index| Ok(index.live(key)),
            |connection, live| live.map(|live| self.record(connection, key, live)).transpose(),
        )
    }

    pub fn range(&self, index: &RwLock<Index>, range: &Range) -> Result<Page> {
        self.snapshot(
            index,
            |index| {
                let revision = index.readable(range.at)?;
                Ok((revision, index.select(&range.span(), revision, range.limit)))
            },
            |connection, (revision, selection)| {
                let mut items = Vec::with_capacity(selection.items.len());
                for (key, version) in &selection.items {
                    items.push(self.record(connection, key, *version)?);
                }
                Ok(Page { revision, items, more: selection.remaining > 0, remaining: selection.remaining })
            },
        )
    }

    /// Events after `after` from the log.
    pub fn events(&self, index: &RwLock<Index>, after: Revision) -> Result<(Vec<Event>, Revision)> {
        self.snapshot(
            index,
            |index| {
                let compacted = index.compacted();
                if after < compacted {
                    return Err(Error::Compacted { requested: after, compacted });
                }
                Ok(index.revision())
            },
            |connection, newest| {
                let events = disk::events(connection, &self.path, after, newest)?;
                let progress = events.last().map_or(after, |event| event.revision);
                Ok((events, progress))
            },
        )
    }

    /// Chooses under the index lock, begins a snapshot before letting it go, then reads from the snapshot.
    fn snapshot<S, T>(
        &self,
        index: &RwLock<Index>,
        select: impl FnOnce(&Index) -> Result<S>,
        read: impl FnOnce(&Connection, S) -> Result<T>,
    ) -> Result<T> {
        let idle = self.idle.lock().expect("no code panics while it holds the list").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => disk::open_reader(&self.path)?,
        };
        let outcome = {
            let index = index.read().expect("no code panics while it changes the index");
            select(&index).and_then(|selected| Ok((selected, disk::begin_snapshot(&connection, &self.path)?)))
        };
        let outcome = outcome.and_then(|(selected, snapshot)| {
            let outcome = read(&connection, selected);
            drop(snapshot);
            outcome
        });
        let mut idle = self.idle.lock().expect("no code panics while it holds the list");
        // A connection that met an error is not used again.
        if outcome.is_ok() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        outcome
    }

    fn record(&self, connection: &Connection, key: &Bytes, version: Version) -> Result<Record> {
        let found = disk::event(connection, &self.path, version.mod_revision)?;
        match found.change {
            Change::Put(mut record) if record.key == *key => {
                record.key = key.clone();
                Ok(record)
            }
            Change::Put(_) | Change::Delete => Err(Error::Corrupt {
                place: format!("{} revision {}", self.path.display(), version.mod_revision),
                detail: format!("the row is not the record of {}", key.escape_ascii()),
            }),
        }
    }
}
