//! How many pods of each node a question selects, kept as pods come and go.
//!
//! Spreading and affinity ask the same questions for every pod of a workload. The first time, the pods are walked;
//! after that a question costs what changed since, which is one addition per placed pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::node::Slot;
use crate::objects::Pod;
use crate::selector::Selector;

/// Questions remembered; the one not asked for longest goes first.
const QUERIES_MAX: usize = 256;

/// Pods of some namespaces with some labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clause {
    /// Absent: all.
    pub namespaces: Option<BTreeSet<String>>,
    pub selector: Selector,
}

/// Pods that all clauses select.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodQuery {
    pub clauses: Vec<Clause>,
    /// Pods on their way out do not count.
    pub ignores_deleting: bool,
}

impl PodQuery {
    pub fn selects(&self, pod: &Pod) -> bool {
        let selects = |c: &Clause| {
            c.namespaces.as_ref().is_none_or(|n| n.contains(&pod.metadata.namespace))
                && c.selector.matches(&pod.metadata.labels)
        };
        !(self.ignores_deleting && pod.metadata.is_deleting()) && self.clauses.iter().all(selects)
    }

    /// The namespaces its pods are in, if it names any.
    pub fn namespaces(&self) -> Option<&BTreeSet<String>> {
        self.clauses.iter().find_map(|c| c.namespaces.as_ref())
    }
}

/// Selected pods per node, by slot; slots beyond the end have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts(Vec<u32>);

impl NodeCounts {
    pub fn get(&self, slot: Slot) -> u32 {
        self.0.get(slot as usize).copied().unwrap_or_default()
    }

    /// The nodes that have any, with how many.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, u32)> {
        self.0.iter().enumerate().filter(|(_, n)| **n > 0).map(|(slot, n)| (slot as Slot, *n))
    }

    pub fn add(&mut self, slot: Slot) {
        let slot = slot as usize;
        if self.0.len() <= slot {
            self.0.resize(slot + 1, 0);
        }
        self.0[slot] += 1;
    }

    fn remove(&mut self, slot: Slot) {
        if let Some(n) = self.0.get_mut(slot as usize) {
            *n = n.saturating_sub(1);
        }
    }
}

/// The same for what is on few nodes mostly, one entry for each; in the order of slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FewCounts(Vec<(Slot, u32)>);

impl FewCounts {
    pub fn add(&mut self, slot: Slot) {
        match self.0.binary_search_by_key(&slot, |(s, _)| *s) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (slot, 1)),
        }
    }

    pub fn remove(&mut self, slot: Slot) {
        let Ok(at) = self.0.binary_search_by_key(&slot, |(s, _)| *s) else { return };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, u32)> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&FewCounts> for NodeCounts {
    fn from(few: &FewCounts) -> Self {
        let mut all = vec![0; few.0.last().map_or(0, |(slot, _)| *slot as usize + 1)];
        few.iter().for_each(|(slot, count)| all[slot as usize] = count);
        Self(all)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    counts: Arc<NodeCounts>,
    asked_at: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    entries: BTreeMap<PodQuery, Entry>,
    clock: u64,
}

impl Counts {
    /// What is known for `query`, or what `walk` finds.
    pub fn get(&mut self, query: PodQuery, walk: impl FnOnce(&PodQuery) -> NodeCounts) -> Arc<NodeCounts> {
        self.clock += 1;
        let clock = self.clock;
        if let Some(entry) = self.entries.get_mut(&query) {
            entry.asked_at = clock;
            return Arc::clone(&entry.counts);
        }
        if self.entries.len() >= QUERIES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, e)| e.asked_at).map(|(query, _)| query.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        let counts = Arc::new(walk(&query));
        self.entries.insert(query, Entry { counts: Arc::clone(&counts), asked_at: clock });
        counts
    }

    pub fn pod_placed(&mut self, pod: &Pod, slot: Slot) {
        for (_, entry) in self.entries.iter_mut().filter(|(query, _)| query.selects(pod)) {
            Arc::make_mut(&mut entry.counts).add(slot);
        }
    }

    pub fn pod_gone(&mut self, pod: &Pod, slot: Slot) {
        for (_, entry) in self.entries.iter_mut().filter(|(query, _)| query.selects(pod)) {
            Arc::make_mut(&mut entry.counts).remove(slot);
        }
    }
}
