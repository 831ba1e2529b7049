//! `cargo xtask test`: what has to pass before a change lands. One profile for everything, so that each crate is
//! compiled once; the end-to-end tests find the `keelson` binary through `KEELSON_BINARY`.

use anyhow::Result;
use tests::packages;

use crate::{cargo, tidy};

pub fn run() -> Result<()> {
    let installed = packages::install(&[packages::RUN, packages::TEST])?;
    if !installed.is_empty() {
        println!("installed {}", installed.join(" "));
    }
    tidy::run()?;
    cargo::run(&["fmt", "--check"], &[])?;
    cargo::run(&["build", "--package", "keelson"], &[])?;
    let binary = cargo::binary("debug", "keelson");
    // Every failure in one run: the next one may be an hour away.
    cargo::run(&["test", "--workspace", "--no-fail-fast"], &[("KEELSON_BINARY", &binary.to_string_lossy())])
}
