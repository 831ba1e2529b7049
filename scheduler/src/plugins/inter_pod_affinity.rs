//! InterPodAffinity: pods near to, or away from, other pods; within the topology a label of the node names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Plugin, SCORE_MAX, refuse, refuse_for_good};
use crate::cluster::{Clause, Cluster, NodeCounts, PodQuery, Topology};
use crate::config::InterPodArgs;
use crate::node::{NodeInfo, Slot};
use crate::objects::{Pod, Term};
use crate::verdict::Verdict;

/// Matching pods per domain of a label.
#[derive(Clone)]
struct Domains {
    topology: Arc<Topology>,
    counts: Vec<i64>,
}

impl Domains {
    fn new(key: &str, cluster: &mut Cluster) -> Self {
        let topology = cluster.topology(key);
        Self { counts: vec![0; topology.len()], topology }
    }

    fn add(&mut self, slot: Slot, amount: i64) {
        if let Some(domain) = self.topology.domain(slot) {
            self.counts[domain] += amount;
        }
    }

    fn add_all(&mut self, counts: &NodeCounts, weight: i64) {
        counts.iter().for_each(|(slot, count)| self.add(slot, weight * i64::from(count)));
    }

    /// Absent where the node has no such label.
    fn at(&self, slot: Slot) -> Option<i64> {
        self.topology.domain(slot).map(|domain| self.counts[domain])
    }
}

/// Counts per topology, made once per decision.
#[derive(Clone, Default)]
pub struct State {
    /// Per required affinity term: where the pods are that match all of them.
    affinity: Vec<Domains>,
    /// The pod would satisfy its own affinity terms, which lets the first of a group in.
    matches_itself: bool,
    /// Per required anti-affinity term: where the pods are that match it.
    anti_affinity: Vec<Domains>,
    /// By label: where existing pods' anti-affinity forbids the incoming pod.
    existing: BTreeMap<String, Domains>,
    /// Per preferred term: where the pods are that match it.
    preferred: Vec<Arc<NodeCounts>>,
}

impl State {
    pub fn new(pod: &Pod, cluster: &mut Cluster) -> Self {
        let mut state = Self::default();
        if let Some(affinity) = &pod.affinity {
            if !affinity.required.is_empty() {
                let clauses = affinity.required.iter().map(|t| clause(t, cluster)).collect();
                let counts = cluster.count(PodQuery { clauses, ignores_deleting: false });
                state.affinity = affinity.required.iter().map(|t| counted(t, &counts, cluster)).collect();
                state.matches_itself = affinity.required.iter().all(|t| selects(t, pod, cluster));
            }
            for term in &affinity.required_anti {
                let counts = count(term, cluster);
                state.anti_affinity.push(counted(term, &counts, cluster));
            }
            state.preferred = affinity.preferred.iter().map(|w| count(&w.term, cluster)).collect();
        }
        for key in anti_affinity_keys(cluster) {
            let domains = Domains::new(&key, cluster);
            state.existing.insert(key, domains);
        }
        for (_, info) in cluster.with_anti_affinity() {
            for term in info.with_affinity.iter().flat_map(|p| &p.affinity).flat_map(|a| &a.required_anti) {
                if selects(term, pod, cluster)
                    && let Some(domains) = state.existing.get_mut(&term.topology_key)
                {
                    domains.add(info.slot, 1);
                }
            }
        }
        state
    }

    /// What would be if `other` came to (1) or left (-1) the node.
    pub fn update(&mut self, pod: &Pod, other: &Pod, slot: Slot, amount: i64, cluster: &Cluster) {
        if let Some(affinity) = &pod.affinity {
            if !affinity.required.is_empty() && affinity.required.iter().all(|t| selects(t, other, cluster)) {
                self.affinity.iter_mut().for_each(|domains| domains.add(slot, amount));
            }
            for (term, domains) in affinity.required_anti.iter().zip(&mut self.anti_affinity) {
                if selects(term, other, cluster) {
                    domains.add(slot, amount);
                }
            }
        }
        for term in other.affinity.iter().flat_map(|a| &a.required_anti).filter(|t| selects(t, pod, cluster)) {
            if let Some(domains) = self.existing.get_mut(&term.topology_key) {
                domains.add(slot, amount);
            }
        }
    }
}

/// Labels that existing pods' anti-affinity is about. Pods that wait for room count too: they may be thought onto a node.
fn anti_affinity_keys(cluster: &Cluster) -> BTreeSet<String> {
    let placed = cluster.with_anti_affinity().flat_map(|(_, info)| &info.with_affinity);
    let terms = placed.chain(cluster.nominated.pods()).flat_map(|p| &p.affinity).flat_map(|a| &a.required_anti);
    let mut keys: BTreeSet<String> = BTreeSet::new();
    for term in terms {
        // Nearly all of them are about one or two labels.
        if !keys.contains(&term.topology_key) {
            keys.insert(term.topology_key.clone());
        }
    }
    keys
}

/// Whether `term` selects `pod`, by the names and labels of its namespace.
fn selects(term: &Term, pod: &Pod, cluster: &Cluster) -> bool {
    term.selects(pod, |selector| cluster.namespace_matches(&pod.metadata.namespace, selector))
}

fn clause(term: &Term, cluster: &Cluster) -> Clause {
    let everywhere = term.namespace_selector.is_empty();
    let namespaces = (!everywhere).then(|| {
        let by_label = cluster.namespaces_matching(&term.namespace_selector).cloned();
        term.namespaces.iter().cloned().chain(by_label).collect()
    });
    Clause { namespaces, selector: term.selector.clone() }
}

fn count(term: &Term, cluster: &mut Cluster) -> Arc<NodeCounts> {
    let clauses = vec![clause(term, cluster)];
    cluster.count(PodQuery { clauses, ignores_deleting: false })
}

fn counted(term: &Term, counts: &NodeCounts, cluster: &mut Cluster) -> Domains {
    let mut domains = Domains::new(&term.topology_key, cluster);
    domains.add_all(counts, 1);
    domains
}

pub fn filter(state: &State, slot: Slot) -> Verdict {
    if !satisfies_affinity(state, slot) {
        return refuse_for_good(Plugin::InterPodAffinity, "node(s) didn't match pod affinity rules");
    }
    let present = |domains: &Domains| domains.at(slot).is_some_and(|count| count > 0);
    if state.anti_affinity.iter().any(present) {
        return refuse(Plugin::InterPodAffinity, "node(s) didn't match pod anti-affinity rules");
    }
    if state.existing.values().any(present) {
        return refuse(Plugin::InterPodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Ok(())
}

fn satisfies_affinity(state: &State, slot: Slot) -> bool {
    let mut all_counted = true;
    for domains in &state.affinity {
        // All labels must be there, also for the first pod of a group.
        let Some(count) = domains.at(slot) else { return false };
        all_counted &= count > 0;
    }
    // The first pod of a group that wants to be together may go anywhere, or none could ever start.
    all_counted || (state.matches_itself && state.affinity.iter().all(|d| d.counts.iter().all(|c| *c == 0)))
}

/// Preferences scaled to 0..=100 between the worst and the best node; nothing where there are none.
pub fn scores(pod: &Pod, state: &State, args: &InterPodArgs, cluster: &Cluster, nodes: &[&NodeInfo]) -> Vec<i64> {
    let preferred = pod.affinity.as_ref().map(|a| a.preferred.as_slice()).unwrap_or_default();
    if args.ignore_preferred_terms_of_existing_pods && preferred.is_empty() {
        return vec![0; nodes.len()];
    }
    let mut by_key: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    let mut prefer = |term: &Term, info: &NodeInfo, weight: i64| {
        let value = info.node.as_ref().and_then(|n| n.metadata.labels.get(&term.topology_key));
        if let Some(value) = value {
            let values = by_key.entry(term.topology_key.clone()).or_default();
            *values.entry(value.clone()).or_default() += weight;
        }
    };
    for (weighted, counts) in preferred.iter().zip(&state.preferred) {
        for (slot, count) in counts.iter() {
            prefer(&weighted.term, cluster.info(slot), weighted.weight * i64::from(count));
        }
    }
    for (_, info) in cluster.with_affinity() {
        for theirs in info.with_affinity.iter().filter_map(|p| p.affinity.as_ref()) {
            if args.hard_pod_affinity_weight > 0 {
                for term in theirs.required.iter().filter(|t| selects(t, pod, cluster)) {
                    prefer(term, info, args.hard_pod_affinity_weight);
                }
            }
            for weighted in theirs.preferred.iter().filter(|w| selects(&w.term, pod, cluster)) {
                prefer(&weighted.term, info, weighted.weight);
            }
        }
    }
    if by_key.is_empty() {
        return vec![0; nodes.len()];
    }
    let sum = |info: &&NodeInfo| -> i64 {
        let labels = info.node.as_ref().map(|n| &n.metadata.labels);
        let at = |(key, values): (&String, &BTreeMap<String, i64>)| values.get(labels?.get(key)?).copied();
        by_key.iter().filter_map(at).sum()
    };
    scaled(nodes.iter().map(sum).collect())
}

fn scaled(sums: Vec<i64>) -> Vec<i64> {
    let min = sums.iter().copied().min().unwrap_or_default();
    let range = sums.iter().copied().max().unwrap_or_default() - min;
    // In floating point as upstream, whose rounding decides between neighbours.
    let scale = |sum: i64| if range > 0 { (SCORE_MAX as f64 * ((sum - min) as f64 / range as f64)) as i64 } else { 0 };
    sums.into_iter().map(scale).collect()
}
