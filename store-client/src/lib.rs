//! The cluster store: bytes under keys, one global revision, and watches from any retained revision.
//!
//! [`Store`] is the whole contract. Three engines implement it: [`memory::Memory`] (tests and throw-away servers),
//! [`embedded::Embedded`] (the default: one directory, one server) and [`etcd::Etcd`] (several servers).
//! [`conformance`] holds the one suite that every engine passes; a new engine adds one test file that runs it.
//!
//! Invariants every engine keeps:
//! * A write is answered only after it is durable (as far as the engine is durable at all).
//! * Revisions are global and increase; each write takes a new one; the first write gets at least 2.
//! * Reads without a revision are linearizable: they see every write answered before they started.
//! * A watch delivers every event of its range after its start exactly once, in revision order, whole revisions per
//!   batch, or ends with an error. It never skips.
//!
//! [`backup`] turns what a store holds into one file, from which any engine can be restored.
//!
//! This crate knows nothing of Kubernetes: no object, no JSON, no resource names.

#![deny(missing_docs)]

pub mod backup;
pub mod conformance;
mod cursor;
pub mod embedded;
mod error;
pub mod etcd;
mod index;
pub mod memory;
mod types;
mod watch;
mod write;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{Error, Result};
pub use types::{Change, Event, Page, Range, Record, Revision, Span, Status};
pub use watch::{Batch, WatchStream};
pub use write::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The operations of a store. All are safe to drop at any await: a dropped write may or may not have happened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest record of `key`, or `None` when the key does not exist.
    async fn get(&self, key: &[u8]) -> Result<Option<Record>>;

    /// Records of a key range in key order, now or at a retained revision.
    async fn range(&self, range: Range) -> Result<Page>;

    /// Stores `value` under a key that must not exist: otherwise [`Error::Exists`].
    async fn create(&self, key: Bytes, value: Bytes) -> Result<Revision>;

    /// Replaces the value if the key's `mod_revision` is still `expected`: otherwise [`Error::Conflict`] with the
    /// record that is there now, or [`Error::NotFound`].
    async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Revision>;

    /// Deletes the key if its `mod_revision` is still `expected`; errors as in [`Store::update`].
    /// The returned revision is that of the deletion event.
    async fn delete(&self, key: Bytes, expected: Revision) -> Result<Revision>;

    /// Events of a key range with a revision **greater than** `after` (exclusive: pass the revision of a
    /// [`Page`] to continue where it ended). A start in the future waits for it.
    ///
    /// Ends with [`Error::Compacted`] when events it has not delivered yet are compacted away.
    async fn watch(&self, span: Span, after: Revision) -> Result<WatchStream>;

    /// Forgets history before `revision`: reads at older revisions and watches that start before it end with
    /// [`Error::Compacted`]. The newest record of each key always stays. Compacting again to the same or an older
    /// revision does nothing.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The revision of the newest write answered by any client. An atomic load on memory and embedded, one
    /// linearizable read on etcd; a watch over [`Span::all`] that has delivered it is fresh.
    async fn current_revision(&self) -> Result<Revision>;

    /// Revision and size figures, at the cost of [`Store::current_revision`] plus one status call on etcd.
    async fn status(&self) -> Result<Status>;
}
