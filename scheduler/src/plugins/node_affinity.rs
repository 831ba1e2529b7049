//! NodeAffinity: node selectors, required and preferred node affinity, and what the configuration adds to every pod.

use std::collections::BTreeSet;

use api::placement::requirement_holds;
use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelector, NodeSelectorTerm};

use super::{Plugin, refuse_for_good};
use crate::objects::{Node, Pod};
use crate::verdict::{Rejection, Verdict};

/// The field that names a node (`metav1.ObjectNameField`).
const NAME: &str = "metadata.name";

pub fn filter(pod: &Pod, added: Option<&NodeAffinity>, node: &Node) -> Verdict {
    let added = added.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    if added.is_some_and(|s| !selector_matches(s, node)) {
        return refuse_for_good(Plugin::NodeAffinity, "node(s) didn't match scheduler-enforced node affinity");
    }
    if !matches(pod, node) {
        return refuse_for_good(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector");
    }
    Ok(())
}

fn required(pod: &Pod) -> Option<&NodeSelector> {
    pod.node_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
}

/// Whether the pod restricts its nodes at all.
pub fn restricts(pod: &Pod) -> bool {
    !pod.node_selector.is_empty() || required(pod).is_some()
}

/// Whether the node is one the pod's selector and required affinity allow.
pub fn matches(pod: &Pod, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && required(pod).is_none_or(|s| selector_matches(s, node))
}

/// The only nodes that can match, where every term names some (`NodeAffinity.PreFilter`).
pub fn names(pod: &Pod) -> Result<Option<BTreeSet<String>>, Rejection> {
    let terms = required(pod).map(|s| s.node_selector_terms.as_slice()).unwrap_or_default();
    let mut all = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten().filter(|f| f.key == NAME && f.operator == "In");
        let of_term = fields.fold(None, |names: Option<BTreeSet<String>>, field| {
            let these: BTreeSet<String> = field.values.iter().flatten().cloned().collect();
            Some(names.map_or(these.clone(), |names| &names & &these))
        });
        let Some(of_term) = of_term else { return Ok(None) };
        all.extend(of_term);
    }
    match (terms.is_empty(), all.is_empty()) {
        (true, _) => Ok(None),
        (false, true) => {
            Err(Rejection { plugin: Plugin::NodeAffinity, message: "pod affinity terms conflict".to_owned() })
        }
        (false, false) => Ok(Some(all)),
    }
}

/// Sum of the weights of the preferred terms that match.
pub fn preference(pod: &Pod, added: Option<&NodeAffinity>, node: &Node) -> i64 {
    let affinities = pod.node_affinity.as_deref().into_iter().chain(added);
    let preferred = affinities.flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    preferred.filter(|p| term_matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
}

/// Any of a selector's terms matches.
pub fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// All requirements of a term hold; a term without any matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == NAME).then_some(node.metadata.name.as_str());
    expressions.iter().all(|e| requirement_holds(label(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
        && fields.iter().all(|e| requirement_holds(field(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
}
