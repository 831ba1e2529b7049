//! Where a pod may run: the rules of `api::placement` over the types that controllers hold.

use std::collections::BTreeMap;

use api::placement::{self, requirement_holds};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm, Taint, Toleration};

use super::Node;

/// `Toleration.ToleratesTaint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let toleration = placement::Toleration {
        key: toleration.key.as_deref().unwrap_or_default(),
        operator: toleration.operator.as_deref().unwrap_or_default(),
        value: toleration.value.as_deref().unwrap_or_default(),
        effect: toleration.effect.as_deref().unwrap_or_default(),
    };
    let value = taint.value.as_deref().unwrap_or_default();
    toleration.tolerates(&placement::Taint { key: &taint.key, value, effect: &taint.effect })
}

/// Whether a node's labels have all these values.
pub fn has_node_labels(node: &Node, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| node.metadata.labels.get(key) == Some(value))
}

/// Whether any term of a node selector matches.
pub fn selects_node(selector: &NodeSelector, node: &Node) -> bool {
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
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_str());
    expressions.iter().all(|e| requirement_holds(label(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
        && fields.iter().all(|e| requirement_holds(field(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
}
