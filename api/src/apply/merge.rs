//! Merges what a manager applies into the live object (upstream's `TypedValue.Merge`): nothing is removed, the applied
//! value of a leaf wins, and lists with identities keep the live order until the applied one says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::typed::{Kind, ListRule, Type};
use super::values;

/// Merges `config` into `live`. `config` was checked against the schema.
pub(super) fn merge(ty: Type<'_>, live: &Value, config: &Value) -> Value {
    visit(ty, Some(live), Some(config)).unwrap_or_default()
}

/// The merged value; `None` when nothing is left to say.
fn visit(ty: Type<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let either = config.or(live)?;
    match ty.kind(Some(either)) {
        Kind::Scalar => Some(either.clone()),
        Kind::List => {
            let items = |value: Option<&'_ Value>| value.and_then(Value::as_array).map_or(0, Vec::len);
            if ty.list_rule().is_atomic() || (items(live) == 0 && items(config) == 0) {
                return Some(either.clone());
            }
            let merged = visit_items(ty, list_of(live), list_of(config));
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        Kind::Map => {
            let (l, c) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if ty.map_is_atomic() || (l.is_none_or(Map::is_empty) && c.is_none_or(Map::is_empty)) {
                return Some(either.clone());
            }
            let merged = visit_fields(ty, l, c);
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
    }
}

fn list_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn visit_fields(
    ty: Type<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut out = live.cloned().unwrap_or_default();
    for (name, value) in config.into_iter().flatten() {
        let member = ty.member(name).unwrap_or(Type::Deduced);
        match visit(member, live.and_then(|map| map.get(name)), Some(value)) {
            Some(merged) => out.insert(name.clone(), merged),
            None => out.remove(name),
        };
    }
    out
}

/// The live list and its identities; repeated items have none to be merged with.
struct Items<'a> {
    identities: Vec<Element>,
    by_identity: BTreeMap<Element, &'a Value>,
}

impl<'a> Items<'a> {
    fn new(rule: ListRule<'_>, items: &'a [Value]) -> (Self, Vec<&'a Value>) {
        let mut identities = Vec::with_capacity(items.len());
        let mut kept = Vec::with_capacity(items.len());
        let mut by_identity = BTreeMap::new();
        for item in items {
            let Ok(element) = rule.identity(item) else { continue };
            by_identity.entry(element.clone()).and_modify(|found| *found = &values::NULL).or_insert(item);
            identities.push(element);
            kept.push(item);
        }
        (Self { identities, by_identity }, kept)
    }
}

/// Walks both lists at once. Items of both lists are taken where the config has them; live items before the next such
/// item stay before it.
fn visit_items(ty: Type<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let rule = ty.list_rule();
    let (live, live_items) = Items::new(rule, live);
    let (config, _) = Items::new(rule, config);
    let mut out = Vec::with_capacity(live.identities.len().max(config.identities.len()));
    let merged_item = |element: &Element| {
        visit(ty.items(), live.by_identity.get(element).copied(), config.by_identity.get(element).copied())
    };
    let is_shared = |element: &&Element| live.by_identity.contains_key(element);
    let mut shared = config.identities.iter().filter(is_shared).peekable();
    let mut taken: BTreeSet<&Element> = BTreeSet::new();

    let (mut l, mut c) = (0, 0);
    while l < live.identities.len() || c < config.identities.len() {
        if let (Some(live_item), Some(config_item)) = (live.identities.get(l), config.identities.get(c)) {
            if live_item == config_item {
                out.extend(merged_item(config_item));
                taken.insert(config_item);
                (l, c) = (l + 1, c + 1);
                shared.next();
                continue;
            }
            let is_other_shared = config.by_identity.contains_key(live_item);
            if is_other_shared && shared.peek().is_some_and(|next| *next != live_item) {
                // Shared, but not the one whose turn it is.
                l += 1;
                continue;
            }
        }
        if let Some(live_item) = live.identities.get(l) {
            if !config.by_identity.contains_key(live_item) {
                out.extend(visit(ty.items(), Some(live_items[l]), None));
                l += 1;
                continue;
            }
            if taken.contains(live_item) {
                l += 1;
            }
        }
        if let Some(config_item) = config.identities.get(c) {
            out.extend(merged_item(config_item));
            taken.insert(config_item);
            c += 1;
            shared.next_if(|next| *next == config_item);
        }
    }
    out
}
