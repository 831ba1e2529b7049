//! `cargo xtask bench [NAME…]`: what the promises of the project say in numbers, measured on real processes. Nothing
//! here passes or fails: a machine's mood is no test. Quote ratios from one run.

mod dns;
mod memory;
mod nodes;
mod requests;
mod rig;
mod startup;

use anyhow::{Result, bail};

/// A measurement: name, and what prints its rows.
type Bench = (&'static str, fn() -> Result<()>);

const BENCHES: &[Bench] = &[
    ("binary", startup::binary),
    ("startup", startup::control_plane),
    ("first-pod", startup::first_pod),
    ("idle", nodes::idle),
    ("pods", nodes::pods),
    ("memory", memory::memory),
    ("creates", requests::creates),
    ("list", requests::list),
    ("dns", dns::dns),
];

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|w| BENCHES.iter().all(|(name, _)| name != w)) {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("no measurement is called {unknown:?}; there are {}", known.join(", "));
    }
    println!("{:<52} {:>14}   promise", "measured", "value");
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run()?;
        }
    }
    Ok(())
}
