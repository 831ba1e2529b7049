//! The few words we have with systemd.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::layout::Role;

/// Lines of the journal that explain a service that does not start.
const LOG_LINES: &str = "-n20";

/// Whether systemd runs this host.
pub fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(args: &[&str]) -> Result<Output> {
    Command::new("systemctl").args(args).output().with_context(|| format!("run systemctl {}", args.join(" ")))
}

fn succeed(args: &[&str]) -> Result<()> {
    let output = systemctl(args)?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr);
        bail!("systemctl {}: {}", args.join(" "), problem.trim());
    }
    Ok(())
}

pub fn reload() -> Result<()> {
    succeed(&["daemon-reload"])
}

/// Starts the service with what is installed now, and returns when it says it is ready.
pub fn restart(role: Role) -> Result<()> {
    let unit = role.unit_name();
    let Err(error) = succeed(&["restart", unit]) else { return Ok(()) };
    let journal = Command::new("journalctl").args(["--no-pager", "-o", "cat", LOG_LINES, "-u", unit]).output();
    let lines = journal.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    Err(error.context(format!("the end of its log:\n{}\n", lines.trim_end())))
}

/// Stops the service, and returns when its process is gone.
pub fn stop(role: Role) -> Result<()> {
    succeed(&["stop", role.unit_name()])
}

/// Forgets that the service ever failed.
pub fn forget(role: Role) -> Result<()> {
    // Fails for a unit that systemd does not know any more, which is what we want.
    systemctl(&["reset-failed", role.unit_name()]).map(drop)
}

pub fn is_active(role: Role) -> bool {
    is_here() && systemctl(&["is-active", "--quiet", role.unit_name()]).is_ok_and(|output| output.status.success())
}

/// What the service says of itself.
pub fn status(role: Role) -> String {
    let shown = systemctl(&["show", "--property=StatusText", "--value", role.unit_name()]);
    let text = shown.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "started".to_owned() } else { text }
}
