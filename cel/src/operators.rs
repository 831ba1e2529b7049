//! Operators: arithmetic that fails instead of wrapping, comparison across number types, indexing and membership.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::{Key, List, Value};

/// The bytes that concatenation may make; an expression can double a text only so often.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Likewise for lists.
const ITEMS_MAX: usize = 1 << 20;

/// The result if it is an operator.
pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (function, args) {
        ("!_", [Value::Bool(b)]) => Ok(Value::Bool(!b)),
        ("-_", [Value::Int(i)]) => i.checked_neg().map(Value::Int).ok_or_else(overflow),
        ("-_", [Value::Double(d)]) => Ok(Value::Double(-d)),
        ("_==_", [a, b]) => Ok(Value::Bool(a == b)),
        ("_!=_", [a, b]) => Ok(Value::Bool(a != b)),
        ("_<_", [a, b]) => compare(a, b, Ordering::is_lt),
        ("_<=_", [a, b]) => compare(a, b, Ordering::is_le),
        ("_>_", [a, b]) => compare(a, b, Ordering::is_gt),
        ("_>=_", [a, b]) => compare(a, b, Ordering::is_ge),
        ("_+_", [a, b]) => plus(a, b),
        ("_-_", [a, b]) => minus(a, b),
        ("_*_" | "_/_" | "_%_", [a, b]) => scale(function, a, b),
        ("@in", [item, Value::List(list)]) => Ok(Value::Bool(list.items.contains(item))),
        ("@in", [item, Value::Map(map)]) => {
            Ok(Value::Bool(Key::of(item).is_some_and(|key| map.entries.contains_key(&key))))
        }
        ("_[_]", [container, index]) => at(container, index),
        ("_[?_]", [container, index]) => optional_at(container, index),
        _ => return None,
    })
}

fn overflow() -> Error {
    Error::other("integer overflow")
}

fn compare(a: &Value, b: &Value, test: fn(Ordering) -> bool) -> Outcome {
    // A number that is none compares false with everything.
    if [a, b].iter().any(|value| matches!(value, Value::Double(d) if d.is_nan())) {
        return Ok(Value::Bool(false));
    }
    order(a, b).map(|found| Value::Bool(test(found))).ok_or(Error::NoSuchOverload)
}

fn mixed(double: f64, whole: i128) -> Option<Ordering> {
    // Beyond these no whole number of 64 bits is.
    if double >= 2e19 {
        return Some(Ordering::Greater);
    }
    if double <= -2e19 {
        return Some(Ordering::Less);
    }
    if double.is_nan() {
        return None;
    }
    let floor = double.floor();
    Some((floor as i128).cmp(&whole).then(if double > floor { Ordering::Greater } else { Ordering::Equal }))
}

/// How two values of an ordered type stand to each other.
pub fn order(a: &Value, b: &Value) -> Option<Ordering> {
    Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Int(a), Value::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Uint(a), Value::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b)?,
        (Value::Double(a), Value::Int(b)) => mixed(*a, i128::from(*b))?,
        (Value::Double(a), Value::Uint(b)) => mixed(*a, i128::from(*b))?,
        (Value::Int(a), Value::Double(b)) => mixed(*b, i128::from(*a))?.reverse(),
        (Value::Uint(a), Value::Double(b)) => mixed(*b, i128::from(*a))?.reverse(),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => return None,
    })
}

fn plus(a: &Value, b: &Value) -> Outcome {
    let too_long = || Error::other("the result is too long");
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_add(*b).map(Value::Uint).ok_or_else(|| Error::other("unsigned integer overflow"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) if a.len() + b.len() <= TEXT_BYTES_MAX => {
            Ok(Value::text(format!("{a}{b}")))
        }
        (Value::Bytes(a), Value::Bytes(b)) if a.len() + b.len() <= TEXT_BYTES_MAX => {
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) if a.items.len() + b.items.len() <= ITEMS_MAX => {
            Ok(Value::List(Arc::new(a.plus(b))))
        }
        (Value::String(_), Value::String(_))
        | (Value::Bytes(_), Value::Bytes(_))
        | (Value::List(_), Value::List(_)) => Err(too_long()),
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => shift(*t, *d),
        _ => Err(Error::NoSuchOverload),
    }
}

fn shift(time: jiff::Timestamp, nanos: i64) -> Outcome {
    let shifted = time.checked_add(jiff::SignedDuration::from_nanos(nanos));
    shifted.map(Value::Timestamp).map_err(|_| Error::other("timestamp overflow"))
}

fn minus(a: &Value, b: &Value) -> Outcome {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_sub(*b).map(Value::Uint).ok_or_else(|| Error::other("unsigned integer overflow"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) => shift(*t, d.checked_neg().ok_or_else(overflow)?),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.duration_since(*b).as_nanos();
            i64::try_from(nanos).map(Value::Duration).map_err(|_| overflow())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn scale(function: &str, a: &Value, b: &Value) -> Outcome {
    let zero = || Error::other(if function == "_%_" { "modulus by zero" } else { "division by zero" });
    match (function, a, b) {
        ("_/_" | "_%_", Value::Int(_), Value::Int(0)) | ("_/_" | "_%_", Value::Uint(_), Value::Uint(0)) => Err(zero()),
        ("_*_", Value::Int(a), Value::Int(b)) => a.checked_mul(*b).map(Value::Int).ok_or_else(overflow),
        ("_/_", Value::Int(a), Value::Int(b)) => a.checked_div(*b).map(Value::Int).ok_or_else(overflow),
        ("_%_", Value::Int(a), Value::Int(b)) => a.checked_rem(*b).map(Value::Int).ok_or_else(overflow),
        ("_*_", Value::Uint(a), Value::Uint(b)) => {
            a.checked_mul(*b).map(Value::Uint).ok_or_else(|| Error::other("unsigned integer overflow"))
        }
        ("_/_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        ("_%_", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn position(list: &List, index: &Value) -> Option<usize> {
    match Key::of(index)? {
        Key::Int(index) => usize::try_from(index).ok().filter(|index| *index < list.items.len()),
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    Key::of(value).map_or_else(|| value.type_name().to_owned(), |key| key.to_string())
}

fn at(container: &Value, index: &Value) -> Outcome {
    match container {
        Value::List(list) => match position(list, index) {
            Some(position) => Ok(list.items[position].clone()),
            None => Err(Error::other(format!("index out of bounds: {}", shown(index)))),
        },
        Value::Map(map) => {
            let found = Key::of(index).and_then(|key| map.entries.get(&key));
            found.or(map.default.as_ref()).cloned().ok_or_else(|| Error::NoSuchKey(shown(index)))
        }
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_at(inner, index),
        _ => Err(Error::NoSuchOverload),
    }
}

fn optional_at(container: &Value, index: &Value) -> Outcome {
    let found = match container {
        Value::List(list) => position(list, index).map(|position| list.items[position].clone()),
        Value::Map(map) => Key::of(index).and_then(|key| map.entries.get(&key).cloned()),
        Value::Optional(None) => None,
        Value::Optional(Some(inner)) => return optional_at(inner, index),
        _ => return Err(Error::NoSuchOverload),
    };
    Ok(Value::Optional(found.map(Arc::new)))
}
