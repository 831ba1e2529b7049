//! Calls of cargo, with its progress shown, and where its results are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The top of this repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs cargo in the repository with its output shown.
pub fn run(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(args).envs(env.iter().copied());
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo {} ended with {status}", args.join(" "));
    }
    Ok(())
}

/// Where a binary of this workspace lands in `profile` (`debug` or `release`).
pub fn binary(profile: &str, name: &str) -> PathBuf {
    target().join(profile).join(name)
}

/// The directory for what is built, which git ignores.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
