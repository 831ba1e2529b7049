//! The embedded engine passes the suite in every configuration, and keeps what it has over reopening.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests, too")]

use std::sync::Arc;

use store_client::embedded::{Embedded, Options};
use store_client::{Range, Store};

async fn conforms(options: Options) {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(directory.path(), options.clone()).unwrap());
    store_client::conformance::run(store.clone()).await;
    let before = store.range(Range::all()).await.unwrap();
    let status = store.status().await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path(), options).unwrap();
    assert_eq!(store.range(Range::all()).await.unwrap(), before);
    let reopened = store.status().await.unwrap();
    assert_eq!((reopened.revision, reopened.compacted), (status.revision, status.compacted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_by_default() {
    conforms(Options::default()).await;
}

/// Every watch is read from disk, every write has a transaction of its own, readers queue up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_without_tail_batches_and_spare_readers() {
    conforms(Options { tail_bytes_max: 0, batch_writes_max: 1, readers_max: 1, ..Options::default() }).await;
}

/// Watches change between tail and disk all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_with_a_short_tail() {
    conforms(Options { tail_bytes_max: 2048, batch_writes_max: 3, ..Options::default() }).await;
}
