//! Making a store directory from a backup. The new database is built beside the one that is there and takes its place
//! at the end; until then the directory does not open, so that nobody runs on half of a restore.
//!
//! Invariant: at any moment either the old database is whole and in its place, or the new one is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk::{self, Log};
use super::lock::DirectoryLock;
use crate::{Change, Error, Event, Record, Result, Revision};

/// Records per transaction.
const BATCH_RECORDS: usize = 1000;
/// What the replaced database is kept as, until the next restore.
const REPLACED: &str = "store.db.replaced";

/// A restore under way. Dropped before [`Restore::finish`], it leaves a directory that does not open until a restore
/// into it has been finished, or the file it names is removed.
pub struct Restore {
    directory: PathBuf,
    log: Log,
    revision: Revision,
    batch: Vec<Event>,
    /// Held to the end: no server opens the directory meanwhile.
    _lock: DirectoryLock,
}

impl Restore {
    /// Locks the directory (a running server is [`Error::Locked`]) and begins a store whose first write gets the
    /// revision behind `base`. A store that is there is refused unless it is to be replaced.
    pub fn begin(directory: impl AsRef<Path>, base: Revision, replace: bool) -> Result<Self> {
        let directory = directory.as_ref();
        let lock = DirectoryLock::acquire(directory)?;
        if !replace && directory.join(disk::FILE_NAME).exists() {
            let attempt = format!("restore into {}", directory.display());
            return Err(Error::Open { attempt, detail: "there is a store already".to_owned() });
        }
        let path = directory.join(disk::RESTORING);
        // Of an attempt that was interrupted.
        for file in disk::files(&path) {
            remove(&file)?;
        }
        let log = Log::open(&path, None)?;
        Ok(Self { directory: directory.to_owned(), log, revision: base, batch: Vec::new(), _lock: lock })
    }

    /// Creates a key; it must not have been created before.
    pub fn create(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        self.revision = self.revision.next();
        let (revision, record_key) = (self.revision, key.clone());
        let record = Record { key: record_key, value, mod_revision: revision, create_revision: revision, version: 1 };
        self.batch.push(Event { revision, key, change: Change::Put(record) });
        if self.batch.len() == BATCH_RECORDS { self.flush() } else { Ok(()) }
    }

    /// Puts the new store into its place. Returns the revision it is at.
    pub fn finish(mut self) -> Result<Revision> {
        self.flush()?;
        let revision = self.revision;
        // All of it is old: who watches from before is told so.
        self.write(|transaction| {
            disk::set_meta(transaction, "compacted", revision)?;
            disk::set_meta(transaction, "swept", revision)
        })?;
        let Self { directory, log, _lock: lock, .. } = self;
        log.into_one_file()?;
        replace(&directory)?;
        drop(lock);
        Ok(revision)
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.write(|transaction| batch.iter().try_for_each(|event| disk::insert(transaction, event)))
    }

    fn write(&mut self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        self.log.transaction(work).map_err(|(error, _)| error)
    }
}

/// Puts the new database into the place of the old. The old write-ahead log must go before: SQLite would apply it to
/// the new one.
fn replace(directory: &Path) -> Result<()> {
    let current = directory.join(disk::FILE_NAME);
    let replaced = directory.join(REPLACED);
    for file in disk::files(&replaced) {
        remove(&file)?;
    }
    let renamed = |from: &Path, to: &Path| fs::rename(from, to).map_err(|error| failed("rename", from, error));
    if current.exists() {
        fs::hard_link(&current, &replaced).map_err(|error| failed("keep", &current, error))?;
        let [_, wal, shm] = disk::files(&current);
        let [_, old_wal, _] = disk::files(&replaced);
        if wal.exists() {
            renamed(&wal, &old_wal)?;
        }
        remove(&shm)?;
    }
    renamed(&directory.join(disk::RESTORING), &current)?;
    disk::sync_directory(&current)
}

/// Success when there is no such file.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    Error::Open { attempt: format!("{verb} {}", path.display()), detail: error.to_string() }
}

/// Refuses a directory in which a restore was begun and not finished.
pub(super) fn check_finished(directory: &Path) -> Result<()> {
    let path = directory.join(disk::RESTORING);
    if !path.exists() {
        return Ok(());
    }
    let attempt = format!("open the store in {}", directory.display());
    let detail = format!("a restore into it was not finished; run it again, or remove {}", path.display());
    Err(Error::Open { attempt, detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Embedded, Options, Snapshot};
    use crate::{Range, Store};

    async fn contents(directory: &Path) -> Vec<(Bytes, Bytes)> {
        let store = Embedded::open(directory, Options::default()).unwrap();
        let page = store.range(Range::all()).await.unwrap();
        page.items.into_iter().map(|record| (record.key, record.value)).collect()
    }

    #[tokio::test]
    async fn a_store_is_replaced_only_when_asked_and_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path(), Options::default()).unwrap();
        store.create("/old".into(), "1".into()).await.unwrap();
        let error = Restore::begin(directory.path(), Revision(100), true).err().expect("a server runs");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(store);
        let error = Restore::begin(directory.path(), Revision(100), false).err().expect("there is a store");
        assert!(error.to_string().contains("there is a store already"), "{error}");
        assert_eq!(contents(directory.path()).await, [("/old".into(), "1".into())]);

        let mut restore = Restore::begin(directory.path(), Revision(100), true).unwrap();
        restore.create("/new".into(), "2".into()).unwrap();
        drop(restore);
        let error = Embedded::open(directory.path(), Options::default()).err().expect("half of a restore");
        assert!(error.to_string().contains("was not finished"), "{error}");

        let mut restore = Restore::begin(directory.path(), Revision(100), true).unwrap();
        restore.create("/new".into(), "2".into()).unwrap();
        assert_eq!(restore.finish().unwrap(), Revision(101));
        assert_eq!(Snapshot::open(directory.path()).unwrap().revision(), Revision(101));
        assert_eq!(contents(directory.path()).await, [("/new".into(), "2".into())]);
        let names = fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name());
        assert!(names.into_iter().any(|name| name == REPLACED), "the old one is kept");
    }
}
