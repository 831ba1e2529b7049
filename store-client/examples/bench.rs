//! Figures of the embedded engine on this machine: durable writes per second with 1 and 64 writers, reads, opening,
//! memory. Run it alone and in release: `cargo run --release -p store-client --example bench [DIRECTORY]`.
//! The first line is the disk's own floor, one flushed append after the other; compare within one run only.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store_client::embedded::{Embedded, Options};
use store_client::{Range, Result, Revision, Span, Store};

const VALUE_BYTES: usize = 1024;
const RUN: Duration = Duration::from_secs(3);
const KEYS: usize = 10_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let base = std::env::args().nth(1).unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let directory = tempfile::tempdir_in(&base).expect("a directory to write to");
    let floor = flushed_appends(&directory.path().join("floor"));
    println!("floor: {floor:.0} flushed appends of 2 KiB per second");
    let path = directory.path().join("store");

    let started = Instant::now();
    let mut store = open(&path)?;
    println!("open, empty: {:.1} ms; RSS {} KiB", ms(started.elapsed()), rss_kib());
    for writers in [1, 64] {
        write(&store, writers).await?;
    }
    let revision = store.current_revision().await?;
    println!("RSS after {revision} writes: {} KiB", rss_kib());

    let started = Instant::now();
    store.compact(revision).await?;
    println!("compact, until accepted: {:.1} ms", ms(started.elapsed()));
    drop(store);
    store = open(&path)?;
    fill(&store).await?;
    reads(&store).await?;
    let live = store.range(Range::all()).await?.items.len();
    let bytes = store.status().await?.bytes;
    drop(store);

    let started = Instant::now();
    let store = open(&path)?;
    let elapsed = ms(started.elapsed());
    println!("open, {live} keys, {} MiB: {elapsed:.1} ms; RSS {} KiB", bytes >> 20, rss_kib());
    drop(store);
    Ok(())
}

fn open(path: &Path) -> Result<Arc<Embedded>> {
    Ok(Arc::new(Embedded::open(path, Options::default())?))
}

/// Each writer updates its own key, one write after the other.
async fn write(store: &Arc<Embedded>, writers: usize) -> Result<()> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = Bytes::from(format!("/registry/bench/{writers}/{writer}"));
                let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
                let mut revision = store.create(key.clone(), value.clone()).await?;
                let mut latencies = Vec::new();
                while started.elapsed() < RUN {
                    let before = Instant::now();
                    revision = store.update(key.clone(), value.clone(), revision).await?;
                    latencies.push(before.elapsed());
                }
                Ok::<_, store_client::Error>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("writers do not panic")?);
    }
    let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort();
    let part = |per_mille: usize| ms(latencies[(latencies.len() - 1) * per_mille / 1000]);
    println!("{writers} writers: {rate:.0} writes/s, p50 {:.3} ms, p99 {:.3} ms", part(500), part(990));
    Ok(())
}

async fn fill(store: &Arc<Embedded>) -> Result<()> {
    let tasks: Vec<_> = (0..64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (writer..KEYS).step_by(64) {
                    let key = format!("/registry/pods/default/pod-{number:06}");
                    store.create(key.into(), vec![b'v'; VALUE_BYTES].into()).await?;
                }
                Ok::<_, store_client::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("writers do not panic")?;
    }
    Ok(())
}

async fn reads(store: &Arc<Embedded>) -> Result<()> {
    let started = Instant::now();
    for number in 0..1000 {
        let key = format!("/registry/pods/default/pod-{:06}", number * 7919 % KEYS);
        store.get(key.as_bytes()).await?.expect("it was written");
    }
    println!("get: {:.1} us", ms(started.elapsed()));
    let started = Instant::now();
    let page = store.range(Range::prefix("/registry/pods/")).await?;
    println!("range of {}: {:.1} ms", page.items.len(), ms(started.elapsed()));
    let started = Instant::now();
    let mut watch = store.watch(Span::all(), Revision(page.revision.0 - KEYS as u64)).await?;
    let mut events = 0;
    while events < KEYS {
        events += watch.next().await.expect("the watch goes on")?.events.len();
    }
    println!("watch over {events} old events: {:.1} ms", ms(started.elapsed()));
    Ok(())
}

fn flushed_appends(path: &Path) -> f64 {
    let mut file = File::create(path).expect("the directory can be written to");
    let block = [0; 2048];
    let started = Instant::now();
    let mut count = 0.0;
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&block).expect("there is room");
        file.sync_data().expect("the disk works");
        count += 1.0;
    }
    count / started.elapsed().as_secs_f64()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Resident memory of this process.
fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
