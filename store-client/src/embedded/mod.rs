//! The embedded engine: a durable log of writes in one directory, for one server.
//!
//! Shape: SQLite holds one table, revision -> record (`disk`). The key index lives in memory and is rebuilt on open.
//! One thread owns the writing connection (`writer`): it takes what has queued up, commits it as one transaction, and
//! only then publishes the events and answers. Readers use their own connections on snapshots (`reader`), so they
//! never wait for the writer nor hold it up. Values stay on disk; memory holds keys, revisions and a short tail of
//! recent events (`tail`), whose bytes the API server's cache shares.
//!
//! Why SQLite: the API server's cache holds every object, so the engine's work is a log with group commit, recovery
//! and compaction. With the index in memory SQLite (WAL, synchronous FULL) was the fastest of the four engines that we
//! measured in that layout at 64 writers, needs one flush per commit, recovers in milliseconds, gives space back in
//! small steps, and is by far the most proven. A log of our own writes less and was half as fast again, but its
//! recovery, compaction and corruption handling would be ours to prove; the store is the last place to be original.
//!
//! Invariants:
//! * Revisions above `compacted` are contiguous on disk: a gap is corruption and is reported as such.
//! * The index never names a row that a reader's snapshot lacks: versions are published after their commit, and
//!   forgotten before their rows are deleted; a reader takes its snapshot under the index lock.
//! * Space: a full disk refuses writes with [`Error::Full`], reads and reopening go on, and writes succeed again once
//!   there is room. Nobody has to help.
//! * A failed flush stops the writer for good (the kernel may have dropped the pages); anything else, a full disk
//!   above all, fails the writes at hand and the next ones are tried afresh.

mod disk;
mod lock;
mod reader;
mod restore;
mod snapshot;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::cursor::{self, History};
use crate::index::Index;
use crate::write::{Kind, Refusal, Write};
use crate::{Error, Event, Page, Range, Record, Result, Revision, Span, Status, Store, WatchStream};
use disk::Log;
use lock::DirectoryLock;
use reader::Readers;
use tail::Tail;
use writer::{Command, Writer};

pub use lock::in_use;
pub use restore::Restore;
pub use snapshot::Snapshot;

/// Writes waiting for the writer; more callers wait in turn.
const QUEUE_WRITES_MAX: usize = 512;

/// What can be chosen when opening; [`Options::default`] suits a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse writes with [`Error::Full`] when the database would exceed this size; `None`: the disk is the limit.
    pub bytes_max: Option<u64>,
    /// Recent events kept in memory for watches; older ones are read from disk.
    pub tail_bytes_max: usize,
    /// Writes per transaction.
    pub batch_writes_max: usize,
    /// Reading connections open at the same time; more readers wait.
    pub readers_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes_max: None, tail_bytes_max: 2 * 1024 * 1024, batch_writes_max: 512, readers_max: 4 }
    }
}

/// An open store directory. Dropping it finishes queued writes and releases the directory.
pub struct Embedded {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    commands: Option<mpsc::Sender<Command>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle, the writer and watches share.
pub(crate) struct Shared {
    index: RwLock<Index>,
    tail: Mutex<Tail>,
    readers: Readers,
    /// The newest published revision; closed when the writer ends, which ends the watches.
    newest: watch::Receiver<Revision>,
    path: PathBuf,
}

impl Embedded {
    /// Opens the store in `directory`, making both if they do not exist. Blocks: it reads and checks the whole log.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        let lock = DirectoryLock::acquire(directory)?;
        restore::check_finished(directory)?;
        let path = directory.join(disk::FILE_NAME);
        let log = Log::open(&path, options.bytes_max)?;
        let loaded = log.load()?;
        let revision = loaded.index.revision();
        let (newest_sender, newest) = watch::channel(revision);
        let shared = Arc::new(Shared {
            index: RwLock::new(loaded.index),
            tail: Mutex::new(Tail::new(revision, options.tail_bytes_max)),
            readers: Readers::new(path.clone(), options.readers_max),
            newest,
            path,
        });
        let (commands, queue) = mpsc::channel(QUEUE_WRITES_MAX);
        let writer = Writer::new(log, shared.clone(), queue, newest_sender, &options, loaded.swept, lock);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|error| Error::Open {
            attempt: format!("start the writer of {}", directory.display()),
            detail: error.to_string(),
        })?;
        tracing::info!(directory = %directory.display(), %revision, "store open");
        Ok(Self { shared, commands: Some(commands), writer: Mutex::new(Some(thread)) })
    }

    async fn send(&self, command: Command, attempt: &str) -> Result<()> {
        let commands = self.commands.as_ref().expect("the queue lives as long as the handle");
        commands.send(command).await.map_err(|_| stopped(attempt))
    }

    async fn write(&self, write: Write, attempt: &str) -> Result<Revision> {
        write.check_size()?;
        let key = write.key.clone();
        let (reply, answer) = oneshot::channel();
        self.send(Command::Write { write, reply }, attempt).await?;
        match answer.await.map_err(|_| stopped(attempt))? {
            Ok(revision) => Ok(revision),
            Err(writer::Failure::Store(error)) => Err(error),
            Err(writer::Failure::Refused(refusal)) => {
                let current = match refusal {
                    Refusal::Conflict { .. } => self.get(&key).await?,
                    Refusal::Exists | Refusal::NotFound => None,
                };
                Err(refusal.into_error(key, current))
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        attempt: &'static str,
        read: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(self.shared.clone(), attempt, read).await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.commands = None;
        let thread = self.writer.lock().ok().and_then(|mut writer| writer.take());
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(path = %self.shared.path.display(), "the store's writer panicked");
        }
    }
}

/// Runs a read on the blocking pool once one of the reading connections is free.
async fn blocking<T: Send + 'static>(
    shared: Arc<Shared>,
    attempt: &'static str,
    read: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = shared.readers.permit().await;
    let task = tokio::task::spawn_blocking(move || {
        let outcome = read(&shared);
        drop(permit);
        outcome
    });
    task.await.unwrap_or_else(|error| Err(unavailable(attempt, error)))
}

fn unavailable(attempt: &str, detail: impl ToString) -> Error {
    Error::Unavailable { attempt: attempt.to_owned(), detail: detail.to_string() }
}

fn stopped(attempt: &str) -> Error {
    unavailable(attempt, "the store is closed")
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>> {
        let key = Bytes::copy_from_slice(key);
        self.blocking("get", move |shared| shared.readers.get(&shared.index, &key)).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.blocking("range", move |shared| shared.readers.range(&shared.index, &range)).await
    }

    async fn create(&self, key: Bytes, value: Bytes) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Create { value } }, "create").await
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Update { value, expected } }, "update").await
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Delete { expected } }, "delete").await
    }

    async fn watch(&self, span: Span, after: Revision) -> Result<WatchStream> {
        let compacted = self.shared.index().compacted();
        if after < compacted {
            return Err(Error::Compacted { requested: after, compacted });
        }
        Ok(cursor::watch(self.shared.clone(), self.shared.newest.clone(), span, after))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Compact { revision, reply }, "compact").await?;
        answer.await.map_err(|_| stopped("compact"))?
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(*self.shared.newest.borrow())
    }

    async fn status(&self) -> Result<Status> {
        let bytes = disk::file_bytes(&self.shared.path);
        let index = self.shared.index();
        Ok(Status { revision: index.revision(), compacted: index.compacted(), bytes })
    }
}

impl Shared {
    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().expect("no code panics while it changes the index")
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().expect("no code panics while it changes the index")
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().expect("no code panics while it changes the tail")
    }
}

/// The history with the handle that reading it needs: the tail if it reaches back far enough, else the disk.
#[async_trait]
impl History for Shared {
    async fn read(self: Arc<Self>, after: Revision) -> Result<(Vec<Event>, Revision)> {
        let compacted = self.index().compacted();
        if after < compacted {
            return Err(Error::Compacted { requested: after, compacted });
        }
        if let Some(chunk) = self.tail().read(after) {
            return Ok(chunk);
        }
        blocking(self, "watch", move |shared| shared.readers.events(&shared.index, after)).await
    }
}
