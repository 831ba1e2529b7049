//! SQLite behind the embedded engine: file format, settings, rows and error mapping. Nothing else speaks SQL.
//!
//! `log` has a row per retained write; the value is NULL in a deletion. `crc` covers the whole row, because SQLite
//! itself does not notice a flipped bit in a value. `meta` holds the format version, the revision compacted to and how
//! far the rows behind it have been deleted (`swept`).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::index::{Index, Version};
use crate::{Change, Error, Event, Record, Result, Revision};

pub(super) const FILE_NAME: &str = "store.db";
/// The database of a restore that is not finished.
pub(super) const RESTORING: &str = "store.db.restoring";

/// The format this program reads and writes. A change needs a conversion from every older one.
const FORMAT: i64 = 1;
/// "KEEL", SQLite's `application_id`: tells `file` and us that the database is ours.
const APPLICATION_ID: i64 = 0x4b45_454c;
/// Pages are cached by the kernel already; the process keeps few of its own.
const WRITER_CACHE_KIB: i64 = 1024;
const READER_CACHE_KIB: i64 = 256;
const PAGE_BYTES: u64 = 4096;
/// Pages in the write-ahead log before they move to the database: 4 MiB bounds recovery and disk use.
const CHECKPOINT_PAGES: i64 = 1000;
/// The write-ahead log is cut to this after a burst.
const WAL_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// Waiting for an operator's `sqlite3` shell, which is the only other user of the file.
const BUSY_MS: u64 = 5000;
/// Events per read of history, and the bytes after which a read stops early.
const READ_EVENTS_MAX: i64 = 256;
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE log (
        revision INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        created INTEGER NOT NULL,
        version INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        value BLOB
    );
    INSERT INTO meta VALUES ('format', 1), ('compacted', 0), ('swept', 0);
";

const COLUMNS: &str = "revision, key, created, version, crc, value";

/// The writing connection.
pub(super) struct Log {
    connection: Connection,
    path: PathBuf,
}

/// What opening finds.
pub(super) struct Loaded {
    pub index: Index,
    pub swept: Revision,
}

/// How a failed statement is to be taken by the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// The writes at hand failed; the next may succeed.
    Passing,
    /// What is on disk is not known any more; only a restart, which reads it again, can go on.
    Fatal,
}

impl Log {
    pub fn open(path: &Path, bytes_max: Option<u64>) -> Result<Self> {
        create_private(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| failed("open", path, error))?;
        let mut log = Self { connection, path: path.to_owned() };
        log.configure(bytes_max).map_err(|error| failed("open", path, error))?;
        log.prepare_format()?;
        sync_directory(path)?;
        Ok(log)
    }

    fn configure(&self, bytes_max: Option<u64>) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        // Takes effect only while the file is still empty; later it would be a write, which a full disk refuses.
        if connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode only FULL flushes at every commit.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
        // Closing moves nothing: what is in the write-ahead log is as durable there, the next opening reads it within
        // milliseconds, and on a busy disk a stop would wait half a second for flushes that nobody needs.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if let Some(bytes_max) = bytes_max {
            connection.pragma_update(None, "max_page_count", (bytes_max / PAGE_BYTES).max(1) as i64)?;
        }
        Ok(())
    }

    fn prepare_format(&mut self) -> Result<()> {
        let path = self.path.clone();
        let fail = |error| failed("read the format of", &path, error);
        let tables: i64 =
            self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
        if tables == 0 {
            let transaction = self.connection.transaction().map_err(fail)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
            transaction.execute_batch(SCHEMA).map_err(fail)?;
            return transaction.commit().map_err(fail);
        }
        check_format(&self.connection, &path)
    }

    /// See [`load`].
    pub fn load(&self) -> Result<Loaded> {
        load(&self.connection, &self.path)
    }

    /// Runs `work` in one transaction that is durable when this returns Ok, and undone when it returns an error.
    pub fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> std::result::Result<T, (Error, Severity)> {
        let outcome = self.connection.transaction().and_then(|transaction| {
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        outcome.map_err(|error| {
            let severity = severity(&error);
            (failed("write", &self.path, error), severity)
        })
    }

    /// Revision and key of some rows in `(after, to]`.
    pub fn keys(&self, after: Revision, to: Revision, limit: usize) -> Result<Vec<(Revision, Bytes)>> {
        let fail = |error| failed("read", &self.path, error);
        let sql = "SELECT revision, key FROM log WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql).map_err(fail)?;
        let mut rows = statement.query(params![after.0 as i64, to.0 as i64, limit as i64]).map_err(fail)?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next().map_err(fail)? {
            let revision: i64 = row.get(0).map_err(fail)?;
            let key: Vec<u8> = row.get(1).map_err(fail)?;
            keys.push((Revision(revision as u64), key.into()));
        }
        Ok(keys)
    }

    /// Free pages and all pages of the file.
    pub fn pages(&self) -> Result<(u64, u64)> {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let fail = |error| failed("read", &self.path, error);
        Ok((pragma("freelist_count").map_err(fail)? as u64, pragma("page_count").map_err(fail)? as u64))
    }

    /// Gives up to `pages` free pages back to the file system.
    pub fn vacuum(&self, pages: u64) -> Result<()> {
        let vacuum = || {
            // The pragma frees one page per step: it has to be stepped to its end.
            let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        vacuum().map_err(|error| failed("shrink", &self.path, error))
    }

    /// Closes the database with nothing beside it, all of it flushed.
    pub fn into_one_file(self) -> Result<()> {
        let fail = |error| failed("close", &self.path, error);
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fail)?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(fail)?;
        self.connection.close().map_err(|(_, error)| failed("close", &self.path, error))
    }
}

/// Whether the database is ours and of the format this program knows.
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<()> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0));
    let application = application.map_err(|error| failed("read the format of", path, error))?;
    let attempt = format!("open {}", path.display());
    if application != APPLICATION_ID {
        return Err(Error::Open { attempt, detail: "not a Keelson store".to_owned() });
    }
    let format = meta(connection, path, "format")?;
    if format != FORMAT as u64 {
        let detail = format!("its format is {format}, this program knows {FORMAT}; use the version that wrote it");
        return Err(Error::Open { attempt, detail });
    }
    Ok(())
}

/// Reads and checks every row and builds the index.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<Loaded> {
    let fail = |error| failed("read", path, error);
    let compacted = Revision(meta(connection, path, "compacted")?);
    let swept = Revision(meta(connection, path, "swept")?);
    let mut index = Index::new(Revision::EMPTY, compacted);
    let sql = format!("SELECT {COLUMNS} FROM log ORDER BY revision");
    let mut statement = connection.prepare(&sql).map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;
    let mut expected = compacted.max(Revision::EMPTY).next();
    while let Some(row) = rows.next().map_err(fail)? {
        let (key, version) = checked_version(row, path)?;
        let revision = version.mod_revision;
        if revision > compacted {
            if revision != expected {
                let place = format!("{} revision {expected}", path.display());
                return Err(Error::Corrupt { place, detail: format!("missing; the next one is {revision}") });
            }
            expected = revision.next();
        }
        index.push(Bytes::copy_from_slice(key), version);
    }
    index.raise(compacted.max(Revision::EMPTY));
    Ok(Loaded { index, swept })
}

fn meta(connection: &Connection, path: &Path, name: &str) -> Result<u64> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    let value: Option<i64> =
        connection.query_row(sql, [name], |row| row.get(0)).optional().map_err(|error| failed("read", path, error))?;
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| Error::Corrupt {
        place: format!("{} table meta", path.display()),
        detail: format!("no valid row {name}"),
    })
}

/// Adds a row for a write.
pub(super) fn insert(transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<()> {
    let version = Version::of(event);
    let value = event.record().map(|record| &record.value[..]);
    let sql = "INSERT INTO log (revision, key, created, version, crc, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(sql)?.execute(params![
        version.mod_revision.0 as i64,
        &event.key[..],
        version.create_revision.0 as i64,
        version.version as i64,
        i64::from(checksum(&event.key, version, value)),
        value,
    ])?;
    Ok(())
}

pub(super) fn remove(transaction: &Transaction<'_>, revisions: &[Revision]) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached("DELETE FROM log WHERE revision = ?1")?;
    for revision in revisions {
        statement.execute([revision.0 as i64])?;
    }
    Ok(())
}

/// `name` is `compacted` or `swept`.
pub(super) fn set_meta(transaction: &Transaction<'_>, name: &str, revision: Revision) -> rusqlite::Result<()> {
    let sql = "UPDATE meta SET value = ?2 WHERE name = ?1";
    transaction.prepare_cached(sql)?.execute(params![name, revision.0 as i64])?;
    Ok(())
}

pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        Ok(connection)
    };
    open().map_err(|error| failed("open", path, error))
}

/// Fixes what the connection sees until it is closed.
pub(super) fn hold_snapshot(connection: &Connection, path: &Path) -> Result<()> {
    // A transaction takes its snapshot with its first read, not with BEGIN.
    let hold = || {
        connection.execute_batch("BEGIN")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    hold().map_err(|error| failed("read", path, error))
}

/// Fixes what the connection sees until the transaction is dropped.
pub(super) fn begin_snapshot<'c>(connection: &'c Connection, path: &Path) -> Result<Transaction<'c>> {
    let begin = || {
        let transaction = connection.unchecked_transaction()?;
        // A transaction takes its snapshot with its first read, not with BEGIN.
        transaction.prepare_cached("SELECT value FROM meta WHERE name = 'format'")?.query_row([], |_| Ok(()))?;
        Ok(transaction)
    };
    begin().map_err(|error| failed("read", path, error))
}

/// The write at `revision`, which the caller knows to be retained.
pub(super) fn event(connection: &Connection, path: &Path, revision: Revision) -> Result<Event> {
    let fail = |error| failed("read", path, error);
    let sql = "SELECT revision, key, created, version, crc, value FROM log WHERE revision = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(fail)?;
    let mut rows = statement.query([revision.0 as i64]).map_err(fail)?;
    match rows.next().map_err(fail)? {
        Some(row) => checked_event(row, path),
        None => Err(Error::Corrupt {
            place: format!("{} revision {revision}", path.display()),
            detail: "the row is missing".to_owned(),
        }),
    }
}

/// Some writes in `(after, to]`, oldest first.
pub(super) fn events(connection: &Connection, path: &Path, after: Revision, to: Revision) -> Result<Vec<Event>> {
    let fail = |error| failed("read", path, error);
    let sql = "SELECT revision, key, created, version, crc, value FROM log
               WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(fail)?;
    let mut rows = statement.query(params![after.0 as i64, to.0 as i64, READ_EVENTS_MAX]).map_err(fail)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while bytes < READ_BYTES_MAX
        && let Some(row) = rows.next().map_err(fail)?
    {
        let event = checked_event(row, path)?;
        bytes += event.record().map_or(0, |record| record.value.len());
        events.push(event);
    }
    Ok(events)
}

/// A database and what SQLite has beside it: the write-ahead log and its index.
pub(super) fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Size of the database with its write-ahead log; a file that is not there counts as empty.
pub(super) fn file_bytes(path: &Path) -> u64 {
    files(path)[..2].iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn checksum(key: &[u8], version: Version, value: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&version.mod_revision.0.to_le_bytes());
    crc.update(&version.create_revision.0.to_le_bytes());
    crc.update(&version.version.to_le_bytes());
    crc.update(&(key.len() as u64).to_le_bytes());
    crc.update(key);
    crc.update(&[u8::from(value.is_some())]);
    crc.update(value.unwrap_or_default());
    crc.finalize()
}

/// Key and version of a row after its checksum has been compared.
fn checked_version<'r>(row: &'r Row<'_>, path: &Path) -> Result<(&'r [u8], Version)> {
    let read = || -> rusqlite::Result<_> {
        let [revision, created, version, crc] = [row.get::<_, i64>(0)?, row.get(2)?, row.get(3)?, row.get(4)?];
        let key = row.get_ref(1)?.as_blob()?;
        let value = row.get_ref(5)?.as_blob_or_null()?;
        let version = Version {
            mod_revision: Revision(revision as u64),
            create_revision: Revision(created as u64),
            version: version as u64,
        };
        Ok((key, version, value, crc))
    };
    let (key, version, value, crc) = read().map_err(|error| failed("read", path, error))?;
    if i64::from(checksum(key, version, value)) != crc {
        let place = format!("{} revision {}", path.display(), version.mod_revision);
        return Err(Error::Corrupt { place, detail: "the checksum does not match".to_owned() });
    }
    Ok((key, version))
}

fn checked_event(row: &Row<'_>, path: &Path) -> Result<Event> {
    let (key, version) = checked_version(row, path)?;
    let key = Bytes::copy_from_slice(key);
    let revision = version.mod_revision;
    let value = row.get_ref(5).map_err(|error| failed("read", path, error))?;
    let change = match value.as_blob_or_null() {
        Ok(Some(value)) => Change::Put(Record {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            mod_revision: revision,
            create_revision: version.create_revision,
            version: version.version,
        }),
        Ok(None) => Change::Delete,
        Err(error) => return Err(failed("read", path, error.into())),
    };
    Ok(Event { revision, key, change })
}

/// SQLite would make the file readable for others; it holds Secrets. The log files beside it inherit its mode.
fn create_private(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
        .open(path)
        .map(drop)
        .map_err(|error| Error::Open { attempt: format!("create {}", path.display()), detail: error.to_string() })
}

/// Makes the new files' names durable: the first acknowledged write is worth nothing in a file without a name.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| Error::Open {
        attempt: format!("flush directory {}", directory.display()),
        detail: error.to_string(),
    })
}

fn severity(error: &rusqlite::Error) -> Severity {
    match error.sqlite_error() {
        Some(error) if error.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC => Severity::Fatal,
        Some(error) if error.code == ErrorCode::DatabaseCorrupt || error.code == ErrorCode::NotADatabase => {
            Severity::Fatal
        }
        Some(_) | None => Severity::Passing,
    }
}

fn failed(verb: &str, path: &Path, error: rusqlite::Error) -> Error {
    let attempt = format!("{verb} {}", path.display());
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { detail: format!("{attempt}: {detail}") },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Corrupt { place: path.display().to_string(), detail }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            Error::Open { attempt, detail }
        }
        // A row of another shape than written, such as text where bytes belong.
        None => Error::Corrupt { place: path.display().to_string(), detail },
        Some(_) => Error::Unavailable { attempt, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(extended_code), None)
    }

    /// Only what leaves the disk's state unknown stops the writer; a full disk must not.
    #[test]
    fn a_failed_flush_is_fatal_and_a_full_disk_is_not() {
        use rusqlite::ffi::*;
        for code in [SQLITE_IOERR_FSYNC, SQLITE_CORRUPT, SQLITE_NOTADB] {
            assert_eq!(severity(&sqlite(code)), Severity::Fatal, "{code}");
        }
        for code in [SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_BUSY, SQLITE_NOMEM] {
            assert_eq!(severity(&sqlite(code)), Severity::Passing, "{code}");
        }
    }
}
