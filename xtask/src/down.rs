//! `cargo xtask down`: stops what `up` started and removes everything it made.

use std::path::Path;

use anyhow::{Context, Result};
use tests::cluster::Cluster;

use crate::up;

pub fn run(dir: &Path) -> Result<()> {
    if !dir.exists() {
        println!("nothing to do: {} does not exist", dir.display());
        return Ok(());
    }
    Cluster::at(up::cluster_options(dir)).stop().context("stop the cluster")?;
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {dir:?}"))?;
    println!("stopped, and {} removed", dir.display());
    Ok(())
}
