//! Settings about what a node keeps free, the same for every process that runs a node.

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Eviction {
    /// The node takes no new pods with less than this [default: memory.available<100Mi,nodefs.available<10%]
    #[arg(long, value_name = "SIGNAL<AMOUNT,…", env = "KEELSON_EVICTION_HARD")]
    pub eviction_hard: Option<String>,
}

impl Eviction {
    /// Each setting of `self` where it is given, of `under` otherwise.
    pub fn over(self, under: Self) -> Self {
        Self { eviction_hard: self.eviction_hard.or(under.eviction_hard) }
    }

    /// Writes what is given into the agent's options, or says what cannot be.
    pub fn apply(&self, options: &mut agent::Options) -> Result<()> {
        if let Some(text) = &self.eviction_hard {
            options.thresholds = text.parse().with_context(|| format!("--eviction-hard {text:?}"))?;
        }
        Ok(())
    }
}
