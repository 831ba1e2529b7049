//! Defaults as rows: a field and the value it takes when the writer left it out. Absent and null are the same; decoding
//! has already removed zero values where upstream's types cannot tell them from absence.

use serde_json::{Map, Value};

/// A default value that a `const` table can hold.
#[derive(Clone, Copy)]
pub enum Lit {
    Str(&'static str),
    Int(i64),
    Bool(bool),
    /// `{}`
    Object,
    /// `[text]`
    Strings(&'static [&'static str]),
}

pub type Rows<'a> = &'a [(&'static str, Lit)];

impl Lit {
    fn value(self) -> Value {
        match self {
            Self::Str(s) => s.into(),
            Self::Int(n) => n.into(),
            Self::Bool(b) => b.into(),
            Self::Object => Value::Object(Map::new()),
            Self::Strings(list) => list.iter().copied().map(Value::from).collect(),
        }
    }
}

/// Gives `object` every row it lacks. Anything but an object is left alone.
pub fn fill(object: &mut Value, rows: Rows) {
    let Some(map) = object.as_object_mut() else { return };
    for (field, default) in rows {
        match map.get_mut(*field) {
            None => {
                map.insert((*field).to_owned(), default.value());
            }
            Some(slot) if slot.is_null() => *slot = default.value(),
            Some(_) => {}
        }
    }
}

/// Gives the object at `field` every row it lacks; absent stays absent.
pub fn fill_at(object: &mut Value, field: &str, rows: Rows) {
    if let Some(inner) = object.get_mut(field) {
        fill(inner, rows);
    }
}

/// Runs `change` on the value at `field`, when it is there.
pub fn with(object: &mut Value, field: &str, change: impl FnOnce(&mut Value)) {
    if let Some(inner) = object.get_mut(field).filter(|v| !v.is_null()) {
        change(inner);
    }
}

/// Runs `change` on each item of the list at `field`.
pub fn each(object: &mut Value, field: &str, change: impl FnMut(&mut Value)) {
    if let Some(list) = object.get_mut(field).and_then(Value::as_array_mut) {
        list.iter_mut().for_each(change);
    }
}

/// The text at `field`, empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `field` is there, and not null.
pub fn has(object: &Value, field: &str) -> bool {
    object.get(field).is_some_and(|v| !v.is_null())
}

/// `field` is there with content: not null, `""`, `[]` or `{}`.
pub fn has_content(object: &Value, field: &str) -> bool {
    !super::Place::root(object).field(field).is_empty()
}
