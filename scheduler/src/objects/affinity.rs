//! Pod affinity and anti-affinity terms, ready to match (`framework.AffinityTerm`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use super::Pod;
use crate::selector::Selector;

/// One term of a pod. Without namespaces and namespace selector it means the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    pub topology_key: String,
    pub selector: Selector,
    pub namespaces: BTreeSet<String>,
    /// Namespaces by their labels, besides those by name; an empty one means all.
    pub namespace_selector: Selector,
}

/// A preferred term; anti-affinity weighs negative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weighted {
    pub term: Term,
    pub weight: i64,
}

/// All terms of a pod that has any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAffinity {
    pub required: Vec<Term>,
    pub required_anti: Vec<Term>,
    /// Of affinity and anti-affinity.
    pub preferred: Vec<Weighted>,
}

impl Term {
    fn of(term: &core::PodAffinityTerm, namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: Selector::of(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: Selector::of(term.namespace_selector.as_ref()),
        }
    }

    /// The namespace that all pods it selects are in, if it names one and nothing else.
    pub fn only_namespace(&self) -> Option<&str> {
        let is_named = self.namespaces.len() == 1 && self.namespace_selector.is_nothing();
        self.namespaces.first().filter(|_| is_named).map(String::as_str)
    }

    /// Whether the term selects `pod`. `namespace_matches` says whether the labels of the pod's namespace match a
    /// selector.
    pub fn selects(&self, pod: &Pod, namespace_matches: impl Fn(&Selector) -> bool) -> bool {
        let here = self.namespaces.contains(&pod.metadata.namespace) || namespace_matches(&self.namespace_selector);
        here && self.selector.matches(&pod.metadata.labels)
    }
}

impl PodAffinity {
    /// `None` when there is no term.
    pub fn of(affinity: &core::Affinity, namespace: &str) -> Option<Box<Self>> {
        let near = affinity.pod_affinity.as_ref();
        let away = affinity.pod_anti_affinity.as_ref();
        let terms = |terms: Option<&Vec<core::PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| Term::of(t, namespace)).collect()
        };
        let weighted = |terms: Option<&Vec<core::WeightedPodAffinityTerm>>, sign: i64| -> Vec<Weighted> {
            let weigh = |w: &core::WeightedPodAffinityTerm| Weighted {
                term: Term::of(&w.pod_affinity_term, namespace),
                weight: sign * i64::from(w.weight),
            };
            terms.into_iter().flatten().map(weigh).collect()
        };
        let mut preferred =
            weighted(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        preferred
            .extend(weighted(away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1));
        let out = Self {
            required: terms(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            required_anti: terms(away.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred,
        };
        (out != Self::default()).then(|| Box::new(out))
    }
}
