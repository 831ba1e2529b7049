//! What the first sync, a restart and one change cost against the number of Services: `cargo bench -p service-proxy`.

#![allow(dead_code, reason = "the tests' world has more than this needs")]

#[path = "../tests/traffic/proxy.rs"]
mod proxy;
#[path = "../tests/traffic/world.rs"]
mod world;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::proxy::{Given, Proxy, planned, service, slice};
use crate::world::World;

const ENDPOINTS: usize = 10;
const CHANGES: u32 = 50;

fn nth(n: usize, first: usize) -> Given {
    let ip = format!("10.96.{}.{}", n / 250, n % 250 + 1);
    let endpoints: Vec<String> =
        (first..first + ENDPOINTS).map(|at| format!("10.244.{}.{}", n % 200, (n / 200 + at * 7) % 250 + 1)).collect();
    let endpoints: Vec<(&str, &str)> = endpoints.iter().map(|address| (address.as_str(), "there")).collect();
    let name = format!("web-{n}");
    let spec = json!({ "clusterIP": ip, "clusterIPs": [ip] });
    Given { service: service(&name, spec), slices: vec![slice(&name, "TCP", &endpoints)] }
}

/// First sync, restart, and one change of an endpoint, half of the changes being the fastest.
fn measure(count: usize) -> [Duration; 3] {
    let world = World::new();
    let all: Vec<Given> = (0..count).map(|n| nth(n, 0)).collect();
    let start = Instant::now();
    let proxy = Proxy::start(&world.node, &all);
    let first = start.elapsed();
    drop(proxy);
    let start = Instant::now();
    let proxy = Proxy::start(&world.node, &all);
    let restart = start.elapsed();
    let mut changes: Vec<Duration> = (0..CHANGES)
        .map(|turn| {
            let plan = planned(&nth(count / 2, 1 + turn as usize % 2));
            let start = Instant::now();
            proxy.change(vec![plan]);
            start.elapsed()
        })
        .collect();
    changes.sort_unstable();
    [first, restart, changes[changes.len() / 2]]
}

fn main() {
    for count in [10, 1_000, 10_000] {
        let [first, restart, change] = measure(count);
        println!("{count} Services: first sync {first:?}, restart {restart:?}, one change {change:?}");
    }
}
