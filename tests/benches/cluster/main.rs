//! `cargo xtask bench [NAME…]`: what the promises of the project say in numbers, measured on real processes. Nothing
//! here passes or fails: a machine's mood is no test. Quote ratios from one run.

mod dns;
mod memory;
mod nodes;
mod requests;
mod rig;
mod scale;
mod startup;

use anyhow::{Context, Result, bail};

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

/// Only when it is named, as it takes minutes.
const SCALE: &str = "scale";

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`.
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let size = size(&mut wanted)?;
    if let Some(unknown) = wanted.iter().find(|w| *w != SCALE && BENCHES.iter().all(|(name, _)| name != w)) {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).chain([SCALE]).collect();
        bail!("no measurement is called {unknown:?}; there are {}", known.join(", "));
    }
    println!("{:<52} {:>14}   promise", "measured", "value");
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run()?;
        }
    }
    if wanted.iter().any(|w| w == SCALE) { scale::scale(size) } else { Ok(()) }
}

/// Takes `--nodes N` and `--pods N` out of the arguments.
fn size(args: &mut Vec<String>) -> Result<scale::Size> {
    let mut size = scale::Size::default();
    for (name, value) in [("--nodes", &mut size.nodes), ("--pods", &mut size.pods)] {
        let Some(at) = args.iter().position(|arg| arg == name) else { continue };
        let text = args.get(at + 1).with_context(|| format!("{name} needs a number"))?;
        *value = text.parse().with_context(|| format!("{name} {text}: not a number"))?;
        args.drain(at..=at + 1);
    }
    Ok(size)
}
