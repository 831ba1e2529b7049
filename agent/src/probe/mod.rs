//! Probes: one worker per probe of a running container. A worker counts thresholds itself and reports verdicts, so the
//! pod's owner hears only what changes something.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::runtime::Runtime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// The running container a worker probes.
#[derive(Clone)]
pub struct Target {
    pub pod: Arc<Pod>,
    pub container: String,
    pub container_id: String,
    pub pod_ip: Option<IpAddr>,
    pub started_at: jiff::Timestamp,
}

/// A probe crossed its success or failure threshold. Sent once per crossing.
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
    /// Starts probing. Startup and readiness begin as not passing, liveness as passing: the first verdict sent is the
    /// first that differs from it.
    pub fn start(
        _runtime: Runtime,
        _target: Target,
        _kind: Kind,
        _probe: Probe,
        _verdicts: mpsc::Sender<Verdict>,
        _tasks: &TaskTracker,
    ) -> Self {
        Self { stop: CancellationToken::new() }
    }
}
