//! Takes the paths of a set out of a value (upstream's `TypedValue.RemoveItems`).

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::typed::{Kind, Type};

/// `value` without the paths of `gone`. Containers that lose items below them stay, if only empty.
pub(super) fn remove(ty: Type<'_>, value: &Value, gone: &Set) -> Value {
    if gone.is_empty() { value.clone() } else { visit(ty, value, gone).unwrap_or(Value::Null) }
}

/// What is left of a value that something is removed below of; `None` for nothing.
fn visit(ty: Type<'_>, value: &Value, gone: &Set) -> Option<Value> {
    match (ty.kind(Some(value)), value) {
        (Kind::Scalar, value) => Some(value.clone()),
        (Kind::List, Value::Array(items)) => visit_items(ty, items, gone),
        (Kind::Map, Value::Object(map)) => visit_fields(ty, map, gone),
        _ => None,
    }
}

fn visit_items(ty: Type<'_>, items: &[Value], gone: &Set) -> Option<Value> {
    let rule = ty.list_rule();
    if items.is_empty() || rule.is_atomic() {
        return None;
    }
    let mut left = Vec::with_capacity(items.len());
    let mut keeps_container = false;
    for item in items {
        let node = rule.identity(item).ok().and_then(|element| gone.node(&element));
        match node {
            Some(node) if node.is_member => {}
            Some(node) => {
                keeps_container = true;
                left.push(visit_kept(ty.items(), item, &node.below));
            }
            None => left.push(item.clone()),
        }
    }
    (!left.is_empty() || keeps_container).then_some(Value::Array(left))
}

fn visit_fields(ty: Type<'_>, map: &Map<String, Value>, gone: &Set) -> Option<Value> {
    if map.is_empty() || ty.map_is_atomic() {
        return None;
    }
    let mut left = Map::new();
    let mut keeps_container = false;
    for (name, value) in map {
        match gone.node(&Element::field(name)) {
            Some(node) if node.is_member => {}
            Some(node) => {
                keeps_container = true;
                let member = ty.member(name).unwrap_or(Type::Deduced);
                left.insert(name.clone(), visit_kept(member, value, &node.below));
            }
            None => {
                left.insert(name.clone(), value.clone());
            }
        }
    }
    (!left.is_empty() || keeps_container).then_some(Value::Object(left))
}

/// A value that itself stays: emptied, it is an empty container.
fn visit_kept(ty: Type<'_>, value: &Value, gone: &Set) -> Value {
    visit(ty, value, gone).unwrap_or_else(|| match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}
