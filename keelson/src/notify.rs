//! What systemd is told (`Type=notify`). Nothing happens where no supervisor listens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

pub fn ready() {
    send(&[NotifyState::Ready]);
}

pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Holds off the watchdog for another [`watchdog`] limit.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Without a sign of life for this long the supervisor kills this process and starts another.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "telling the supervisor failed");
    }
}
