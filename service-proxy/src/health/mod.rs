//! What this proxy tells about itself over HTTP: whether its tables follow the API server (`/healthz`, `/livez`, as
//! upstream's `healthcheck.ProxyHealthServer` does), and to load balancers whether endpoints of a Service are here.
//!
//! The proxy is healthy unless changes have waited for longer than [`LATE_AFTER`] without getting into the kernel. So it
//! is healthy before it knows anything: what an earlier run left goes on working.

mod node;
mod serve;
mod services;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

pub use node::serve_node;
pub use services::HealthChecks;

/// Twice upstream's default of `syncPeriod`.
const LATE_AFTER: Duration = Duration::from_secs(60);

/// How the proxy is, told by what it does; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when changes wait that nobody works on.
    queued: Option<Instant>,
    /// Since when those wait that are being applied.
    working: Option<Instant>,
    /// When each family's tables were last as they should be.
    updated: [Option<Timestamp>; 2],
    /// This node takes traffic; unknown as long as nobody has seen it.
    is_eligible: bool,
}

impl Health {
    fn with<T>(&self, job: impl FnOnce(&mut State) -> T) -> T {
        job(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something changed that the tables do not show yet.
    pub fn queued(&self) {
        self.with(|state| *state.queued.get_or_insert_with(Instant::now));
    }

    /// What was queued is being applied.
    pub fn working(&self) {
        self.with(|state| {
            let queued = state.queued.take();
            state.working = state.working.or(queued);
        });
    }

    /// The tables of these families are as they should be, but for what was queued meanwhile.
    pub fn updated(&self, families: [bool; 2]) {
        self.with(|state| {
            state.working = None;
            for (at, _) in families.iter().enumerate().filter(|(_, is_active)| **is_active) {
                state.updated[at] = Some(Timestamp::now());
            }
        });
    }

    /// Whether the node exists, is not being deleted, and not about to be ([`crate::objects::NodeObject`]).
    pub fn set_eligible(&self, is_eligible: bool) {
        self.with(|state| state.is_eligible = is_eligible);
    }

    pub fn is_healthy(&self) -> bool {
        self.with(|state| state.is_healthy())
    }
}

impl State {
    fn is_healthy(&self) -> bool {
        let waiting = self.working.into_iter().chain(self.queued).min();
        let is_late = waiting.is_some_and(|since| since.elapsed() >= LATE_AFTER);
        // Before the first time nothing is late, as upstream has it.
        !is_late || self.updated == [None; 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_unhealthy_when_a_change_waits_too_long() {
        let health = Health::default();
        health.queued();
        tokio::time::advance(LATE_AFTER).await;
        assert!(health.is_healthy(), "it has not begun yet");
        health.working();
        health.updated([true, false]);
        assert!(health.is_healthy());
        health.queued();
        tokio::time::advance(LATE_AFTER - Duration::from_millis(1)).await;
        // What is queued later, or taken up without success, does not make it younger.
        health.queued();
        health.working();
        health.queued();
        assert!(health.is_healthy());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!health.is_healthy());
        health.updated([true, false]);
        assert!(health.is_healthy(), "what was queued meanwhile is not late yet");
    }
}
