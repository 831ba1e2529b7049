//! The one error type of the store. It knows no HTTP codes: the API server maps it to a `Status`.

use bytes::Bytes;

use crate::{Record, Revision};

/// What a store operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store operation failed. Only [`Error::Unavailable`] leaves open whether a write happened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says what its fields are")]
pub enum Error {
    /// A create found the key.
    #[error("create {}: the key exists", show(.key))]
    Exists { key: Bytes },

    /// The key is at another revision than the writer expected.
    #[error("write {}: expected revision {expected}, found {}", show(.key), found(.current))]
    Conflict {
        key: Bytes,
        expected: Revision,
        /// The record that is there now; `None` if it went away while the answer was made.
        current: Option<Box<Record>>,
    },

    /// An update or delete found no such key.
    #[error("write {}: no such key", show(.key))]
    NotFound { key: Bytes },

    /// History before `compacted` is gone: list again and watch from there.
    #[error("revision {requested} is compacted, the oldest readable one is {compacted}")]
    Compacted { requested: Revision, compacted: Revision },

    /// The store has not reached the revision yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future { requested: Revision, current: Revision },

    /// Key and value exceed what every engine can take.
    #[error("write {}: {bytes} bytes exceed the limit of {max}", show(.key))]
    TooLarge { key: Bytes, bytes: usize, max: usize },

    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,

    /// No space left; writes succeed again once there is. Reads go on.
    #[error("the store is full: {detail}")]
    Full { detail: String },

    /// No answer (no quorum, connection lost, time-out, store closed). A write may have happened; read to find out.
    #[error("store unavailable: {attempt}: {detail}")]
    Unavailable { attempt: String, detail: String },

    /// Stored data is damaged; restore a backup. Named so that nobody takes it for an outage.
    #[error("the store is corrupt: {place}: {detail}")]
    Corrupt { place: String, detail: String },

    /// Another process has the directory open.
    #[error("open {directory}: in use by another process{holder}; stop it, or choose another data directory")]
    Locked { directory: String, holder: String },

    /// Opening or connecting failed for a reason that an operator has to fix.
    #[error("{attempt}: {detail}")]
    Open { attempt: String, detail: String },
}

fn show(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn found(current: &Option<Box<Record>>) -> String {
    match current {
        Some(record) => record.mod_revision.to_string(),
        None => "none".to_owned(),
    }
}
