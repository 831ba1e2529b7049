//! The log: one line per event on standard error, where systemd's journal and a terminal both want it.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging with a filter such as `info,agent=debug`.
pub fn start(filter: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).with_context(|| format!("--log {filter:?} is not a log filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
