//! `FieldsV1`, the wire form of a set: nested objects keyed by step, `.` marking a path that has others below it.
//! Reading is lenient as upstream's: unknown kinds of step are skipped. Writing is canonical.

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;

/// Nesting accepted from a client.
const MAX_DEPTH: usize = 128;

const SELF: &str = ".";

/// Reads a set. Null and absent are the empty set.
pub(super) fn parse(fields: &Value) -> Result<Set, String> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Object(map) => parse_level(map, 0).map(|(set, _)| set),
        _ => Err("fieldsV1 must be an object".to_owned()),
    }
}

/// The paths below a node, and whether the node itself is a member: it says so, or there is nothing below it.
fn parse_level(map: &Map<String, Value>, depth: usize) -> Result<(Set, bool), String> {
    if depth > MAX_DEPTH {
        return Err(format!("fieldsV1 is nested deeper than {MAX_DEPTH} levels"));
    }
    let mut set = Set::default();
    let mut is_member = false;
    for (key, value) in map {
        if key == SELF {
            is_member = true;
            continue;
        }
        let Some(element) = Element::parse(key)? else { continue };
        let (below, child_is_member) = match value {
            Value::Object(map) => parse_level(map, depth + 1)?,
            Value::Null => (Set::default(), true),
            _ => return Err(format!("fieldsV1 has a value that is not an object at {key}")),
        };
        set.push(element, child_is_member, below);
    }
    let is_member = is_member || set.is_empty();
    Ok((set, is_member))
}

/// Writes a set.
pub(super) fn write(set: &Set) -> Value {
    Value::Object(write_level(set, false))
}

fn write_level(set: &Set, mark_self: bool) -> Map<String, Value> {
    let mut map = Map::new();
    if mark_self && !set.is_empty() {
        map.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    for node in &set.nodes {
        let mut key = String::new();
        node.element.write(&mut key);
        map.insert(key, Value::Object(write_level(&node.below, node.is_member)));
    }
    map
}

/// Questions about a set in canonical wire form, answered without parsing it.
pub(super) struct Wire<'a>(pub &'a Value);

impl Wire<'_> {
    /// Is any path of `set` in this one?
    pub fn has_any(&self, set: &Set) -> bool {
        any(self.0, set, &mut String::new())
    }

    /// Are all paths of `set` in this one?
    pub fn has_all(&self, set: &Set) -> bool {
        all(self.0, set, &mut String::new())
    }
}

fn is_member(fields: &Value) -> bool {
    fields.as_object().is_some_and(|map| map.is_empty() || map.contains_key(SELF))
}

fn lookup<'a>(fields: &'a Value, element: &Element, key: &mut String) -> Option<&'a Value> {
    key.clear();
    element.write(key);
    fields.get(key.as_str())
}

fn any(fields: &Value, set: &Set, key: &mut String) -> bool {
    set.nodes.iter().any(|node| {
        lookup(fields, &node.element, key)
            .is_some_and(|found| (node.is_member && is_member(found)) || any(found, &node.below, key))
    })
}

fn all(fields: &Value, set: &Set, key: &mut String) -> bool {
    set.nodes.iter().all(|node| {
        lookup(fields, &node.element, key)
            .is_some_and(|found| (!node.is_member || is_member(found)) && all(found, &node.below, key))
    })
}
