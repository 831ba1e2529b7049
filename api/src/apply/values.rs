//! Equality and order of values as structured-merge-diff has them (numbers compare as numbers whatever their form),
//! and the values that Go's zero structs show where a JSON object has nothing.

use std::cmp::Ordering;
use std::sync::LazyLock;

use serde_json::{Map, Number, Value};

use crate::schema::{Schema, Shape, Zero};

pub(super) static EMPTY_OBJECT: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static EMPTY_TEXT: Value = Value::String(String::new());
static FALSE: Value = Value::Bool(false);
static ZERO: LazyLock<Value> = LazyLock::new(|| Value::from(0));
pub(super) static NULL: Value = Value::Null;

/// What a field that is absent from a typed object holds all the same: upstream's typed objects always have their
/// plain struct fields and the fields without `omitempty`. `None` where absent is absent.
pub(super) fn implied(schema: Schema<'_>) -> Option<&'static Value> {
    match (schema.zero(), schema.shape()) {
        (Zero::Keep | Zero::Drop, _) => None,
        (Zero::Null, _) | (_, Shape::List | Shape::Map | Shape::Any) => Some(&NULL),
        (Zero::Emit, Shape::Object) => Some(&EMPTY_OBJECT),
        (Zero::Emit, Shape::String) => Some(&EMPTY_TEXT),
        (Zero::Emit, Shape::Integer | Shape::Number | Shape::IntOrString) => Some(&ZERO),
        (Zero::Emit, Shape::Boolean) => Some(&FALSE),
    }
}

/// Equality by meaning (upstream's `value.Equals`).
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(l), Value::Number(r)) => l == r || number_order(l, r) == Ordering::Equal,
        (Value::Array(l), Value::Array(r)) => l.len() == r.len() && l.iter().zip(r).all(|(l, r)| equal(l, r)),
        (Value::Object(l), Value::Object(r)) => {
            l.len() == r.len() && l.iter().all(|(key, l)| r.get(key).is_some_and(|r| equal(l, r)))
        }
        _ => left == right,
    }
}

/// A total order (upstream's `value.Compare`): numbers, texts, booleans, lists, maps, null.
pub(super) fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(l), Value::Number(r)) => number_order(l, r),
        (Value::String(l), Value::String(r)) => l.cmp(r),
        (Value::Bool(l), Value::Bool(r)) => l.cmp(r),
        (Value::Array(l), Value::Array(r)) => {
            let first = l.iter().zip(r).map(|(l, r)| order(l, r)).find(|o| o.is_ne());
            first.unwrap_or_else(|| l.len().cmp(&r.len()))
        }
        (Value::Object(l), Value::Object(r)) => map_order(l, r),
        _ => rank(left).cmp(&rank(right)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn map_order(left: &Map<String, Value>, right: &Map<String, Value>) -> Ordering {
    let sorted = |map: &'_ Map<String, Value>| {
        let mut keys: Vec<String> = map.keys().cloned().collect();
        keys.sort();
        keys
    };
    let (left_keys, right_keys) = (sorted(left), sorted(right));
    for (l, r) in left_keys.iter().zip(&right_keys) {
        let by_key = l.cmp(r).then_with(|| order(&left[l], &right[r]));
        if by_key.is_ne() {
            return by_key;
        }
    }
    left_keys.len().cmp(&right_keys.len())
}

fn number_order(left: &Number, right: &Number) -> Ordering {
    if let (Some(l), Some(r)) = (left.as_i64(), right.as_i64()) {
        return l.cmp(&r);
    }
    if let (Some(l), Some(r)) = (left.as_u64(), right.as_u64()) {
        return l.cmp(&r);
    }
    let (l, r) = (left.as_f64().unwrap_or_default(), right.as_f64().unwrap_or_default());
    l.partial_cmp(&r).unwrap_or(Ordering::Equal)
}
