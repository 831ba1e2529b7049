//! Which nodes a daemon belongs on, and the pod it gets there. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodTemplateSpec, Toleration,
};
use serde_json::Value;

use crate::controllers::history::plan::REVISION_LABEL;
use crate::controllers::pods;
use crate::objects::{Node, Owner, has_node_labels, selects_node, tolerates};

/// `apps.DeprecatedTemplateGeneration`: daemon sets of long ago tell their pods apart by it.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
/// `extensions.DaemonSetTemplateGenerationKey`.
pub const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that no daemon minds (`AddOrUpdateDaemonPodTolerations`): a daemon stays on a node in trouble, and starts on
/// one that takes no other pods.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And for daemons on the host's network, which may be what brings the network up.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The template of a daemon's pods, with its tolerations.
pub struct Place {
    template: PodTemplateSpec,
}

/// Whether a daemon's pod belongs on a node (`NodeShouldRunDaemonPod`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// A pod is made there.
    Run,
    /// None is made, but one that is there may stay.
    Stay,
    No,
}

impl Place {
    pub fn of(set: &DaemonSet) -> Self {
        let mut template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let spec = template.spec.get_or_insert_default();
        let on_host_network = spec.host_network == Some(true);
        let tolerations = spec.tolerations.get_or_insert_default();
        for (key, effect) in TOLERATED.into_iter().chain(on_host_network.then_some(TOLERATED_ON_HOST_NETWORK)) {
            tolerate(tolerations, key, effect);
        }
        Self { template }
    }

    pub fn fit(&self, node: &Node) -> Fit {
        let Some(spec) = &self.template.spec else { return Fit::No };
        if spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.metadata.name) {
            return Fit::No;
        }
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let selected = spec.node_selector.as_ref().is_none_or(|labels| has_node_labels(node, labels));
        if !selected || !required.is_none_or(|selector| selects_node(selector, node)) {
            return Fit::No;
        }
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let repels = |effect: &str| {
            let mut taints = node.spec.taints.iter().filter(|t| t.effect == effect);
            taints.any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
        };
        match (repels("NoExecute"), repels("NoSchedule")) {
            (true, _) => Fit::No,
            (false, true) => Fit::Stay,
            (false, false) => Fit::Run,
        }
    }

    /// The pod for a node. The scheduler binds it; its affinity leaves it no choice
    /// (`ReplaceDaemonSetPodNodeNameNodeAffinity`).
    pub fn pod(&self, owner: &Owner, node: &str, hash: &str, generation: Option<i64>) -> Value {
        let mut template = self.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        if let Some(generation) = generation {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
        }
        labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
        let affinity = template.spec.get_or_insert_default().affinity.get_or_insert_default();
        let node_affinity = affinity.node_affinity.get_or_insert_default();
        let named = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        };
        let term = NodeSelectorTerm { match_fields: Some(vec![named]), match_expressions: None };
        node_affinity.required_during_scheduling_ignored_during_execution =
            Some(NodeSelector { node_selector_terms: vec![term] });
        pods::from_template(&template, owner)
    }
}

/// Replaces tolerations of the same taint that say something else (`AddOrUpdateTolerationInPodSpec`).
fn tolerate(tolerations: &mut Vec<Toleration>, key: &str, effect: &str) {
    let wanted = Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let is_same = |t: &Toleration| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        text(&t.key) == key && text(&t.effect) == effect && t.operator == wanted.operator && text(&t.value).is_empty()
    };
    match tolerations.iter_mut().find(|t| is_same(t)) {
        Some(same) => *same = wanted,
        None => tolerations.push(wanted),
    }
}

/// The template generation that a daemon set of long ago carries.
pub fn generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(GENERATION_ANNOTATION)?.parse().ok()
}
