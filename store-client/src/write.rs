//! What a write asks for and whether the key's newest version allows it. Pure, so that the memory engine and the
//! embedded engine's writer cannot differ.

use bytes::Bytes;

use crate::index::Version;
use crate::{Change, Error, Event, Record, Result, Revision};

/// Longest key. Kubernetes' longest are under 1 KiB; the limit keeps the index and etcd's requests bounded.
pub const KEY_BYTES_MAX: usize = 4 * 1024;

/// Longest value: etcd refuses requests over 1.5 MiB by default, and a value that one engine takes must fit in all.
/// The difference leaves room for the key, which a conditional write carries three times, and for framing.
pub const VALUE_BYTES_MAX: usize = 1536 * 1024 - 3 * KEY_BYTES_MAX - 1024;

/// A write before it has a revision.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub key: Bytes,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Create { value: Bytes },
    Update { value: Bytes, expected: Revision },
    Delete { expected: Revision },
}

/// Why a write cannot happen, before the current record is read for the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Exists,
    NotFound,
    Conflict { expected: Revision },
}

impl Write {
    /// Limits that hold for every engine.
    pub fn check_size(&self) -> Result<()> {
        let value_bytes = self.value().map_or(0, Bytes::len);
        if self.key.is_empty() {
            return Err(Error::EmptyKey);
        }
        if self.key.len() > KEY_BYTES_MAX {
            return Err(Error::TooLarge { key: self.key.clone(), bytes: self.key.len(), max: KEY_BYTES_MAX });
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(Error::TooLarge { key: self.key.clone(), bytes: value_bytes, max: VALUE_BYTES_MAX });
        }
        Ok(())
    }

    pub fn value(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Create { value } | Kind::Update { value, .. } => Some(value),
            Kind::Delete { .. } => None,
        }
    }

    /// The event of this write, once it has its version.
    pub fn into_event(self, version: Version) -> Event {
        let revision = version.mod_revision;
        let change = match self.kind {
            Kind::Delete { .. } => Change::Delete,
            Kind::Create { value } | Kind::Update { value, .. } => Change::Put(Record {
                key: self.key.clone(),
                value,
                mod_revision: revision,
                create_revision: version.create_revision,
                version: version.version,
            }),
        };
        Event { revision, key: self.key, change }
    }

    /// The version this write makes at `revision`, given the key's newest version (`None` if it does not exist).
    pub fn plan(&self, live: Option<Version>, revision: Revision) -> std::result::Result<Version, Refusal> {
        let (expected, is_delete) = match (&self.kind, live) {
            (Kind::Create { .. }, None) => {
                return Ok(Version { mod_revision: revision, create_revision: revision, version: 1 });
            }
            (Kind::Create { .. }, Some(_)) => return Err(Refusal::Exists),
            (Kind::Update { .. } | Kind::Delete { .. }, None) => return Err(Refusal::NotFound),
            (Kind::Update { expected, .. }, Some(_)) => (*expected, false),
            (Kind::Delete { expected }, Some(_)) => (*expected, true),
        };
        match live {
            Some(live) if live.mod_revision != expected => Err(Refusal::Conflict { expected }),
            Some(_) if is_delete => Ok(Version::tombstone(revision)),
            Some(live) => {
                Ok(Version { mod_revision: revision, create_revision: live.create_revision, version: live.version + 1 })
            }
            None => Err(Refusal::NotFound),
        }
    }
}

impl Refusal {
    /// The error for the caller; `current` is the record as far as it could be read.
    pub fn into_error(self, key: Bytes, current: Option<Record>) -> Error {
        match self {
            Self::Exists => Error::Exists { key },
            Self::NotFound => Error::NotFound { key },
            Self::Conflict { expected } => Error::Conflict { key, expected, current: current.map(Box::new) },
        }
    }
}
