//! One scenario at work: its commands, one after another, on its cluster.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{COMPONENTS, Cluster};
use crate::stores::Stores;
use crate::text::{Command, Scenario};
use crate::{commands, simulation};

/// How long a state may take to come, in simulated time, unless a command says `within`.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing may be written before a cluster counts as settled.
const QUIET: Duration = Duration::from_secs(20);
/// A cluster that is still busy after this will always be.
const SETTLED_WITHIN: Duration = Duration::from_secs(1800);

pub struct Session {
    pub cluster: Cluster,
}

/// Runs all commands; gives the output of each. Fails at the first that fails or, unless `rewriting`, whose output is
/// not the expected one.
pub async fn play(scenario: &Scenario, rewriting: bool) -> Result<Vec<String>, String> {
    let (setup, commands) = match scenario.commands.split_first() {
        Some((first, _)) if first.words[0] == "cluster" => (Some(first), &scenario.commands[1..]),
        _ => (None, scenario.commands.as_slice()),
    };
    let mut outputs: Vec<String> = setup.iter().map(|_| String::new()).collect();
    let mut session = Session::start(setup).await?;
    for command in commands {
        let place = format!("{}:{}: {}", scenario.file.display(), command.line, command.words.join(" "));
        let output = commands::execute(&mut session, command).await.map_err(|e| format!("{place}\n{e}"))?;
        let broken = session.cluster.broken();
        if !broken.is_empty() {
            return Err(format!("{place}\n{}", broken.join("\n")));
        }
        let output = output.trim_end().to_owned();
        let expected = command.expected.as_deref().unwrap_or_default();
        if !rewriting && output != expected {
            return Err(format!("{place}\nexpected:\n{expected}\nbut it is:\n{output}"));
        }
        outputs.push(output);
    }
    session.settle().await?;
    let broken = session.cluster.broken();
    session.cluster.stop().await?;
    if broken.is_empty() { Ok(outputs) } else { Err(broken.join("\n")) }
}

/// Runs all commands; gives every object that is there at the end.
pub async fn fingerprint(scenario: &Scenario) -> Result<String, String> {
    let mut session = Session::start(None).await?;
    for command in &scenario.commands {
        commands::execute(&mut session, command).await?;
    }
    let truth = &session.cluster.truth;
    // The keys of a cluster are made by a library with a generator of its own; they decide nothing.
    let is_key = |key: &str| key.ends_with("/extension-apiserver-authentication");
    let lines: Vec<String> = truth
        .read(|objects| objects.by_key.iter().filter(|(k, _)| !is_key(k)).map(|(k, v)| format!("{k} {v}")).collect());
    let revision = truth.revision();
    session.cluster.stop().await?;
    Ok(format!("{revision}\n{}", lines.join("\n")))
}

impl Session {
    async fn start(setup: Option<&Command>) -> Result<Self, String> {
        let mut stores = Stores::memory();
        let mut components = COMPONENTS.to_vec();
        for word in setup.iter().flat_map(|command| &command.words[1..]) {
            match word.split_once('=') {
                Some(("store", "memory")) => {}
                Some(("store", "embedded")) => stores = Stores::embedded()?,
                Some(("without", names)) => components.retain(|name| !names.split(',').any(|n| n == *name)),
                _ => return Err(format!("cluster: {word:?} is not store=memory|embedded or without=COMPONENT,...")),
            }
        }
        let cluster = Cluster::start(stores, &components).await?;
        let session = Self { cluster };
        // What every cluster has before anybody uses it.
        if components.contains(&"controllers") {
            session.settle().await?;
        }
        Ok(session)
    }

    /// Waits until a condition on the objects holds.
    pub async fn wait(
        &self,
        limit: Duration,
        holds: impl Fn(&crate::truth::Objects) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut changes = self.cluster.truth.changes();
        let deadline = Instant::now() + limit;
        loop {
            changes.borrow_and_update();
            let Err(error) = self.cluster.truth.read(&holds) else { return Ok(()) };
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                // The sender is part of `truth`.
                Ok(_) => {}
                Err(_) => return Err(format!("not within {limit:?}, at {:?}; {error}", simulation::elapsed())),
            }
        }
    }

    /// Lets time pass until nothing has been written for a while, but for leases and events.
    pub async fn settle(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let last = self.cluster.truth.last_write().unwrap_or(start).max(start);
            let quiet_at = last + QUIET;
            if quiet_at <= Instant::now() {
                return Ok(());
            }
            if start.elapsed() > SETTLED_WITHIN {
                let writes = self.cluster.truth.writes();
                let mut busiest: Vec<(&String, &u64)> = writes.iter().collect();
                busiest.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
                busiest.truncate(5);
                return Err(format!("the cluster does not settle; most written: {busiest:?}"));
            }
            tokio::time::sleep_until(quiet_at).await;
        }
    }
}
