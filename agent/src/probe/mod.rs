//! Probes: one worker per probe of a running container. A worker counts thresholds itself and reports verdicts, so the
//! pod's owner hears only what changes something.

mod attempt;
mod grpc;
mod http;
mod thresholds;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::runtime::Runtime;
use thresholds::{Counts, Timing};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As it begins the messages of events: `Readiness probe failed: …`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// The running container a worker probes.
#[derive(Clone)]
pub struct Target {
    pub pod: Arc<Pod>,
    pub container: String,
    pub container_id: String,
    pub pod_ip: Option<IpAddr>,
    pub started_at: jiff::Timestamp,
    /// Where an exec probe's fifos are made (`Paths::exec`).
    pub fifos: PathBuf,
}

/// A probe reached its success or failure threshold. Sent once per streak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub container_id: String,
    pub kind: Kind,
    pub passing: bool,
    pub message: String,
}

/// Dropping the worker ends its task.
pub struct Worker {
    stop: CancellationToken,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Worker {
    /// Starts probing. Startup and readiness begin as not passing, liveness as passing; the worker reports each streak
    /// of successes or failures that reaches its threshold, also when that changes nothing, so that the owner can tell
    /// the user why a container is not ready.
    pub fn start(
        runtime: Runtime,
        target: Target,
        kind: Kind,
        probe: Probe,
        verdicts: mpsc::Sender<Verdict>,
        tasks: &TaskTracker,
    ) -> Self {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        tasks.spawn(async move {
            ended.run_until_cancelled(run(runtime, target, kind, probe, verdicts)).await;
        });
        Self { stop }
    }
}

async fn run(runtime: Runtime, target: Target, kind: Kind, probe: Probe, verdicts: mpsc::Sender<Verdict>) {
    let timing = Timing::of(&probe);
    let mut counts = Counts::default();
    let age = jiff::Timestamp::now().duration_since(target.started_at);
    let age = Duration::try_from(age).unwrap_or_default();
    tokio::time::sleep(timing.initial_delay.saturating_sub(age)).await;
    loop {
        let outcome = attempt::attempt(&runtime, &target, &probe, timing.timeout).await;
        if let Some(passing) = counts.count(outcome.is_ok(), &timing) {
            let message = outcome.err().map_or_else(String::new, |error| error.to_string());
            let verdict = Verdict { container_id: target.container_id.clone(), kind, passing, message };
            if verdicts.send(verdict).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(counts.pause(kind, &timing)).await;
    }
}
