//! InterPodAffinity: pods near to, or away from, other pods; within the topology a label of the node names.

use std::sync::Arc;

use super::{Plugin, SCORE_MAX, refuse, refuse_for_good};
use crate::cluster::{Clause, Cluster, NodeCounts, PodQuery, Topology};
use crate::config::InterPodArgs;
use crate::node::{NodeInfo, Slot};
use crate::objects::{Pod, Term, Weighted};
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

    fn add_all(&mut self, counts: impl Iterator<Item = (Slot, u32)>, weight: i64) {
        counts.for_each(|(slot, count)| self.add(slot, weight * i64::from(count)));
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
    /// Where existing pods' anti-affinity forbids the incoming pod.
    existing: ByLabel,
    /// What nodes are worth by preferences: the pod's own and those of existing pods.
    preferred: ByLabel,
}

/// Domains by the label they are of; one or two mostly.
#[derive(Clone, Default)]
struct ByLabel(Vec<(String, Domains)>);

impl ByLabel {
    fn of(&mut self, key: &str, cluster: &mut Cluster) -> &mut Domains {
        let at = self.0.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), Domains::new(key, cluster)));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn known(&mut self, key: &str) -> Option<&mut Domains> {
        self.0.iter_mut().find(|(known, _)| known == key).map(|(_, domains)| domains)
    }

    fn at(&self, slot: Slot) -> impl Iterator<Item = i64> {
        self.0.iter().filter_map(move |(_, domains)| domains.at(slot))
    }
}

impl State {
    pub fn new(pod: &Pod, args: &InterPodArgs, cluster: &mut Cluster) -> Self {
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
        }
        state.count_existing(pod, cluster);
        state.count_preferred(pod, args, cluster);
        state
    }

    fn count_existing(&mut self, pod: &Pod, cluster: &mut Cluster) {
        let affinities = std::mem::take(&mut cluster.affinities);
        for (term, counts) in affinities.required_anti.about(&pod.metadata.namespace) {
            if selects(term, pod, cluster) {
                self.existing.of(&term.topology_key, cluster).add_all(counts.iter(), 1);
            }
        }
        cluster.affinities = affinities;
        // Pods that wait for room count too, once they are thought onto a node.
        let nominated = cluster.nominated.pods().flat_map(|p| &p.affinity).flat_map(|a| &a.required_anti);
        let keys: Vec<String> = nominated.map(|term| term.topology_key.clone()).collect();
        for key in keys {
            self.existing.of(&key, cluster);
        }
    }

    fn count_preferred(&mut self, pod: &Pod, args: &InterPodArgs, cluster: &mut Cluster) {
        let own = pod.affinity.as_ref().map(|a| a.preferred.as_slice()).unwrap_or_default();
        if args.ignore_preferred_terms_of_existing_pods && own.is_empty() {
            return;
        }
        for Weighted { term, weight } in own {
            let counts = count(term, cluster);
            self.preferred.of(&term.topology_key, cluster).add_all(counts.iter(), *weight);
        }
        let affinities = std::mem::take(&mut cluster.affinities);
        let namespace = &pod.metadata.namespace;
        let required = affinities.required.about(namespace).map(|(t, n)| (t, args.hard_pod_affinity_weight, n));
        let preferred = affinities.preferred.about(namespace).map(|(w, n)| (&w.term, w.weight, n));
        for (term, weight, counts) in required.filter(|(_, weight, _)| *weight > 0).chain(preferred) {
            if selects(term, pod, cluster) {
                self.preferred.of(&term.topology_key, cluster).add_all(counts.iter(), weight);
            }
        }
        cluster.affinities = affinities;
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
            if let Some(domains) = self.existing.known(&term.topology_key) {
                domains.add(slot, amount);
            }
        }
    }
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
    domains.add_all(counts.iter(), 1);
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
    if state.existing.at(slot).any(|count| count > 0) {
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
pub fn scores(state: &State, nodes: &[&NodeInfo]) -> Vec<i64> {
    if state.preferred.0.is_empty() {
        return vec![0; nodes.len()];
    }
    scaled(nodes.iter().map(|info| state.preferred.at(info.slot).sum()).collect())
}

fn scaled(sums: Vec<i64>) -> Vec<i64> {
    let min = sums.iter().copied().min().unwrap_or_default();
    let range = sums.iter().copied().max().unwrap_or_default() - min;
    // In floating point as upstream, whose rounding decides between neighbours.
    let scale = |sum: i64| if range > 0 { (SCORE_MAX as f64 * ((sum - min) as f64 / range as f64)) as i64 } else { 0 };
    sums.into_iter().map(scale).collect()
}
