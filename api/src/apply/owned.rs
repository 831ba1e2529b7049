//! What an applied object mentions, and its manager therefore owns (upstream's `TypedValue.ToFieldSet`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::typed::{Kind, Type};

/// The set of the leaves, items and undeclared keys of `value`.
pub(super) fn fields(ty: Type<'_>, value: &Value) -> Set {
    visit(ty, value).1
}

/// Whether the place itself is owned, and what is owned below it.
fn visit(ty: Type<'_>, value: &Value) -> (bool, Set) {
    match ty.kind(Some(value)) {
        Kind::Scalar => (true, Set::default()),
        Kind::List if ty.list_rule().is_atomic() => (true, Set::default()),
        Kind::Map if ty.map_is_atomic() => (true, Set::default()),
        Kind::List => (false, value.as_array().map(|items| visit_items(ty, items)).unwrap_or_default()),
        Kind::Map => (false, value.as_object().map(|map| visit_fields(ty, map)).unwrap_or_default()),
    }
}

fn visit_fields(ty: Type<'_>, map: &Map<String, Value>) -> Set {
    let mut set = Set::default();
    let mut names: Vec<&String> = map.keys().collect();
    names.sort();
    for name in names {
        let value = &map[name];
        let (is_owned, below) = visit(ty.member(name).unwrap_or(Type::Deduced), value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let is_key = ty.named_field(name).is_none();
        set.push(Element::field(name), is_owned || is_empty || is_key, below);
    }
    set
}

fn visit_items(ty: Type<'_>, items: &[Value]) -> Set {
    let rule = ty.list_rule();
    let mut by_identity: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = rule.identity(item) {
            by_identity.entry(element).or_default().push(item);
        }
    }
    let mut set = Set::default();
    for (element, items) in by_identity {
        // Of repeated items only their identity is owned.
        let below = if let [one] = items.as_slice() { visit(ty.items(), one).1 } else { Set::default() };
        set.push(element, true, below);
    }
    set
}

/// Makes every declared field that has owned paths below it a member too, so that removing what a manager owned also
/// removes the objects it created (upstream's `EnsureNamedFieldsAreMembers`).
pub(super) fn with_parents(ty: Type<'_>, set: &Set) -> Set {
    let mut out = Set::default();
    for node in &set.nodes {
        let mut is_member = node.is_member;
        let below = match &node.element {
            Element::Field(name) => {
                is_member |= !node.below.is_empty() && ty.named_field(name).is_some();
                with_parents(ty.member(name).unwrap_or(Type::Opaque), &node.below)
            }
            Element::Key(_) => with_parents(ty.items(), &node.below),
            _ => node.below.clone(),
        };
        out.push(node.element.clone(), is_member, below);
    }
    out
}
