//! The one thread that changes the store. It commits what has queued up in one transaction (group commit), publishes,
//! answers, and between batches deletes compacted rows and shrinks the file in small steps.
//! Invariant: nothing is published or answered before its transaction is durable.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{self, Log, Severity};
use super::lock::DirectoryLock;
use super::{Options, Shared};
use crate::index::Version;
use crate::write::{Refusal, Write};
use crate::{Error, Event, Result, Revision};

/// Bytes after which a transaction takes no more writes: bounds memory and the time others wait.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Log rows looked at per step of deleting compacted ones: a few milliseconds between two batches.
const SWEEP_ROWS: usize = 256;
/// Pages given back per step of shrinking.
const VACUUM_PAGES: u64 = 64;
/// The file shrinks once this many pages and this part of it are free; less is soon used again.
const FREE_PAGES_MIN: u64 = 1024;
const FREE_PART: u64 = 4;

pub(super) enum Command {
    Write { write: Write, reply: oneshot::Sender<std::result::Result<Revision, Failure>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
}

/// Why a write did not happen.
pub(super) enum Failure {
    Refused(Refusal),
    Store(Error),
}

type Reply = oneshot::Sender<std::result::Result<Revision, Failure>>;

pub(super) struct Writer {
    log: Log,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    newest: watch::Sender<Revision>,
    batch_writes_max: usize,
    /// Rows up to here have been looked at for deletion.
    swept: Revision,
    /// Forgotten by the index, not yet deleted; with the revision the sweep reaches once they are.
    dead: Option<(Vec<Revision>, Revision)>,
    shrinking: bool,
    /// The reason why no more writes are taken.
    stopped: Option<String>,
    /// Dropped last: the directory is free when the connection is closed.
    _lock: DirectoryLock,
}

impl Writer {
    pub fn new(
        log: Log,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        newest: watch::Sender<Revision>,
        options: &Options,
        swept: Revision,
        lock: DirectoryLock,
    ) -> Self {
        Self {
            log,
            shared,
            commands,
            newest,
            batch_writes_max: options.batch_writes_max.max(1),
            swept,
            dead: None,
            // A stop may have come between deleting and shrinking.
            shrinking: true,
            stopped: None,
            _lock: lock,
        }
    }

    /// Serves until every sender is gone and the queue is empty.
    pub fn run(mut self) {
        let mut has_chores = true;
        loop {
            let command = if has_chores {
                match self.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            } else {
                match self.commands.blocking_recv() {
                    Some(command) => Some(command),
                    None => return,
                }
            };
            if let Some(command) = command {
                self.serve(command);
            }
            has_chores = self.stopped.is_none() && self.chore();
        }
    }

    fn serve(&mut self, first: Command) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Write { write, reply } => {
                    bytes += write.key.len() + write.value().map_or(0, Bytes::len);
                    batch.push((write, reply));
                }
                Command::Compact { revision, reply } => {
                    self.commit(std::mem::take(&mut batch));
                    let outcome = self.compact(revision);
                    // The caller may have gone; the compaction stands all the same.
                    drop(reply.send(outcome));
                }
            }
            if batch.len() < self.batch_writes_max && bytes < BATCH_BYTES_MAX {
                next = self.commands.try_recv().ok();
            }
        }
        self.commit(batch);
    }

    fn commit(&mut self, batch: Vec<(Write, Reply)>) {
        let (writes, replies): (Vec<Write>, Vec<Reply>) = batch.into_iter().unzip();
        let (outcomes, events) = self.stage(writes);
        let stored = self.store(&events);
        if stored.is_ok() {
            self.publish(events);
        }
        for (outcome, reply) in outcomes.into_iter().zip(replies) {
            // If nothing was stored, refusals may rest on writes that did not happen: everybody gets the error.
            let answer = match &stored {
                Ok(()) => outcome.map_err(Failure::Refused),
                Err(error) => Err(Failure::Store(copy(error))),
            };
            // The caller may have gone; the write stands all the same.
            drop(reply.send(answer));
        }
    }

    /// Gives each write its revision, or the reason why not, as if the ones before it had happened.
    fn stage(&self, writes: Vec<Write>) -> (Vec<std::result::Result<Revision, Refusal>>, Vec<Event>) {
        let index = self.shared.index();
        let mut staged: HashMap<Bytes, Version> = HashMap::new();
        let mut revision = index.revision();
        let mut events = Vec::with_capacity(writes.len());
        let outcomes = writes.into_iter().map(|write| {
            let live = match staged.get(&write.key) {
                Some(version) => Some(*version).filter(|version| !version.is_tombstone()),
                None => index.live(&write.key),
            };
            let version = write.plan(live, revision.next())?;
            revision = revision.next();
            staged.insert(write.key.clone(), version);
            events.push(write.into_event(version));
            Ok(revision)
        });
        let outcomes = outcomes.collect();
        (outcomes, events)
    }

    fn store(&mut self, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.transaction(|transaction| events.iter().try_for_each(|event| disk::insert(transaction, event)))
    }

    fn publish(&self, events: Vec<Event>) {
        let Some(newest) = events.last().map(|event| event.revision) else { return };
        {
            let mut index = self.shared.index_mut();
            for event in &events {
                index.push(event.key.clone(), Version::of(event));
            }
        }
        {
            let mut tail = self.shared.tail();
            events.into_iter().for_each(|event| tail.push(event));
        }
        self.newest.send_replace(newest);
    }

    fn compact(&mut self, revision: Revision) -> Result<()> {
        let (compacted, newest) = {
            let index = self.shared.index();
            (index.compacted(), index.revision())
        };
        if revision <= compacted {
            return Ok(());
        }
        if revision > newest {
            return Err(Error::Future { requested: revision, current: newest });
        }
        // Durable first: after a restart the rows may be gone, so reads must be refused as well.
        self.transaction(|transaction| disk::set_meta(transaction, "compacted", revision))?;
        self.shared.index_mut().compact(revision)
    }

    /// One small step of deleting or shrinking; false when there is nothing to do or it cannot be done now.
    fn chore(&mut self) -> bool {
        let outcome = match self.sweep() {
            Ok(false) => self.shrink(),
            outcome => outcome,
        };
        outcome.unwrap_or_else(|error| {
            // Tried again after the next write: a full disk may have room then.
            tracing::warn!(%error, "cannot delete compacted history");
            false
        })
    }

    fn sweep(&mut self) -> Result<bool> {
        let compacted = self.shared.index().compacted();
        if self.swept >= compacted {
            return Ok(false);
        }
        if self.dead.is_none() {
            let rows = self.log.keys(self.swept, compacted, SWEEP_ROWS)?;
            let reached = if rows.len() < SWEEP_ROWS { compacted } else { rows[SWEEP_ROWS - 1].0 };
            let mut index = self.shared.index_mut();
            let dead = rows.iter().flat_map(|(_, key)| index.forget(key)).collect();
            drop(index);
            self.dead = Some((dead, reached));
        }
        let Some((dead, reached)) = self.dead.take() else { return Ok(false) };
        let outcome = self.transaction(|transaction| {
            disk::remove(transaction, &dead)?;
            disk::set_meta(transaction, "swept", reached)
        });
        match outcome {
            Ok(()) => {
                self.swept = reached;
                self.shrinking = true;
                Ok(true)
            }
            Err(error) => {
                self.dead = Some((dead, reached));
                Err(error)
            }
        }
    }

    fn shrink(&mut self) -> Result<bool> {
        if !self.shrinking {
            return Ok(false);
        }
        let (free, all) = self.log.pages()?;
        self.shrinking = free >= FREE_PAGES_MIN && free * FREE_PART >= all;
        if self.shrinking {
            self.log.vacuum(VACUUM_PAGES)?;
        }
        Ok(self.shrinking)
    }

    fn transaction(&mut self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        if let Some(reason) = &self.stopped {
            let detail = format!("{reason}; restart the server, it reads the store again");
            return Err(Error::Unavailable { attempt: "write".to_owned(), detail });
        }
        self.log.transaction(work).map_err(|(error, severity)| {
            if severity == Severity::Fatal {
                tracing::error!(%error, "the store takes no more writes");
                self.stopped = Some(error.to_string());
            }
            error
        })
    }
}

/// One transaction's error for each of its writers.
fn copy(error: &Error) -> Error {
    match error {
        Error::Full { detail } => Error::Full { detail: detail.clone() },
        Error::Corrupt { place, detail } => Error::Corrupt { place: place.clone(), detail: detail.clone() },
        Error::Unavailable { attempt, detail } => {
            Error::Unavailable { attempt: attempt.clone(), detail: detail.clone() }
        }
        other => Error::Unavailable { attempt: "write".to_owned(), detail: other.to_string() },
    }
}
