//! kubectl against one cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::packages;
use crate::process::run;

/// kubectl with one kubeconfig. `KUBECTL` in the environment names another kubectl than the one in PATH.
#[derive(Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Its own discovery cache: a cache shared with other clusters at the same address would lie.
    cache: PathBuf,
}

impl Kubectl {
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let program = match std::env::var_os("KUBECTL") {
            Some(program) => program.into(),
            None => packages::find_program("kubectl").context("kubectl is not installed")?,
        };
        let cache = kubeconfig.with_extension("cache");
        Ok(Self { program, kubeconfig: kubeconfig.to_owned(), cache })
    }

    /// A command to be completed by the caller.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(args);
        command
    }

    /// Runs it to its end; standard output, or an error with both outputs.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        serde_json::from_str(&self.run(&all)?).context("kubectl printed no JSON")
    }
}
