//! The suite every engine passes. A case takes an open store and panics when the contract of [`crate::Store`] is
//! broken. Cases work under their own key prefix, so they run one after the other on one store ([`run`]); nobody else
//! may write to it meanwhile.
//!
//! What an engine's own test file adds: opening it (in each configuration that matters), and what only it can do:
//! reopening, losing the connection, running full.

#![allow(clippy::unwrap_used, reason = "a broken contract is a panic here, as in any test")]

mod compaction;
mod concurrency;
mod limits;
mod reads;
pub mod restored;
mod watches;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};

use crate::{Batch, Event, Revision, Store, WatchStream};

/// How long a case waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One promise of the contract.
pub struct Case {
    /// The promise in words.
    pub name: &'static str,
    run: fn(Arc<dyn Store>) -> BoxFuture<'static, ()>,
}

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(Case { name: stringify!($name), run: |store| $module::$name(store).boxed() }),*]
    };
}

/// Every case, the ones that compact last.
pub const CASES: &[Case] = cases![
    writes::revisions_grow_and_name_the_write,
    writes::create_refuses_an_existing_key,
    writes::update_needs_the_current_revision,
    writes::delete_needs_the_current_revision,
    writes::a_deleted_key_starts_over,
    reads::ranges_are_ordered_and_bounded,
    reads::limits_page_through_a_fixed_revision,
    reads::old_revisions_stay_readable,
    reads::future_revisions_are_refused,
    limits::large_values_survive,
    limits::too_large_is_refused_by_name,
    limits::odd_keys_are_only_bytes,
    limits::empty_values_are_not_deletions,
    watches::a_watch_starts_behind_its_revision,
    watches::a_watch_delivers_history_then_news,
    watches::a_watch_sees_its_span_only,
    watches::a_restarted_watch_continues,
    watches::a_start_in_the_future_waits,
    watches::the_whole_key_space_reaches_the_current_revision,
    concurrency::one_of_many_creators_wins,
    concurrency::one_of_many_updaters_wins,
    concurrency::counting_loses_nothing,
    concurrency::watchers_agree_under_concurrent_writers,
    concurrency::dropped_writes_leave_no_contradiction,
    compaction::compaction_keeps_what_is_current,
    compaction::compacted_revisions_are_refused,
    compaction::a_late_watcher_never_skips,
];

/// Runs every case; the name of the running one is printed, so that a panic is preceded by it.
pub async fn run(store: Arc<dyn Store>) {
    for case in CASES {
        println!("conformance: {}", case.name);
        (case.run)(store.clone()).await;
    }
}

/// Key `name` under the prefix of a case.
fn key(case: &str, name: &str) -> Bytes {
    format!("/conformance/{case}/{name}").into()
}

fn prefix(case: &str) -> Bytes {
    key(case, "")
}

async fn next(watch: &mut WatchStream) -> Batch {
    let batch = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch delivers in time");
    batch.expect("the watch goes on").expect("the watch is healthy")
}

/// Events until `count` are there, checking order and progress on the way.
async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let batch = next(watch).await;
        check_batch(events.last().map(|event| event.revision), &batch);
        events.extend(batch.events);
    }
    assert_eq!(events.len(), count, "no more events than writes");
    events
}

/// Batches ascend, and their progress covers their events.
fn check_batch(last: Option<Revision>, batch: &Batch) {
    let mut previous = last.unwrap_or_default();
    for event in &batch.events {
        assert!(event.revision >= previous, "{} after {previous}", event.revision);
        if let Some(record) = event.record() {
            assert_eq!(record.mod_revision, event.revision);
            assert_eq!(record.key, event.key);
        }
        previous = event.revision;
    }
    assert!(batch.progress >= previous, "progress {} covers {previous}", batch.progress);
}
