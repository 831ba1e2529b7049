//! A pod held back by scheduling gates may still narrow where it can run: more node selectors, more requirements
//! (`validateNodeSelectorMutation`, `validateNodeAffinityMutation`).

use serde_json::Value;

use crate::strategy::place::{Errors, Place};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Checks the changes of node selector and node affinity, and undoes them in `spec`.
pub fn changes(spec: &mut Value, new: &Place, old: &Place, errors: &mut Errors) {
    let (now, before) = (new.field("nodeSelector"), old.field("nodeSelector"));
    if !now.same(&before) {
        if before.entries().any(|(key, value)| now.value.get(key) != Some(value.value)) {
            errors.push(now.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)"));
        }
        spec["nodeSelector"] = before.value.clone();
    }
    let (affinity, old_affinity) = (new.field("affinity"), old.field("affinity"));
    let (now, before) = (affinity.field("nodeAffinity"), old_affinity.field("nodeAffinity"));
    if now.same(&before) {
        return;
    }
    terms(&now.field(REQUIRED), &before.field(REQUIRED), errors);
    let only_node = affinity.entries().all(|(kind, v)| kind == "nodeAffinity" || !v.is_set());
    if !old_affinity.is_set() && only_node {
        spec["affinity"] = Value::Null;
    } else {
        spec["affinity"]["nodeAffinity"] = before.value.clone();
    }
}

fn terms(new: &Place, old: &Place, errors: &mut Errors) {
    let (now, before) = (new.field("nodeSelectorTerms"), old.field("nodeSelectorTerms"));
    if before.is_empty() {
        return;
    }
    if now.list().len() != before.list().len() {
        errors.push(now.invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed"));
        return;
    }
    for (term, old_term) in now.items().zip(before.items()) {
        if !only_adds(&term, &old_term) {
            errors.push(term.invalid("only additions are allowed (no mutations or deletions)"));
        }
    }
}

fn only_adds(new: &Place, old: &Place) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    // A term without requirements matches nothing; adding some would widen it.
    if LISTS.iter().all(|list| old.field(list).is_empty()) {
        return LISTS.iter().all(|list| new.field(list).is_empty());
    }
    LISTS.iter().all(|list| new.field(list).list().starts_with(old.field(list).list()))
}
