//! kill -9 at random moments under 64 concurrent writers, 20 times in a row on one directory: the store opens without
//! help and has every write that was acknowledged.
//!
//! The test runs itself as the victim: with `STORE_CRASH_DIRECTORY` set, the test below writes until it is killed and
//! prints an acknowledgement per write, which the parent reads from its pipe.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests, too")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use store_client::embedded::{Embedded, Options};
use store_client::{Range, Revision, Store};

const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";
const ROUNDS: u64 = 20;
const WRITERS: usize = 64;
/// Writes between two compactions by writer 0: some kills hit the deletion of rows.
const COMPACT_EVERY: u64 = 25;

#[test]
fn acknowledged_writes_survive_kill() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut random = rand::rng();
    let mut acknowledged: HashMap<String, (u64, u64)> = HashMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let life = Duration::from_millis(random.random_range(30..400));
        total += one_life(directory.path(), life, &mut acknowledged);
        verify(directory.path(), round, &acknowledged);
    }
    assert!(total > 20 * WRITERS, "the writers got something done: {total}");
    println!("{total} acknowledged writes, {ROUNDS} kills");
}

/// Starts a victim, kills it, and takes note of its acknowledgements: key -> (count, revision).
fn one_life(directory: &Path, life: Duration, acknowledged: &mut HashMap<String, (u64, u64)>) -> usize {
    let mut child = victim(directory);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut read = 0;
    // The clock starts with the first acknowledgement: opening is not cut short, writing is, anywhere.
    let mut deadline: Option<Instant> = None;
    while let Some(Ok(line)) = lines.next() {
        let Some(acknowledgement) = line.strip_prefix("ack ") else { continue };
        // A kill can cut the last line.
        let [key, count, revision, "."] = acknowledgement.split(' ').collect::<Vec<_>>()[..] else { continue };
        let entry = (count.parse().unwrap(), revision.parse().unwrap());
        let before = acknowledged.insert(key.to_owned(), entry);
        assert!(before.is_none_or(|before| before < entry), "{key}: {entry:?} after {before:?}");
        read += 1;
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + life);
        if Instant::now() >= deadline {
            // The pipe keeps what was acknowledged before the kill; it is read to its end.
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "killed, not ended by itself: {status}");
    read
}

fn victim(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acknowledged_writes_survive_kill", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn verify(directory: &Path, round: u64, acknowledged: &HashMap<String, (u64, u64)>) {
    let store = Embedded::open(directory, Options::default()).expect("opens without help");
    runtime().block_on(async {
        let page = store.range(Range::all()).await.unwrap();
        let found: HashMap<&[u8], _> = page.items.iter().map(|record| (&record.key[..], record)).collect();
        for (key, (count, revision)) in acknowledged {
            let record = found.get(key.as_bytes()).unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            let stored: u64 = count_of(&record.value);
            // The writer may have got one further than it could say.
            assert!((*count..=count + 1).contains(&stored), "round {round}: {key} at {stored}, acknowledged {count}");
            assert!(record.mod_revision >= Revision(*revision), "round {round}: {key}");
            assert!(record.mod_revision <= page.revision);
        }
    });
}

fn count_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The victim: each writer counts its own key up, and says so after each acknowledgement.
fn write_until_killed(directory: &Path) -> ! {
    let store = Arc::new(Embedded::open(directory, Options::default()).expect("opens without help"));
    runtime().block_on(async {
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(count_up(store.clone(), writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
    unreachable!("writers end only with the process")
}

async fn count_up(store: Arc<Embedded>, writer: usize) {
    let name = format!("/crash/{writer:02}");
    let key = Bytes::from(name.clone());
    loop {
        let record = store.get(&key).await.unwrap();
        let count = record.as_ref().map_or(1, |record| count_of(&record.value) + 1);
        let value = Bytes::from(format!("{count} {}", "x".repeat(writer * 50)));
        let revision = match record {
            None => store.create(key.clone(), value).await.unwrap(),
            Some(record) => store.update(key.clone(), value, record.mod_revision).await.unwrap(),
        };
        // One write call per line, so that lines of several threads do not mix.
        let line = format!("ack {name} {count} {revision} .\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        if writer == 0 && count % COMPACT_EVERY == 0 {
            store.compact(revision).await.unwrap();
        }
    }
}
