//! Backups of stores that are written to, and restores of them into every engine.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests, too")]

mod etcd_process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_process::Cluster;
use store_client::backup::{self, Item, REVISION_JUMP, Reader};
use store_client::conformance::restored;
use store_client::embedded::{self, Embedded, Snapshot};
use store_client::etcd::{self, Etcd};
use store_client::memory::Memory;
use store_client::{Error, Range, Revision, Store};

const WRITERS: usize = 64;
/// Backups taken of one store while it is written to.
const BACKUPS: usize = 5;
/// Time for a cluster to start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

type Contents = Vec<(Bytes, Bytes)>;

fn contents(bytes: &[u8]) -> Contents {
    let mut reader = Reader::begin(bytes).unwrap();
    let mut found = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record(record) = item else { panic!("{item:?}") };
        found.push((record.key, record.value));
    }
    found
}

async fn at(store: &dyn Store, revision: Revision) -> Contents {
    let page = store.range(Range::all().at(revision)).await.unwrap();
    page.items.into_iter().map(|record| (record.key, record.value)).collect()
}

/// Each writer counts a pair of keys up, one after the other, and creates and deletes a third.
async fn write(store: Arc<dyn Store>, writer: usize, stop: Arc<AtomicBool>) {
    let key = |name: &str| Bytes::from(format!("/pair/{writer:02}/{name}"));
    let mut revisions = [Revision::ZERO; 2];
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for (revision, name) in revisions.iter_mut().zip(["a", "b"]) {
            let value = Bytes::from(format!("{round} {}", "x".repeat(writer * 20)));
            *revision = match *revision {
                Revision::ZERO => store.create(key(name), value).await.unwrap(),
                expected => store.update(key(name), value, expected).await.unwrap(),
            };
        }
        // The memory store never waits by itself.
        tokio::task::yield_now().await;
        let passing = store.create(key("passing"), "v".into()).await.unwrap();
        store.delete(key("passing"), passing).await.unwrap();
    }
}

async fn under_writers<F>(store: Arc<dyn Store>, take: impl Fn() -> F)
where
    F: Future<Output = Vec<u8>>,
{
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer, stop.clone()))).collect();
    let mut last = Revision::ZERO;
    for _ in 0..BACKUPS {
        while store.current_revision().await.unwrap() < Revision(last.0 + WRITERS as u64) {
            tokio::task::yield_now().await;
        }
        let bytes = take().await;
        let summary = backup::verify(&bytes[..]).unwrap();
        let revision = summary.header.revision;
        assert!(revision > last, "the writers get on: {revision} after {last}");
        last = revision;
        let found = contents(&bytes);
        assert_eq!(found, at(&*store, revision).await, "all of revision {revision} and nothing else");
        let count = |name: &str, writer: usize| {
            let key = format!("/pair/{writer:02}/{name}");
            let value = &found.iter().find(|(found, _)| *found == key.as_bytes())?.1;
            std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse::<u64>().ok()
        };
        for writer in 0..WRITERS {
            match (count("a", writer), count("b", writer)) {
                (Some(a), Some(b)) => assert!(a == b || a == b + 1, "writer {writer}: {a} and {b}"),
                (a, b) => assert!(b.is_none(), "writer {writer}: {a:?} and {b:?}"),
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_writers_is_one_state_of_the_store() {
    let store = Arc::new(Memory::new());
    under_writers(store.clone(), || async { backup::take(&*store, Vec::new(), &[], Vec::new()).await.unwrap().0 })
        .await;
}

/// As another process does it: from the directory that a server has open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_an_open_directory_is_one_state_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let store = Arc::new(Embedded::open(&path, embedded::Options::default()).unwrap());
    let take = || {
        let path = path.clone();
        let take = move || {
            let snapshot = Snapshot::open(&path).unwrap();
            backup::take_snapshot(&snapshot, Vec::new(), &[], Vec::new()).unwrap().0
        };
        async { tokio::task::spawn_blocking(take).await.unwrap() }
    };
    under_writers(store, take).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_etcd_under_writers_is_one_state_of_the_store() {
    let cluster = Cluster::start(1, None, &[]);
    let store = Arc::new(connect(&cluster).await);
    under_writers(store.clone(), || async { backup::take(&*store, Vec::new(), &[], Vec::new()).await.unwrap().0 })
        .await;
}

async fn connect(cluster: &Cluster) -> Etcd {
    let options = etcd::Options { request_timeout: PATIENCE, ..etcd::Options::new(cluster.endpoints()) };
    Etcd::connect(options).await.unwrap()
}

/// Some keys, among them ones that are updated, deleted, empty, binary and as large as allowed.
async fn fill(store: &dyn Store) {
    for number in 0..300 {
        let key = Bytes::from(format!("/r/{number:03}"));
        let mut revision = store.create(key.clone(), "first".into()).await.unwrap();
        if number % 3 == 0 {
            revision = store.update(key.clone(), format!("v{number}").into(), revision).await.unwrap();
        }
        if number % 50 == 1 {
            store.delete(key, revision).await.unwrap();
        }
    }
    store.create("/r/empty".into(), Bytes::new()).await.unwrap();
    store.create(Bytes::from_static(b"/r/\xff\x00\xfe"), Bytes::from_static(&[0, 1, 2, 255])).await.unwrap();
    for number in 0..3 {
        let value = vec![number; store_client::VALUE_BYTES_MAX];
        store.create(format!("/r/large/{number}").into(), value.into()).await.unwrap();
    }
}

async fn backup_of(store: &dyn Store) -> Vec<u8> {
    backup::take(store, Vec::new(), &[], Vec::new()).await.unwrap().0
}

/// Restores into an embedded store and an empty etcd, and checks both.
async fn restore_into_each(bytes: &[u8]) {
    let base = backup::base([backup::verify(bytes).unwrap().header.revision]);
    let expected = contents(bytes);
    assert!(expected.len() > 290);

    let memory = Memory::restored(base, expected.clone()).unwrap();
    restored::run(Arc::new(memory), base, &expected).await;

    let directory = tempfile::tempdir().unwrap();
    let mut restore = embedded::Restore::begin(directory.path(), base, false).unwrap();
    expected.iter().for_each(|(key, value)| restore.create(key.clone(), value.clone()).unwrap());
    let revision = restore.finish().unwrap();
    assert_eq!(revision.0, base.0 + expected.len() as u64);
    let store = Arc::new(Embedded::open(directory.path(), embedded::Options::default()).unwrap());
    restored::run(store.clone(), base, &expected).await;
    // The whole contract holds on top of it, and another backup of it.
    store_client::conformance::run(store.clone()).await;
    let again = backup::verify(&backup_of(&*store).await[..]).unwrap();
    assert!(again.header.revision > revision);

    let cluster = Cluster::start(1, None, &[]);
    let mut restore = etcd::Restore::begin(connect(&cluster).await, base).await.unwrap();
    for (key, value) in &expected {
        restore.create(key.clone(), value.clone()).await.unwrap();
    }
    restore.finish().await.unwrap();
    let store = Arc::new(connect(&cluster).await);
    restored::run(store.clone(), base, &expected).await;
    store_client::conformance::run(store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_store_is_restored_into_each_engine() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), embedded::Options::default()).unwrap();
    fill(&store).await;
    let snapshot = Snapshot::open(directory.path()).unwrap();
    let (bytes, summary) = backup::take_snapshot(&snapshot, Vec::new(), &[], Vec::new()).unwrap();
    assert_eq!(summary.header.revision, store.current_revision().await.unwrap());
    assert_eq!(contents(&bytes), contents(&backup_of(&store).await), "either way of reading finds the same");
    drop(store);
    restore_into_each(&bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_is_restored_into_each_engine() {
    let cluster = Cluster::start(1, None, &[]);
    let store = connect(&cluster).await;
    fill(&store).await;
    restore_into_each(&backup_of(&store).await).await;
}

/// A cluster that was restored once is backed up and restored again: it has several keys of one revision and a base.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_etcd_is_restored_again() {
    let cluster = Cluster::start(1, None, &[]);
    let mut restore = etcd::Restore::begin(connect(&cluster).await, Revision(REVISION_JUMP)).await.unwrap();
    for number in 0..300 {
        restore.create(format!("/r/{number:03}").into(), "v".into()).await.unwrap();
    }
    restore.finish().await.unwrap();
    let store = connect(&cluster).await;
    assert_eq!(store.range(Range::all()).await.unwrap().items.len(), 300, "the engine's own key is not shown");
    let occupied = etcd::Restore::begin(store.clone(), Revision(REVISION_JUMP)).await.err().expect("it has keys");
    assert!(matches!(&occupied, Error::Open { detail, .. } if detail.contains("301 keys")), "{occupied}");
    let bytes = backup_of(&store).await;
    assert!(backup::verify(&bytes[..]).unwrap().header.revision > Revision(REVISION_JUMP));
    restore_into_each(&bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_uses_an_etcd_that_is_half_restored() {
    let cluster = Cluster::start(1, None, &[]);
    let mut restore = etcd::Restore::begin(connect(&cluster).await, Revision(REVISION_JUMP)).await.unwrap();
    for number in 0..150 {
        restore.create(format!("/r/{number:03}").into(), "v".into()).await.unwrap();
    }
    drop(restore);
    let error = connect(&cluster).await.range(Range::all()).await.expect_err("half of a cluster");
    assert!(error.to_string().contains("was not finished"), "{error}");
}
