//! The watch cache: every object of the store as final bytes, kept current by one pump that follows the store's watch
//! over the whole key space, and the recent events for watches.
//!
//! Invariant: when [`Cache::revision`] is R, every commit up to R is visible in every resource's snapshot and ring.
//! Fresh reads ask the store for its newest revision and wait until the cache has it.

mod extract;
pub mod item;
mod pump;
pub mod resource;
pub mod ring;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use store_client::{Page, Range, Revision, Span, Store};
use tokio::sync::watch;

use api::catalogue::Catalogue;
use api::status::Status;

use crate::status::from_store;
use extract::Extract;
pub use extract::INDEXED_FIELD;
pub use item::Item;
pub use resource::{ResourceCache, Slice, Snapshot};

/// Longest wait for a revision that the cache has not seen (upstream's `blockTimeout`), then 504.
pub const WAIT_MAX: Duration = Duration::from_secs(3);

/// How many of the last writes a starting server reads again as events, so that clients go on with their watches where
/// a server before it ended, and need not list everything at once. A busy server holds about as many (see
/// [`ring::RING_AGE_MAX`]); reading them takes a fraction of a second.
const RECENT_WRITES: u64 = 8192;
/// A store that does not deliver them in time is followed without: clients list again then.
const REPLAY_MAX: Duration = Duration::from_secs(5);

/// The root of all keys.
pub const ROOT: &str = "/registry/";

type Resources = HashMap<Box<str>, Arc<ResourceCache>>;

pub struct Cache {
    store: Arc<dyn Store>,
    /// By key prefix without the root and without slashes at the ends, such as `pods` or `services/specs`.
    resources: ArcSwap<Resources>,
    adding: Mutex<()>,
    revision: watch::Sender<u64>,
}

impl Cache {
    /// Reads everything from the store, the last writes as events. [`Cache::run`] keeps it current from there.
    pub async fn load(store: Arc<dyn Store>, catalogue: &Catalogue) -> Result<Self, store_client::Error> {
        let status = store.status().await?;
        let from = Revision(status.revision.get().saturating_sub(RECENT_WRITES));
        let from = from.max(status.compacted).max(Revision::EMPTY);
        let page = match store.range(Range::prefix(ROOT).at(from)).await {
            // An engine may learn of a compaction only when it meets it.
            Err(store_client::Error::Compacted { .. }) => store.range(Range::prefix(ROOT)).await?,
            page => page?,
        };
        let cache = Self::filled(store, catalogue, &page);
        cache.replay(status.revision).await;
        Ok(cache)
    }

    fn filled(store: Arc<dyn Store>, catalogue: &Catalogue, page: &Page) -> Self {
        let revision = page.revision.get();
        let mut resources = Resources::new();
        for row in catalogue.iter().filter(|row| row.stored && row.version == row.storage_version) {
            let extract = Extract::new(Arc::clone(row));
            // Rows that share a prefix (events) share the first one's cache.
            resources
                .entry(relative(row.storage_prefix()).into())
                .or_insert_with(|| Arc::new(ResourceCache::new(Some(extract), revision)));
        }
        let cache = Self {
            store,
            resources: ArcSwap::from_pointee(resources),
            adding: Mutex::new(()),
            revision: watch::Sender::new(revision),
        };
        cache.fill(&page.items, revision);
        cache
    }

    /// Takes the writes up to `newest` from the store's watch. What is missing at its end comes with [`Cache::run`].
    async fn replay(&self, newest: Revision) {
        let all = async {
            let mut watch = self.store.watch(Span::all(), Revision(self.revision())).await?;
            while self.revision() < newest.get()
                && let Some(batch) = watch.next().await
            {
                self.take(&batch?);
            }
            Ok::<(), store_client::Error>(())
        };
        match tokio::time::timeout(REPLAY_MAX, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last writes were not read again"),
            Err(_) => tracing::warn!("the last writes were not read again in {REPLAY_MAX:?}"),
        }
    }

    /// The cache of the resource stored under `prefix` (`Resource::storage_prefix`).
    pub fn resource(&self, prefix: &str) -> Arc<ResourceCache> {
        let prefix = relative(prefix);
        if let Some(found) = self.resources.load().get(prefix) {
            return Arc::clone(found);
        }
        self.add(prefix)
    }

    /// A resource nobody had asked for and no key was seen of: it is empty since the beginning of this cache.
    fn add(&self, prefix: &str) -> Arc<ResourceCache> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.resources.load().get(prefix) {
            return Arc::clone(found);
        }
        let added = Arc::new(ResourceCache::new(None, self.revision()));
        let mut resources = (**self.resources.load()).clone();
        resources.insert(prefix.into(), Arc::clone(&added));
        self.resources.store(Arc::new(resources));
        added
    }

    /// Every commit up to this revision is visible.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until everything committed before this call is visible; returns the revision reached.
    pub async fn fresh(&self) -> Result<u64, Status> {
        let current = self.store.current_revision().await.map_err(|error| from_store(&error))?.get();
        self.wait_for(current).await
    }

    /// Waits until a write just committed is visible, so that its writer sees it in any read that follows, also one
    /// that asks for no freshness. A cache that lags (a store that is slow to notify) is not waited for longer than
    /// [`WAIT_MAX`]: the write is done.
    pub async fn catch_up(&self, revision: store_client::Revision) {
        if self.wait_for(revision.get()).await.is_err() {
            tracing::warn!(%revision, "the watch cache lags behind the store");
        }
    }

    /// Waits for a revision, at most [`WAIT_MAX`]; then 504 as upstream's `NewTooLargeResourceVersionError`.
    pub async fn wait_for(&self, revision: u64) -> Result<u64, Status> {
        let reached = self.revision();
        if reached >= revision {
            return Ok(reached);
        }
        let mut progress = self.revision.subscribe();
        let waited = tokio::time::timeout(WAIT_MAX, progress.wait_for(|reached| *reached >= revision)).await;
        match waited {
            Ok(Ok(reached)) => Ok(*reached),
            _ => Err(crate::status::resource_version_too_large(revision, self.revision())),
        }
    }
}

/// `pods` of `/registry/pods`.
fn relative(prefix: &str) -> &str {
    prefix.strip_prefix(ROOT).unwrap_or(prefix).trim_matches('/')
}

#[cfg(test)]
mod tests;
