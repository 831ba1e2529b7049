//! Shutdown as a protocol: SIGTERM or SIGINT asks, every component drains, a second signal or the limit ends it.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How long components may drain before the process ends all the same. Nothing is lost then either: every
/// acknowledged write is on disk, and pods do not depend on this process.
pub const DRAIN_LIMIT: Duration = Duration::from_millis(900);

/// A token that is cancelled by the first SIGTERM or SIGINT. A second signal ends the process at once.
pub fn on_signal() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: shutting down"),
                _ = interrupt.recv() => info!("SIGINT: shutting down"),
            }
            if attempt > 0 {
                std::process::exit(1);
            }
            asked.cancel();
        }
    });
    Ok(token)
}
