//! Waiting for a condition of the outside world, with a named limit and the last reason in the error.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at. Short, because many of these conditions come true within milliseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `check` until it returns `Ok(Some(_))`. `Ok(None)` and errors mean "not yet"; after `limit` the last error
/// is reported together with `what`.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match check() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::from("condition not met"),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > limit {
            bail!("gave up waiting for {what} after {:.1} s: {last}", limit.as_secs_f64());
        }
        std::thread::sleep(PAUSE);
    }
}
