//! Resource quantities.

use api::quantity::{Format, Quantity};

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (function, args) {
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        ("quantity", [Value::String(text)]) => {
            Quantity::parse(text).map(Value::Quantity).map_err(|error| Error::other(error.to_string()))
        }
        ("sign", [Value::Quantity(q)]) => Ok(Value::Int(q.sign().into())),
        ("isInteger", [Value::Quantity(q)]) => Ok(Value::Bool(whole(*q).is_some())),
        ("asInteger", [Value::Quantity(q)]) => {
            whole(*q).map(Value::Int).ok_or_else(|| Error::other("cannot convert value to integer"))
        }
        ("asApproximateFloat", [Value::Quantity(q)]) => Ok(Value::Double(float(*q))),
        ("isGreaterThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Bool(a > b)),
        ("isLessThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Bool(a < b)),
        ("compareTo", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Int(a.cmp(b) as i64)),
        ("add", [Value::Quantity(a), b]) => number(b).map(|b| Value::Quantity(a.plus(b))),
        ("sub", [Value::Quantity(a), b]) => number(b).map(|b| Value::Quantity(a.minus(b))),
        _ => return None,
    })
}

fn number(value: &Value) -> Result<Quantity, Error> {
    match value {
        Value::Quantity(quantity) => Ok(*quantity),
        Value::Int(i) => Ok(Quantity::new(*i, Format::DecimalSi)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn whole(quantity: Quantity) -> Option<i64> {
    // A saturated value does not come back as the same quantity.
    let value = quantity.value();
    (quantity.is_integer() && Quantity::new(value, Format::DecimalSi) == quantity).then_some(value)
}

fn float(quantity: Quantity) -> f64 {
    whole(quantity).map_or_else(|| quantity.milli_value() as f64 / 1000.0, |value| value as f64)
}
