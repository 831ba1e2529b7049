//! Objects as table rows, the form `kubectl get` prints (`pkg/printers/internalversion`). Columns are data of the
//! catalogue; which cell comes from where is a row of data per kind ([`rows`]), with functions where a cell is computed.
//!
//! Cells are those of wide output: a column's priority tells clients which to leave out.

mod age;
mod json_path;
mod kinds;
mod pod;
mod rows;
mod text;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalogue::{Column, Resource};
use crate::meta;

pub use age::{human, since};

/// What a cell function may look at.
#[derive(Clone, Copy)]
struct View<'a> {
    object: &'a Value,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn at(&self, pointer: &str) -> &'a Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }
    /// The text at `pointer`, empty when absent.
    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).as_str().unwrap_or_default()
    }
    fn int(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or(0)
    }
    fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).as_array().map(Vec::as_slice).unwrap_or_default()
    }
    fn age(&self) -> Value {
        since(self.text("/metadata/creationTimestamp"), self.now).into()
    }
}

/// Where a cell comes from.
#[derive(Clone, Copy)]
enum Cell {
    Name,
    Age,
    /// The creation time itself.
    Created,
    /// The text at a pointer, or a fallback.
    Text(&'static str, &'static str),
    Int(&'static str),
    Bool(&'static str, bool),
    /// The number of items or entries at a pointer.
    Count(&'static str),
    One(fn(&View) -> Value),
    Many(fn(&View) -> Vec<Value>),
}

/// The cells of one object, in the order of its resource's columns.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if resource.columns.iter().any(|column| !column.json_path.is_empty()) {
        return custom(&resource.columns, object, now);
    }
    builtin(&resource.group, &resource.plural, object, now)
}

/// The cells of a built-in kind. One without a printer of its own shows its name and its creation time.
fn builtin(group: &str, resource: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let view = View { object, now };
    let mut cells = Vec::new();
    for cell in rows::of(group, resource) {
        match *cell {
            Cell::Name => cells.push(meta::name(object).into()),
            Cell::Age => cells.push(view.age()),
            Cell::Created => cells.push(view.text("/metadata/creationTimestamp").into()),
            Cell::Text(pointer, fallback) => cells.push(view.at(pointer).as_str().unwrap_or(fallback).into()),
            Cell::Int(pointer) => cells.push(view.int(pointer).into()),
            Cell::Bool(pointer, fallback) => cells.push(view.at(pointer).as_bool().unwrap_or(fallback).into()),
            Cell::Count(pointer) => cells.push(text::count(view.at(pointer)).into()),
            Cell::One(cell) => cells.push(cell(&view)),
            Cell::Many(more) => cells.extend(more(&view)),
        }
    }
    cells
}

/// The cells of a custom resource: one per column, each with its path.
fn custom(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    columns.iter().map(|column| json_path::cell(&column.json_path, &column.kind, object, now)).collect()
}

/// The conditions of a row: finished pods are marked, so that clients may leave them out.
pub fn conditions(resource: &Resource, object: &Value) -> Vec<Value> {
    if (resource.group.as_str(), resource.plural.as_str()) != ("", "pods") {
        return Vec::new();
    }
    let (reason, message) = match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

#[cfg(test)]
mod tests;
