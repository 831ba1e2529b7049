//! Backups: everything a store holds at one revision, and files that belong to it, as one file that any engine can be
//! restored from.
//!
//! Taking one reads a running store without holding it up. Restoring makes a new store in which every key is created
//! afresh, in the order of the file, at revisions far above any that the old store can have given out: whoever watches
//! or holds on to an old revision is told that it is gone, and nobody sees time go backwards.
//!
//! Invariant: [`Reader`] returns its last item only after it has compared every checksum and count; what it returns
//! before that may only be used for something that can be thrown away.

mod format;
mod read;
mod take;
mod write;

use std::io;

use crate::Revision;

pub use read::{Item, Reader, verify};
pub use take::{take, take_snapshot};
pub use write::Writer;

/// How far a restored store's revisions are above those of the backup: more than anybody wrote in between. At a
/// thousand writes a second it takes eleven days.
pub const REVISION_JUMP: u64 = 1_000_000_000;

/// Why a backup cannot be taken or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says what its fields are")]
pub enum Error {
    #[error("write the backup")]
    Write(#[source] io::Error),

    #[error("read the backup")]
    Read(#[source] io::Error),

    #[error("this is no backup of Keelson")]
    NotABackup,

    #[error("the backup has format {found:?}, this program reads {known:?}; use the version that wrote it")]
    Format { found: String, known: &'static str },

    #[error("the backup is cut off at byte {at}, after {records} records: take another copy of it")]
    Truncated { at: u64, records: u64 },

    #[error("the backup is damaged at byte {at}: {detail}")]
    Damaged { at: u64, detail: String },

    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// What a backup says of itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The revision at which the store was read.
    pub revision: Revision,
    /// Facts for people, such as who wrote it and when.
    pub facts: Vec<(String, String)>,
}

/// A file that a store's user needs beside it, such as keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Relative, with `/` between its parts.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    /// All of it.
    pub content: Vec<u8>,
}

/// What a whole backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// As it says first.
    pub header: Header,
    /// Keys.
    pub records: u64,
    /// Files.
    pub attachments: u64,
    /// Size of the backup.
    pub bytes: u64,
}

/// The revision behind which a restored store begins to count, given the newest revisions that were ever given out
/// as far as is known: that of the backup, and that of a store which is replaced.
pub fn base(known: impl IntoIterator<Item = Revision>) -> Revision {
    let newest = known.into_iter().max().unwrap_or(Revision::EMPTY);
    Revision(newest.0.saturating_add(REVISION_JUMP))
}

#[cfg(test)]
mod tests;
