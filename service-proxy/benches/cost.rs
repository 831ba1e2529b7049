//! What the first sync, a restart and one change cost against the number of Services, ten endpoints each:
//! `cargo bench -p service-proxy`. Beside the time on the clock stands the processor's, the kernel's part included: it
//! is what counts on a busy machine. Memory is that of a process which holds nothing but these Services.

#![allow(dead_code, reason = "the tests' world has more than this needs")]

#[path = "../tests/traffic/proxy.rs"]
mod proxy;
#[path = "../tests/traffic/world.rs"]
mod world;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::proxy::{Decoded, Given, Proxy, decoded, service, slice};
use crate::world::World;

const ENDPOINTS: usize = 10;
const CHANGES: u32 = 50;
const ADDRESS: &str = "10.96.0.1:80";
const CONNECTIONS: u32 = 500;

fn nth(n: usize, first: usize) -> Decoded {
    let ip = format!("10.96.{}.{}", n / 250, n % 250 + 1);
    let endpoints: Vec<String> =
        (first..first + ENDPOINTS).map(|at| format!("10.244.{}.{}", n % 200, (n / 200 + at * 7) % 250 + 1)).collect();
    // The first Service is the one that connections go to.
    let endpoints = if n == 0 { vec!["10.244.255.2".to_owned()] } else { endpoints };
    let endpoints: Vec<(&str, &str)> = endpoints.iter().map(|address| (address.as_str(), "there")).collect();
    let name = format!("web-{n}");
    let spec = json!({ "clusterIP": ip, "clusterIPs": [ip] });
    decoded(&Given { service: service(&name, spec), slices: vec![slice(&name, "TCP", &endpoints)] })
}

/// Time on the clock and of the processor.
fn timed<T>(job: impl FnOnce() -> T) -> (T, String) {
    let (cpu, start) = (cpu_time(), Instant::now());
    let result = job();
    let (took, cpu) = (start.elapsed(), cpu_time() - cpu);
    (result, format!("{:.1} ms ({:.1} ms CPU)", millis(took), millis(cpu)))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Of this process so far, in user space and in the kernel.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let own = text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    // Threads are counted one by one: what a namespace's thread does counts, too.
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum::<u64>().max(own))
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn measure(count: usize) {
    let world = World::new();
    let pod = world.attach("10.244.255.2", None);
    pod.serve_tcp("a", "0.0.0.0:8080");
    let client = world.attach("10.244.254.2", None);
    let before = resident_kib();
    let all: Vec<Decoded> = (0..count).map(|n| nth(n, 0)).collect();
    let objects = resident_kib().saturating_sub(before);
    let (plans, planning) = timed(|| all.iter().map(Decoded::plan).collect());
    let (proxy, first) = timed(|| Proxy::start_with(&world.node, plans));
    drop(proxy);
    let plans = all.iter().map(Decoded::plan).collect();
    let (proxy, restart) = timed(|| Proxy::start_with(&world.node, plans));
    let total = resident_kib().saturating_sub(before);
    let mut changes: Vec<Duration> = (0..CHANGES)
        .map(|turn| {
            let plan = nth(count / 2, 1 + turn as usize % 2).plan();
            let start = Instant::now();
            proxy.change(vec![plan]);
            start.elapsed()
        })
        .collect();
    changes.sort_unstable();
    let change = changes[changes.len() / 2];
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        client.ask_tcp(ADDRESS).expect("an endpoint");
    }
    let connection = start.elapsed() / CONNECTIONS;
    println!("{count} Services: planning {planning}, first sync {first}, restart {restart}, one change {change:?},");
    println!("  a connection {connection:?}; objects {objects} KiB, all {total} KiB");
}

fn main() {
    [10, 1_000, 10_000].into_iter().for_each(measure);
}
