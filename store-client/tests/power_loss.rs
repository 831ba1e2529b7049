//! Power lost in the middle of a write, at any byte: what was acknowledged is there, the torn rest is not, and the
//! store opens without help.
//!
//! A commit is acknowledged after the write-ahead log was flushed. Power loss may leave anything in the part behind
//! the last flush: nothing, some of it, old sectors, garbage. The test keeps the log's size at each acknowledgement,
//! and gives the store what a disk could have kept from each moment.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests, too")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use store_client::embedded::{Embedded, Options};
use store_client::{Range, Revision, Store};

const WRITES: u64 = 60;
const LOSSES: u64 = 300;

/// An open store's files after each acknowledged write.
struct Lived {
    database: Vec<u8>,
    log: Vec<u8>,
    /// The log's size at each acknowledgement, with the revision acknowledged.
    acknowledged: Vec<(usize, Revision)>,
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("store.db-wal")
}

/// Writes of all kinds and sizes; small enough that the log is not moved into the database meanwhile.
async fn live(directory: &Path, random: &mut SmallRng) -> Lived {
    let store = Embedded::open(directory, Options::default()).unwrap();
    let mut live: Vec<(Bytes, Revision)> = Vec::new();
    let mut acknowledged = vec![(std::fs::metadata(log_of(directory)).unwrap().len() as usize, Revision::EMPTY)];
    for number in 0..WRITES {
        let value = Bytes::from(vec![b'a' + (number % 26) as u8; random.random_range(0..20_000)]);
        let place = random.random_range(0..=live.len());
        let revision = match random.random_range(0..3) {
            0 if place < live.len() => {
                let (key, expected) = live.swap_remove(place);
                store.delete(key, expected).await.unwrap()
            }
            1 if place < live.len() => {
                let (key, expected) = live[place].clone();
                live[place].1 = store.update(key, value, expected).await.unwrap();
                live[place].1
            }
            _ => {
                let key = Bytes::from(format!("/k/{number}"));
                live.push((key.clone(), store.create(key, value).await.unwrap()));
                live[live.len() - 1].1
            }
        };
        acknowledged.push((std::fs::metadata(log_of(directory)).unwrap().len() as usize, revision));
    }
    // Read while it is open: closing is not what a power loss does.
    let log = std::fs::read(log_of(directory)).unwrap();
    assert!(acknowledged.windows(2).all(|pair| pair[0].0 < pair[1].0), "each write makes the log grow");
    assert_eq!(acknowledged.last().unwrap().0, log.len());
    Lived { database: std::fs::read(directory.join("store.db")).unwrap(), log, acknowledged }
}

/// The log as a disk may have it whose last flush was at `flushed`: whole to there, anything behind.
fn torn(log: &[u8], flushed: usize, random: &mut SmallRng) -> Vec<u8> {
    let mut kept = log[..flushed].to_vec();
    let rest = &log[flushed..];
    let cut = random.random_range(0..=rest.len());
    match random.random_range(0..4) {
        0 => kept.extend_from_slice(&rest[..cut]),
        // Sectors arrive in any order: a hole before what came.
        1 => kept.extend(std::iter::repeat_n(0, cut).chain(rest[cut..].iter().copied())),
        2 => kept.extend(rest.iter().enumerate().map(|(place, byte)| if place < cut { *byte } else { 0x5a })),
        _ => kept.extend((0..cut).map(|_| random.random::<u8>())),
    }
    kept
}

#[tokio::test]
async fn an_acknowledged_write_survives_and_a_torn_one_is_ignored() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let lived = live(directory.path(), &mut random).await;
    let whole = {
        let store = Embedded::open(directory.path(), Options::default()).unwrap();
        let last = store.current_revision().await.unwrap();
        let mut states = vec![Vec::new(); last.0 as usize + 1];
        for revision in 1..=last.0 {
            states[revision as usize] = store.range(Range::all().at(Revision(revision))).await.unwrap().items;
        }
        states
    };
    for loss in 0..LOSSES {
        let (flushed, acknowledged) = lived.acknowledged[random.random_range(0..lived.acknowledged.len())];
        let after = tempfile::tempdir().unwrap();
        std::fs::write(after.path().join("store.db"), &lived.database).unwrap();
        std::fs::write(log_of(after.path()), torn(&lived.log, flushed, &mut random)).unwrap();

        let case = format!("seed {seed}, loss {loss}, flushed {flushed}");
        let store = Embedded::open(after.path(), Options::default()).unwrap_or_else(|error| panic!("{case}: {error}"));
        let page = store.range(Range::all()).await.unwrap();
        assert!(page.revision >= acknowledged, "{case}: {acknowledged} was acknowledged, {} is there", page.revision);
        // What came after may be there or not, but only as whole writes, in order.
        assert_eq!(page.items, whole[page.revision.0 as usize], "{case}");
        let next = store.create("/after".into(), "v".into()).await.unwrap();
        assert_eq!(next, page.revision.next(), "{case}: and it goes on");
    }
}
