//! The affinity terms of placed pods: each once, with how many of its pods every node has. The pods of a workload share
//! their terms, so a decision asks each term once instead of each pod.

use std::collections::{BTreeMap, HashMap};

use super::counts::FewCounts;
use crate::node::Slot;
use crate::objects::{Pod, Term, Weighted};

/// Pods per node that have a term. Terms about one namespace by its name are found by it; a pod of another namespace
/// never meets them.
#[derive(Clone, Debug)]
pub struct Terms<K> {
    by_namespace: HashMap<String, BTreeMap<K, FewCounts>>,
    wide: BTreeMap<K, FewCounts>,
}

/// What terms are told apart by.
pub trait Key: Ord + Clone {
    fn term(&self) -> &Term;
}

impl Key for Term {
    fn term(&self) -> &Term {
        self
    }
}

impl Key for Weighted {
    fn term(&self) -> &Term {
        &self.term
    }
}

impl<K> Default for Terms<K> {
    fn default() -> Self {
        Self { by_namespace: HashMap::new(), wide: BTreeMap::new() }
    }
}

impl<K: Key> Terms<K> {
    fn add(&mut self, key: &K, slot: Slot) {
        let group = match key.term().only_namespace() {
            Some(name) => self.by_namespace.entry(name.to_owned()).or_default(),
            None => &mut self.wide,
        };
        match group.get_mut(key) {
            Some(counts) => counts.add(slot),
            None => group.entry(key.clone()).or_default().add(slot),
        }
    }

    fn remove(&mut self, key: &K, slot: Slot) {
        let name = key.term().only_namespace();
        let group = match name {
            Some(name) => self.by_namespace.get_mut(name),
            None => Some(&mut self.wide),
        };
        let Some(group) = group else { return };
        if let Some(counts) = group.get_mut(key) {
            counts.remove(slot);
            if counts.is_empty() {
                group.remove(key);
            }
        }
        if let Some(name) = name.filter(|_| group.is_empty()) {
            self.by_namespace.remove(name);
        }
    }

    /// The terms that could select a pod of this namespace, with where their pods are.
    pub fn about(&self, namespace: &str) -> impl Iterator<Item = (&K, &FewCounts)> {
        self.by_namespace.get(namespace).into_iter().flatten().chain(&self.wide)
    }
}

/// All terms of placed pods, by what they are good for.
#[derive(Clone, Debug, Default)]
pub struct Affinities {
    pub required: Terms<Term>,
    pub required_anti: Terms<Term>,
    pub preferred: Terms<Weighted>,
}

impl Affinities {
    pub fn pod_placed(&mut self, pod: &Pod, slot: Slot) {
        let Some(affinity) = &pod.affinity else { return };
        affinity.required.iter().for_each(|term| self.required.add(term, slot));
        affinity.required_anti.iter().for_each(|term| self.required_anti.add(term, slot));
        affinity.preferred.iter().for_each(|weighted| self.preferred.add(weighted, slot));
    }

    pub fn pod_gone(&mut self, pod: &Pod, slot: Slot) {
        let Some(affinity) = &pod.affinity else { return };
        affinity.required.iter().for_each(|term| self.required.remove(term, slot));
        affinity.required_anti.iter().for_each(|term| self.required_anti.remove(term, slot));
        affinity.preferred.iter().for_each(|weighted| self.preferred.remove(weighted, slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, spec: serde_json::Value) -> Pod {
        let pod = serde_json::json!({ "metadata": { "name": "p", "namespace": namespace, "uid": "p" }, "spec": spec });
        serde_json::from_value(pod).expect("a Pod")
    }

    fn apart(namespaces: serde_json::Value) -> serde_json::Value {
        let mut term = serde_json::json!({ "labelSelector": {}, "topologyKey": "zone" });
        if let (Some(term), Some(more)) = (term.as_object_mut(), namespaces.as_object()) {
            term.extend(more.clone());
        }
        serde_json::json!({ "affinity": { "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
    }

    #[test]
    fn terms_are_shared_and_go_with_their_last_pod() {
        let mut all = Affinities::default();
        let own = pod("a", apart(serde_json::json!({})));
        let wide = pod("a", apart(serde_json::json!({ "namespaceSelector": {} })));
        for (pod, slot) in [(&own, 1), (&own, 1), (&own, 4), (&wide, 2)] {
            all.pod_placed(pod, slot);
        }
        let seen = |all: &Affinities, namespace: &str| -> Vec<Vec<(Slot, u32)>> {
            all.required_anti.about(namespace).map(|(_, counts)| counts.iter().collect()).collect()
        };
        assert_eq!(seen(&all, "a"), [vec![(1, 2), (4, 1)], vec![(2, 1)]]);
        assert_eq!(seen(&all, "b"), [vec![(2, 1)]], "a term about its own namespace is none of others' business");
        for (pod, slot) in [(&own, 1), (&own, 4), (&wide, 2)] {
            all.pod_gone(pod, slot);
        }
        assert_eq!(seen(&all, "a"), [vec![(1, 1)]]);
        all.pod_gone(&own, 1);
        assert!(seen(&all, "a").is_empty() && all.required_anti.by_namespace.is_empty());
    }
}
