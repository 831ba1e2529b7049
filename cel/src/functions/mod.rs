//! The libraries: one file each, and what calls cost.

pub mod convert;
mod cost;
pub mod format;
mod lists;
pub mod network;
mod quantity;
pub mod regex;
pub mod semver;
mod strings;
mod text_format;
mod time;
pub mod url;

pub use cost::cost;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

type Library = fn(&str, &[Value]) -> Option<Outcome>;

const LIBRARIES: &[Library] = &[
    strings::call,
    lists::call,
    convert::call,
    regex::call,
    time::call,
    quantity::call,
    network::call,
    url::call,
    semver::call,
    format::call,
];

pub fn call(function: &str, args: &[Value]) -> Outcome {
    if let Some((Value::Host(host), args)) = args.split_first() {
        return host.call(function, args);
    }
    match optionals(function, args) {
        Some(result) => result,
        None => LIBRARIES.iter().find_map(|library| library(function, args)).unwrap_or(Err(Error::NoSuchOverload)),
    }
}

fn optionals(function: &str, args: &[Value]) -> Option<Outcome> {
    Some(Ok(match (function, args) {
        ("optional.of", [value]) => Value::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => Value::non_zero(value),
        ("optional.none", []) => Value::Optional(None),
        ("hasValue", [Value::Optional(inner)]) => Value::Bool(inner.is_some()),
        ("value", [Value::Optional(inner)]) => match inner {
            Some(inner) => (**inner).clone(),
            None => return Some(Err(Error::other("optional.none() dereference"))),
        },
        _ => return None,
    }))
}

/// The value that a function (`quantity`, `semver`) makes of a text, for embedders.
pub fn convert_text(function: &str, text: &str) -> Outcome {
    call(function, &[Value::text(text)])
}
