//! Field sets that were written under an older schema: where a list or map has become atomic since, whoever owned
//! something below it now owns it as a whole (upstream's `ReconcileFieldSetWithSchema`).

use serde_json::Value;

use super::element::Element;
use super::set::Set;
use super::typed::{Kind, Type};

fn is_atomic(ty: Type<'_>) -> bool {
    match ty.kind(None) {
        Kind::Map => ty.map_is_atomic(),
        Kind::List => ty.list_rule().is_atomic(),
        Kind::Scalar => false,
    }
}

fn child<'a>(ty: Type<'a>, is_field: Option<&str>) -> Option<Type<'a>> {
    match is_field {
        Some(name) => ty.member(name),
        None => Some(ty.items()),
    }
}

/// Does the set, in wire form, own something below a place that is atomic?
pub(super) fn is_stale(ty: Type<'_>, fields: &Value) -> bool {
    if matches!(ty, Type::Deduced) {
        return false;
    }
    let children = fields.as_object().into_iter().flatten();
    children.filter(|(key, _)| key.as_str() != ".").any(|(key, below)| {
        let has_children = below.as_object().is_some_and(|map| map.keys().any(|key| key != "."));
        has_children
            && child(ty, key.strip_prefix("f:")).is_some_and(|child| is_atomic(child) || is_stale(child, below))
    })
}

/// The set as the schema now has it.
pub(super) fn reconcile(ty: Type<'_>, set: &Set) -> Set {
    if matches!(ty, Type::Deduced) {
        return set.clone();
    }
    let mut out = Set::default();
    for node in &set.nodes {
        let name = match &node.element {
            Element::Field(name) => Some(&**name),
            _ => None,
        };
        let (is_member, below) = match child(ty, name) {
            Some(child) if !node.below.is_empty() && is_atomic(child) => (true, Set::default()),
            Some(child) => (node.is_member, reconcile(child, &node.below)),
            None => (node.is_member, node.below.clone()),
        };
        out.push(node.element.clone(), is_member, below);
    }
    out
}
