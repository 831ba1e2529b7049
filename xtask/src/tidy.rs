//! `cargo xtask tidy`: the rules of the house that a machine can check. Each rule is a pure function from the
//! repository's files to complaints, and has a test with a bad sample.

mod edges;
mod files;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo;

/// A tracked file: path from the repository's top, and text.
pub struct Source {
    pub path: String,
    pub text: String,
}

pub fn run() -> Result<()> {
    let root = cargo::root();
    let sources = sources(&root)?;
    let mut complaints = files::check(&sources);
    complaints.extend(edges::check(&root)?);
    if complaints.is_empty() {
        println!("tidy: {} files are in order", sources.len());
        return Ok(());
    }
    bail!("tidy found {} faults:\n  {}", complaints.len(), complaints.join("\n  "));
}

/// All files git tracks or would track; files that are not text come with empty text.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    let listed = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut sources = Vec::new();
    for path in listed.lines() {
        // A file deleted but not yet staged is listed and cannot be read.
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        sources.push(Source { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() });
    }
    Ok(sources)
}
