//! What a store directory holds, read beside the server that has it open: SQLite lets other processes read, and one
//! read transaction sees one state. It neither waits for the server's writes nor holds them up; only the write-ahead
//! log cannot be cut while it is open.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::disk;
use crate::index::Index;
use crate::{Change, Error, Record, Result, Revision, Span};

/// One state of a store directory; blocks the thread that reads it.
pub struct Snapshot {
    connection: Connection,
    path: PathBuf,
    index: Index,
}

impl Snapshot {
    /// Reads and checks the whole log, as opening the store does.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let path = directory.as_ref().join(disk::FILE_NAME);
        if !path.exists() {
            let attempt = format!("read the store in {}", directory.as_ref().display());
            return Err(Error::Open { attempt, detail: "there is none".to_owned() });
        }
        let connection = disk::open_reader(&path)?;
        disk::hold_snapshot(&connection, &path)?;
        disk::check_format(&connection, &path)?;
        let index = disk::load(&connection, &path)?.index;
        Ok(Self { connection, path, index })
    }

    /// The newest write of this state.
    pub fn revision(&self) -> Revision {
        self.index.revision()
    }

    /// Every key's newest record, in key order.
    pub fn records(&self) -> impl Iterator<Item = Result<Record>> + '_ {
        let live = self.index.select(&Span::all(), self.revision(), 0).items;
        live.into_iter().map(|(_, version)| {
            let event = disk::event(&self.connection, &self.path, version.mod_revision)?;
            match event.change {
                Change::Put(record) => Ok(record),
                Change::Delete => Err(Error::Corrupt {
                    place: format!("{} revision {}", self.path.display(), version.mod_revision),
                    detail: "a deletion where a record belongs".to_owned(),
                }),
            }
        })
    }
}
