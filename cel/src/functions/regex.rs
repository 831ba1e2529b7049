//! Patterns. A pattern is compiled once per thread while it is used; its size is bounded.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

/// Bytes of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Nesting of a pattern.
const NESTING_MAX: u32 = 100;
/// Compiled patterns that a thread keeps.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<HashMap<String, Regex>> = RefCell::default();
}

pub fn compile(pattern: &str) -> Result<Regex, Error> {
    if let Some(found) = KEPT.with_borrow(|kept| kept.get(pattern).cloned()) {
        return Ok(found);
    }
    let compiled = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).nest_limit(NESTING_MAX).build();
    let compiled = compiled.map_err(|error| Error::other(format!("error parsing regexp: {error}")))?;
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), compiled.clone());
    });
    Ok(compiled)
}

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (function, args) {
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            compile(pattern).map(|pattern| Value::Bool(pattern.is_match(text)))
        }
        ("find", [Value::String(text), Value::String(pattern)]) => {
            compile(pattern).map(|pattern| Value::text(pattern.find(text).map_or("", |found| found.as_str())))
        }
        ("findAll", [Value::String(text), Value::String(pattern)]) => find_all(text, pattern, -1),
        ("findAll", [Value::String(text), Value::String(pattern), Value::Int(count)]) => {
            find_all(text, pattern, *count)
        }
        _ => return None,
    })
}

fn find_all(text: &str, pattern: &str, count: i64) -> Outcome {
    let pattern = compile(pattern)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Value::list(pattern.find_iter(text).take(count).map(|found| Value::text(found.as_str())).collect()))
}
