//! Why a pod fits nowhere, in upstream's words (`framework.FitError`).

use std::collections::{BTreeMap, BTreeSet};

use crate::plugins::Plugin;

/// One plugin's refusal of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: Plugin,
    /// Such as `Insufficient cpu`; several where a plugin found several.
    pub reasons: Vec<String>,
}

/// All refusals of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    /// Nodes refused, by reason.
    pub reasons: BTreeMap<String, usize>,
    /// Who refused: a change that none of them looks at cannot help this pod.
    pub plugins: BTreeSet<Plugin>,
}

impl FitError {
    pub fn count(&mut self, refusal: Refusal) {
        self.plugins.insert(refusal.plugin);
        for reason in refusal.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        // Upstream sorts the finished texts, count first.
        let mut texts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, texts.join(", "))
    }
}
