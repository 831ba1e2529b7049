//! What a server does by the clock: forgets old history, and removes Events an hour after their last write.
//!
//! Both go by revisions: now and then the present revision is noted, and what was written before the note of long
//! enough ago is old. So nothing has to be decoded, and a restart only delays.

use std::collections::VecDeque;
use std::sync::Arc;

use store_client::Revision;
use tokio::time::{Duration, Instant, interval};

use crate::server::Server;

/// How often the present revision is noted and old things are looked for.
const PERIOD: Duration = Duration::from_secs(60);
/// How long history stays readable (upstream's `--etcd-compaction-interval`).
const HISTORY_KEPT: Duration = Duration::from_secs(300);
/// How long an Event lives after its last write (upstream's `--event-ttl`).
const EVENTS_KEPT: Duration = Duration::from_secs(3600);
const EVENTS_PREFIX: &str = "/registry/events";

/// Until the server shuts down.
pub async fn run(server: Arc<Server>) {
    let mut notes = Notes::default();
    let mut ticks = interval(PERIOD);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = server.shutdown.cancelled() => return,
        }
        notes.add(Instant::now(), server.cache.revision());
        if let Some(revision) = notes.before(Instant::now(), HISTORY_KEPT) {
            compact(&server, revision).await;
        }
        if let Some(revision) = notes.before(Instant::now(), EVENTS_KEPT) {
            expire_events(&server, revision).await;
        }
        notes.forget(Instant::now(), EVENTS_KEPT);
    }
}

async fn compact(server: &Server, revision: u64) {
    if let Err(error) = server.store.compact(Revision(revision)).await {
        tracing::warn!(%error, revision, "compacting the store's history failed; trying again later");
    }
}

/// Deletes Events last written at or before `revision`.
async fn expire_events(server: &Server, revision: u64) {
    let snapshot = server.cache.resource(EVENTS_PREFIX).snapshot();
    for (key, item) in snapshot.iter().filter(|(_, item)| item.revision() <= revision) {
        if server.shutdown.is_cancelled() {
            return;
        }
        let key = format!("{EVENTS_PREFIX}/{key}");
        match server.store.delete(key.into(), Revision(item.revision())).await {
            // Written again or deleted meanwhile: not old, or gone.
            Ok(_) | Err(store_client::Error::Conflict { .. } | store_client::Error::NotFound { .. }) => {}
            Err(error) => return tracing::warn!(%error, "removing an old Event failed; trying again later"),
        }
    }
}

/// Which revision was the newest, and when.
#[derive(Default)]
struct Notes(VecDeque<(Instant, u64)>);

impl Notes {
    fn add(&mut self, now: Instant, revision: u64) {
        self.0.push_back((now, revision));
    }

    /// The newest revision noted at least `age` ago.
    fn before(&self, now: Instant, age: Duration) -> Option<u64> {
        self.0.iter().rev().find(|(at, _)| now.duration_since(*at) >= age).map(|(_, revision)| *revision)
    }

    /// Drops notes that a newer one of sufficient age makes useless.
    fn forget(&mut self, now: Instant, age: Duration) {
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= age) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_note_of_sufficient_age_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut notes = Notes::default();
        for minute in 0..5 {
            notes.add(at(minute * 60), minute * 10);
        }
        assert_eq!(notes.before(at(240), Duration::from_secs(300)), None);
        assert_eq!(notes.before(at(240), Duration::from_secs(120)), Some(20));
        notes.forget(at(240), Duration::from_secs(120));
        assert_eq!(notes.before(at(240), Duration::from_secs(120)), Some(20));
        assert_eq!(notes.0.len(), 3);
    }
}
