//! Progress of a task in steps: what is done, how it went, how long it took.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};

/// Runs one step, showing its name before and its result and duration after.
pub fn step(name: &str, run: impl FnOnce() -> Result<String>) -> Result<()> {
    print!("- {name} ... ");
    std::io::stdout().flush()?;
    let start = Instant::now();
    let result = run();
    match &result {
        Ok(text) => println!("{text} ({:.1} s)", start.elapsed().as_secs_f64()),
        Err(_) => println!("failed ({:.1} s)", start.elapsed().as_secs_f64()),
    }
    result.map(drop).with_context(|| name.to_owned())
}
