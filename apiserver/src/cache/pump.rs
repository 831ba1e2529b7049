//! Follows the store's watch and hands each change to the cache of its resource.

use std::collections::HashMap;
use std::sync::Arc;

use store_client::{Batch, Change, Record, Revision, Span};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::ring::RING_AGE_MAX;
use super::{Cache, ROOT, ResourceCache};

/// Pause before the store is asked again after it refused or ended a watch.
const RETRY: Duration = Duration::from_millis(200);
/// How often rings are trimmed by age.
const SWEEP: Duration = Duration::from_secs(30);

/// Key below the resource's prefix, value, revision.
type Written<'a, V> = (&'a str, V, u64);

impl Cache {
    /// Keeps the cache current until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.follow() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One watch from where the cache is, until it ends.
    async fn follow(&self) {
        // All keys, not only those under the root: so that the cache reaches every revision of the store.
        let mut watch = match self.store.watch(Span::all(), Revision(self.revision())).await {
            Ok(watch) => watch,
            Err(error) => return tracing::warn!(%error, "the watch cache cannot follow the store; trying again"),
        };
        let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            let batch = tokio::select! {
                batch = watch.next() => batch,
                _ = sweep.tick() => {
                    self.sweep();
                    continue;
                }
            };
            match batch {
                Some(Ok(batch)) => self.take(&batch),
                Some(Err(error)) => return tracing::warn!(%error, "the store ended the watch; starting again"),
                None => return,
            }
        }
    }

    fn sweep(&self) {
        let Some(oldest) = Instant::now().checked_sub(RING_AGE_MAX) else { return };
        self.resources.load().values().for_each(|resource| resource.sweep(oldest));
    }

    /// Makes a batch visible, then its revision.
    pub(super) fn take(&self, batch: &Batch) {
        let now = Instant::now();
        let mut by_resource: HashMap<&str, Vec<Written<Option<&[u8]>>>> = HashMap::new();
        let resources = self.resources.load_full();
        for event in &batch.events {
            let Some(key) = registry_key(&event.key) else { continue };
            let (prefix, rest) = split(key, |prefix| resources.contains_key(prefix));
            let value = match &event.change {
                Change::Put(record) => Some(&record.value[..]),
                Change::Delete => None,
            };
            by_resource.entry(prefix).or_default().push((rest, value, event.revision.get()));
        }
        for (prefix, changes) in by_resource {
            self.resource(prefix).apply(changes.into_iter(), now);
        }
        self.revision.send_if_modified(|seen| {
            let newer = batch.progress.get() > *seen;
            *seen = (*seen).max(batch.progress.get());
            newer
        });
    }

    /// Takes over the records of the first read.
    pub(super) fn fill(&self, records: &[Record], revision: u64) {
        let mut by_resource: HashMap<&str, Vec<Written<&[u8]>>> = HashMap::new();
        let resources = self.resources.load_full();
        for record in records {
            let Some(key) = registry_key(&record.key) else { continue };
            let (prefix, rest) = split(key, |prefix| resources.contains_key(prefix));
            by_resource.entry(prefix).or_default().push((rest, &record.value, record.mod_revision.get()));
        }
        for (prefix, records) in by_resource {
            let resource: Arc<ResourceCache> = self.resource(prefix);
            resource.load(records.into_iter(), revision);
        }
    }
}

/// A key below the root, as text.
fn registry_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(ROOT)
}

/// Splits a key into its resource's prefix and the rest. Known prefixes decide; of unknown ones, custom resources have
/// two segments (`example.com/widgets`), others one.
fn split(key: &str, known: impl Fn(&str) -> bool) -> (&str, &str) {
    let Some(one) = key.find('/') else { return (key, "") };
    let two = key[one + 1..].find('/').map(|at| one + 1 + at);
    let at = match two {
        Some(two) if known(&key[..two]) || (key[..one].contains('.') && !known(&key[..one])) => two,
        _ => one,
    };
    (&key[..at], &key[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fall_to_the_longest_known_prefix() {
        let known = |prefix: &str| ["pods", "services/specs"].contains(&prefix);
        let check = |key, prefix, rest| assert_eq!(split(key, known), (prefix, rest));
        check("pods/ns/a", "pods", "ns/a");
        check("services/specs/ns/a", "services/specs", "ns/a");
        check("example.com/widgets/ns/a", "example.com/widgets", "ns/a");
        check("unknown/a", "unknown", "a");
        check("lonely", "lonely", "");
    }
}
