//! Why a pod fits nowhere, in upstream's words (`framework.FitError`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::node::Slot;
use crate::plugins::Plugin;

/// One plugin's refusal of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: Plugin,
    /// Such as `Insufficient cpu`; several where a plugin found several.
    pub reasons: Vec<Cow<'static, str>>,
    /// Fewer pods on the node could help (`Unschedulable`, not `UnschedulableAndUnresolvable`).
    pub resolvable: bool,
}

pub type Verdict = Result<(), Refusal>;

/// One plugin's refusal of all nodes, before any is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: Plugin,
    pub message: String,
}

/// All refusals of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    /// Why no node was looked at, if so.
    pub rejection: Option<String>,
    /// Nodes refused, by reason.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// Who refused: a change that none of them looks at cannot help this pod.
    pub plugins: BTreeSet<Plugin>,
    /// Nodes on which fewer pods could help, in the order they were looked at.
    pub resolvable: Vec<Slot>,
    /// Nodes that were looked at.
    pub looked_at: Slots,
    /// What making room came to.
    pub preemption: Option<String>,
}

/// A set of nodes, as one bit each: a pod that fits nowhere puts all nodes into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    bits: Vec<u64>,
    len: usize,
}

impl Slots {
    /// Whether it is new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FitError {
    pub fn count(&mut self, slot: Slot, refusal: Refusal) {
        self.plugins.insert(refusal.plugin);
        if !self.looked_at.insert(slot) {
            return;
        }
        if refusal.resolvable {
            self.resolvable.push(slot);
        }
        for reason in refusal.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// Counts `reason` for the nodes that were not looked at.
    pub fn count_rest(&mut self, reason: String) {
        let rest = self.nodes - self.looked_at.len();
        if rest > 0 {
            *self.reasons.entry(reason.into()).or_default() += rest;
        }
    }
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        match &self.rejection {
            Some(message) => write!(f, " {message}.")?,
            None if self.reasons.is_empty() => {}
            None => write!(f, " {}.", histogram(&self.reasons))?,
        }
        match &self.preemption {
            Some(message) if !message.is_empty() => write!(f, " {message}"),
            _ => Ok(()),
        }
    }
}

/// `2 Insufficient cpu, 3 Too many pods`. Upstream sorts the finished texts, count first.
pub fn histogram(reasons: &BTreeMap<Cow<'static, str>, usize>) -> String {
    let mut texts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_counted_once() {
        let mut slots = Slots::default();
        assert!(slots.is_empty());
        let new: Vec<bool> = [0, 63, 64, 200, 64, 0].into_iter().map(|slot| slots.insert(slot)).collect();
        assert_eq!((new, slots.len()), (vec![true, true, true, true, false, false], 4));
    }
}
