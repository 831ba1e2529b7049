//! What only the embedded engine promises: one process per directory, named corruption, a full disk, compaction that
//! gives space back, and the file it leaves behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

fn key(number: usize) -> Bytes {
    format!("/k/{number:05}").into()
}

/// Changes the database behind the engine's back.
fn tamper(directory: &Path, sql: &str) {
    Connection::open(directory.join(disk::FILE_NAME)).unwrap().execute_batch(sql).unwrap();
}

/// Moves the write-ahead log into the database, as happens every few megabytes.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// A directory with five keys, one of them updated.
async fn sample() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    for number in 0..5 {
        store.create(key(number), vec![b'v'; 10_000].into()).await.unwrap();
    }
    let first = store.get(&key(0)).await.unwrap().unwrap();
    store.update(key(0), "new".into(), first.mod_revision).await.unwrap();
    directory
}

fn open_error(directory: &Path) -> Error {
    match Embedded::open(directory, Options::default()) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

async fn until_swept(store: &Embedded, compacted: Revision) {
    // The writer deletes in steps between commands; a compaction that is already done only waits its turn.
    let swept = async {
        loop {
            store.compact(compacted).await.unwrap();
            let connection = disk::open_reader(&store.shared.path).unwrap();
            let value: i64 =
                connection.query_row("SELECT value FROM meta WHERE name = 'swept'", [], |row| row.get(0)).unwrap();
            if value as u64 >= compacted.0 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), swept).await.expect("swept in time");
}

#[tokio::test]
async fn a_second_opening_names_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    let error = open_error(directory.path());
    assert!(matches!(&error, Error::Locked { holder, .. } if holder.contains(&std::process::id().to_string())));
    drop(store);
    Embedded::open(directory.path(), Options::default()).expect("the lock goes with the store");
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let store = Embedded::open(&directory, Options::default()).unwrap();
    store.create(key(1), "secret".into()).await.unwrap();
    store.get(&key(1)).await.unwrap();
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in directory.read_dir().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        files += 1;
    }
    assert!(files >= 3, "database, write-ahead log, lock");
}

#[tokio::test]
async fn closing_ends_watches_and_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    let mut watch = store.watch(Span::all(), Revision::EMPTY).await.unwrap();
    store.create(key(1), "v".into()).await.unwrap();
    drop(store);
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.len(), 1, "what was written before is still delivered");
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable { .. }))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_changed_value_is_named() {
    let directory = sample().await;
    tamper(directory.path(), "UPDATE log SET value = zeroblob(10000) WHERE revision = 4");
    let error = open_error(directory.path());
    assert!(matches!(&error, Error::Corrupt { place, .. } if place.ends_with("revision 4")), "{error}");
}

#[tokio::test]
async fn a_missing_revision_is_named() {
    let directory = sample().await;
    tamper(directory.path(), "DELETE FROM log WHERE revision = 5");
    let error = open_error(directory.path());
    assert!(matches!(&error, Error::Corrupt { place, .. } if place.ends_with("revision 5")), "{error}");
}

#[tokio::test]
async fn damage_while_running_fails_the_read_not_the_store() {
    let directory = sample().await;
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    tamper(directory.path(), "UPDATE log SET value = 'text' WHERE revision = 4");
    let error = store.get(&key(2)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(store.get(&key(3)).await.unwrap().is_some());
    store.create(key(9), "v".into()).await.unwrap();
}

#[tokio::test]
async fn overwritten_pages_are_corruption() {
    let directory = sample().await;
    // A stop leaves recent writes in the log beside the database.
    tamper(directory.path(), CHECKPOINT);
    let path = directory.path().join(disk::FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let error = open_error(directory.path());
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    std::fs::write(&path, b"not a database, but long enough to have a header ".repeat(100)).unwrap();
    let error = open_error(directory.path());
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn another_format_is_refused() {
    let directory = sample().await;
    tamper(directory.path(), "UPDATE meta SET value = 2 WHERE name = 'format'");
    let error = open_error(directory.path());
    assert!(matches!(&error, Error::Open { detail, .. } if detail.contains("its format is 2")), "{error}");
    tamper(directory.path(), "PRAGMA application_id = 7");
    let error = open_error(directory.path());
    assert!(matches!(&error, Error::Open { detail, .. } if detail.contains("not a Keelson store")), "{error}");
}

#[tokio::test]
async fn full_refuses_writes_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: Some(2 * 1024 * 1024), ..Options::default() };
    let store = Embedded::open(directory.path(), options).unwrap();
    let mut revision = store.create(key(0), "v".into()).await.unwrap();
    let error = loop {
        match store.update(key(0), vec![b'v'; 50_000].into(), revision).await {
            Ok(next) => revision = next,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(store.get(&key(0)).await.unwrap().unwrap().mod_revision, revision, "reads go on");
    assert_eq!(store.current_revision().await.unwrap(), revision, "nothing of the refused write remains");
    let again = store.update(key(0), vec![b'v'; 50_000].into(), revision).await;
    assert!(matches!(again, Err(Error::Full { .. })), "{again:?}");
    until_swept(&store, revision).await;
    let mut watch = store.watch(Span::all(), revision).await.unwrap();
    let next = store.update(key(0), vec![b'w'; 50_000].into(), revision).await.expect("there is room again");
    assert_eq!(next, revision.next());
    assert_eq!(watch.next().await.unwrap().unwrap().progress, next);
}

#[tokio::test]
async fn compaction_gives_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(directory.path(), Options::default()).unwrap());
    let mut revisions = Vec::new();
    for number in 0..20 {
        revisions.push(store.create(key(number), vec![b'v'; 1000].into()).await.unwrap());
    }
    for round in 0..20 {
        for (number, revision) in revisions.iter_mut().enumerate() {
            let value = vec![round; 20_000].into();
            *revision = store.update(key(number), value, *revision).await.unwrap();
        }
    }
    let before = store.range(Range::all()).await.unwrap();
    let full = store.status().await.unwrap().bytes;
    until_swept(&store, before.revision).await;
    let connection = Connection::open(store.shared.path.clone()).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 20, "only what is current remains");
    drop(connection);
    let shrunk = async {
        loop {
            store.compact(before.revision).await.unwrap();
            let connection = disk::open_reader(&store.shared.path).unwrap();
            let free: u64 =
                connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0)).unwrap() as u64;
            if free < 1024 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), shrunk).await.expect("shrinks in time");
    assert_eq!(store.range(Range::all()).await.unwrap(), before);
    drop(store);
    tamper(directory.path(), CHECKPOINT);
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    let bytes = store.status().await.unwrap().bytes;
    assert!(bytes < full * 2 / 3, "{bytes} of {full} bytes");
    assert_eq!(store.range(Range::all()).await.unwrap(), before);
}

/// A stop between marking the compaction and deleting its rows: the rest is done after reopening.
#[tokio::test]
async fn an_interrupted_compaction_is_finished_later() {
    let directory = sample().await;
    tamper(directory.path(), "UPDATE meta SET value = 7 WHERE name = 'compacted'");
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    assert!(matches!(store.range(Range::all().at(Revision(6))).await, Err(Error::Compacted { .. })));
    until_swept(&store, Revision(7)).await;
    assert_eq!(store.range(Range::all()).await.unwrap().items.len(), 5);
    drop(store);
    let connection = Connection::open(directory.path().join(disk::FILE_NAME)).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 5);
}

/// The newest write is a deletion whose row is compacted away: its revision must not be given out again.
#[tokio::test]
async fn revisions_never_come_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    let created = store.create(key(0), "v".into()).await.unwrap();
    let deleted = store.delete(key(0), created).await.unwrap();
    until_swept(&store, deleted).await;
    drop(store);
    let store = Embedded::open(directory.path(), Options::default()).unwrap();
    assert_eq!(store.current_revision().await.unwrap(), deleted);
    assert_eq!(store.create(key(0), "v".into()).await.unwrap(), deleted.next());
}
