//! The randomized run: a seed decides what users do, what breaks and when. Afterwards faults stop, and the cluster
//! must come to the state that was asked for, run every pod once, keep every write it acknowledged, and leave nothing
//! behind when everything is deleted.
//!
//! A run can be given a fault of the controllers' engine, to show that these checks find it.

mod invariants;
mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::cluster::{COMPONENTS, Cluster};
use crate::stores::Stores;
use crate::truth::Truth;
use crate::wire::Faults;
use crate::{commands, simulation};
pub use invariants::TOO_MANY;
use user::User;

/// Every so many seeds one runs on the embedded store.
const EMBEDDED_EVERY: u64 = 5;
const NODES_MAX: usize = 4;
/// Simulated time in which a cluster without faults must be as asked for. Longer than an eviction's five minutes and
/// the longest pause after failures.
const CONVERGED_WITHIN: Duration = Duration::from_secs(30 * 60);
/// How often convergence is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After convergence nothing may be written for so long.
const REST: Duration = Duration::from_secs(60);

/// One line per action, for the failure's message.
pub struct Log(Vec<String>);

impl Log {
    pub fn add(&mut self, text: impl Into<String>) {
        self.0.push(format!("{:>9.3}s {}", simulation::elapsed().as_secs_f64(), text.into()));
    }
}

/// `forgetful`: see [`reconciler::Options::forgetful`].
pub async fn run(seed: u64, forgetful: bool) -> Result<(), String> {
    let mut log = Log(Vec::new());
    let result = play(seed, forgetful, &mut log).await;
    result.map_err(|error| format!("{error}\n\nwhat was done:\n{}", log.0.join("\n")))
}

/// Acts until the end, or until something is found that must never be: a fault may keep the cluster so busy that the
/// clock stands still and the next act never comes.
async fn play(seed: u64, forgetful: bool, log: &mut Log) -> Result<(), String> {
    let truth = Truth::default();
    let acts = acts(seed, forgetful, truth.clone(), log);
    tokio::select! {
        biased;
        () = truth.alarmed() => Err(truth.broken().join("\n")),
        ended = acts => ended,
    }
}

async fn acts(seed: u64, forgetful: bool, truth: Truth, log: &mut Log) -> Result<(), String> {
    let stores = if seed % EMBEDDED_EVERY == 0 { Stores::embedded()? } else { Stores::memory() };
    let mut cluster = Cluster::start_with(stores, truth, &[]).await?;
    cluster.forgetful = forgetful;
    for component in COMPONENTS {
        cluster.start_component(component)?;
    }
    let mut user = User::new(&cluster);
    let doubt = Arc::new(AtomicBool::new(false));
    cluster.truth.always(invariants::never_too_many(Arc::clone(&doubt)))?;
    for number in 1..=rand::rng().random_range(2..=NODES_MAX) {
        cluster.add_node(&format!("n{number}"), simulate::Shape::default(), simulate::Timing::default())?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..rand::rng().random_range(8..24) {
        if rand::rng().random_range(0..3) == 0 {
            disturb(&mut cluster, &doubt, log).await?;
        } else {
            user.act(&cluster, log).await?;
        }
        let pause = Duration::from_millis(rand::rng().random_range(0..10_000));
        tokio::time::sleep(pause).await;
        sound(&cluster)?;
    }
    calm(&mut cluster, log).await?;
    converge(&cluster, log, |cluster| invariants::converged(cluster)).await?;
    user.check(&cluster)?;
    rest(&cluster, log).await?;
    user.delete_all(&cluster, log).await?;
    converge(&cluster, log, |cluster| invariants::empty(cluster)).await?;
    user.check(&cluster)?;
    sound(&cluster)?;
    cluster.stop().await
}

/// What must hold at any time.
fn sound(cluster: &Cluster) -> Result<(), String> {
    let broken = cluster.broken();
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

async fn converge(
    cluster: &Cluster,
    log: &mut Log,
    check: impl Fn(&Cluster) -> Result<(), String>,
) -> Result<(), String> {
    let start = Instant::now();
    loop {
        sound(cluster)?;
        let Err(error) = check(cluster) else {
            log.add("as it should be");
            return Ok(());
        };
        if start.elapsed() > CONVERGED_WITHIN {
            let pods = cluster.truth.read(|objects| commands::list(objects, "pods"));
            return Err(format!("not within {CONVERGED_WITHIN:?}: {error}\npods:\n{pods}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A cluster that is as it should be has nothing to write but leases and the last events.
async fn rest(cluster: &Cluster, log: &mut Log) -> Result<(), String> {
    tokio::time::sleep(REST).await;
    let before = cluster.truth.writes();
    tokio::time::sleep(REST).await;
    let after = cluster.truth.writes();
    let busy = |key: &&String| {
        let noise = key.starts_with("/registry/leases/") || key.starts_with("/registry/events/");
        !noise && before.get(*key) != after.get(*key)
    };
    let busy: Vec<&String> = after.keys().filter(busy).collect();
    log.add("rested");
    if busy.is_empty() { Ok(()) } else { Err(format!("still written to, though nothing changes: {busy:?}")) }
}

/// Something breaks, or is mended.
async fn disturb(cluster: &mut Cluster, doubt: &AtomicBool, log: &mut Log) -> Result<(), String> {
    let nodes: Vec<String> = cluster.nodes.keys().cloned().collect();
    let node = nodes[rand::rng().random_range(0..nodes.len())].clone();
    match rand::rng().random_range(0..12) {
        0 => {
            log.add("restart server");
            doubt.store(true, Ordering::Relaxed);
            cluster.stop_server().await?;
            let pause = rand::rng().random_range(0..20);
            tokio::time::sleep(Duration::from_secs(pause)).await;
            cluster.start_server().await?;
        }
        1 => restart(cluster, "controllers", log).await?,
        2 => restart(cluster, "scheduler", log).await?,
        3 if cluster.has_agent(&node) => {
            log.add(format!("agent stop {node}"));
            cluster.stop_agent(&node).await?;
        }
        3 | 4 => {
            log.add(format!("crash node {node}"));
            cluster.crash_node(&node).await?;
        }
        5 => {
            log.add(format!("cut {node}"));
            cluster.wires(&node)?.iter().for_each(|wire| wire.set(Faults { cut: true, ..Faults::default() }));
        }
        6 => {
            log.add("lose watches all");
            cluster.wires("all")?.iter().for_each(|wire| wire.break_watches());
        }
        7..=9 => {
            let names = ["controllers", "scheduler", "nodes"];
            let name = names[rand::rng().random_range(0..names.len())];
            let faults = faults();
            doubt.fetch_or(faults.lose_answers > 0.0, Ordering::Relaxed);
            log.add(format!("faults {name} {faults:?}"));
            cluster.wires(name)?.iter().for_each(|wire| wire.set(faults.clone()));
        }
        _ => calm(cluster, log).await?,
    }
    Ok(())
}

async fn restart(cluster: &mut Cluster, name: &str, log: &mut Log) -> Result<(), String> {
    log.add(format!("restart {name}"));
    cluster.stop_component(name).await?;
    let pause = rand::rng().random_range(0..20);
    tokio::time::sleep(Duration::from_secs(pause)).await;
    cluster.start_component(name)
}

fn faults() -> Faults {
    let mut dice = rand::rng();
    let mut faults = Faults { lag: Duration::from_millis(dice.random_range(0..3000)), ..Faults::default() };
    match dice.random_range(0..4) {
        0 => faults.delay = Duration::from_millis(dice.random_range(0..2000)),
        1 => faults.refuse = dice.random_range(0.0..0.5),
        2 => faults.lose_answers = dice.random_range(0.0..0.3),
        _ => {}
    }
    faults
}

/// No faults, and every machine's agent runs.
async fn calm(cluster: &mut Cluster, log: &mut Log) -> Result<(), String> {
    log.add("heal");
    cluster.heal();
    let nodes: Vec<String> = cluster.nodes.keys().cloned().collect();
    for name in nodes {
        if !cluster.has_agent(&name) {
            cluster.start_agent(&name)?;
        }
    }
    Ok(())
}
