//! Values as Go prints them with `%v`, and Go's names of JSON types: upstream's messages quote both, and clients
//! match on the messages.

use std::fmt::Write;

use serde_json::Value;

/// Nesting printed before the rest is cut, so that a hostile patch cannot make a message grow without bound.
const MAX_DEPTH: usize = 16;
/// Longest quoted value, in bytes.
const MAX_LEN: usize = 4096;

/// `fmt.Sprintf("%v", value)` of the value decoded into `interface{}`.
pub(crate) fn value(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    if out.len() > MAX_LEN {
        let cut = (0..=MAX_LEN).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(cut);
        out.push_str("...");
    }
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    if depth > MAX_DEPTH || out.len() > MAX_LEN {
        out.push_str("...");
        return;
    }
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_value(out, item, depth + 1);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push_str("map[");
            for (i, key) in keys.into_iter().enumerate() {
                let separator = if i > 0 { " " } else { "" };
                // Writing to a String cannot fail.
                write!(out, "{separator}{key}:").expect("String never refuses");
                write_value(out, &map[key], depth + 1);
            }
            out.push(']');
        }
        scalar => write!(out, "{scalar}").expect("String never refuses"),
    }
}

/// The name of the Go type a JSON value decodes to.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What `encoding/json` calls a JSON value in `cannot unmarshal X into ...`.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
