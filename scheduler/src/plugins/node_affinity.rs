//! NodeAffinity: node selectors, required and preferred node affinity.

use api::placement::requirement_holds;
use k8s_openapi::api::core::v1::NodeSelectorTerm;

use super::{Plugin, refuse};
use crate::objects::{Node, Pod};
use crate::verdict::Refusal;

pub fn filter(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    if matches(pod, node) {
        Ok(())
    } else {
        refuse(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector")
    }
}

/// Whether the node is one the pod's selector and required affinity allow.
pub fn matches(pod: &Pod, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    if !pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Sum of the weights of the preferred terms that match.
pub fn preference(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = preferred.into_iter().flatten().filter(|p| term_matches(&p.preference, node));
    matching.map(|p| i64::from(p.weight)).sum()
}

/// All requirements of a term hold; a term without any matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_str());
    expressions.iter().all(|e| requirement_holds(label(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
        && fields.iter().all(|e| requirement_holds(field(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
}
