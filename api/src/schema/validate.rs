//! Values against a custom resource's schema: what upstream's `apiextensions-apiserver` validates by OpenAPI, in its
//! order and words, and the uniqueness of sets and maps in lists. Rules in CEL are not evaluated here.

use std::collections::HashSet;

use serde_json::Value;

use super::formats;
use super::rules::Rules;
use super::{ListType, Schema, Shape};
use crate::field::{Error, ErrorKind};

/// All violations. Depth is bounded by the depth that decoding admits.
pub fn validate(schema: Schema<'_>, object: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    check(schema, object, "", &mut errors);
    if errors.is_empty() {
        check_lists(schema, object, "", &mut errors);
    }
    errors
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// JSON's word for a value's type.
fn type_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if is_whole(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 9e15)
}

/// The type a schema demands, as messages name it; none when it demands none.
fn demanded(schema: Schema<'_>) -> Option<&'static str> {
    Some(match schema.shape() {
        Shape::Object | Shape::Map => "object",
        Shape::List => "array",
        Shape::String => "string",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::IntOrString if schema.is_quantity() => return None,
        Shape::IntOrString => "integer,string",
        Shape::Any => return None,
    })
}

fn has_demanded_type(schema: Schema<'_>, value: &Value) -> bool {
    let Some(demanded) = demanded(schema) else { return true };
    let is = type_word(value);
    demanded.split(',').any(|d| d == is) || (demanded == "number" && is == "integer")
}

fn check(schema: Schema<'_>, value: &Value, path: &str, errors: &mut Vec<Error>) {
    if value.is_null() && (schema.nullable() || !schema.is_structural()) {
        return;
    }
    if !has_demanded_type(schema, value) {
        let (is, demanded) = (type_word(value), demanded(schema).unwrap_or_default());
        let message = format!("{path} in body must be of type {demanded}: {is:?}");
        errors.push(Error::new(ErrorKind::TypeInvalid, path, is, message));
        return;
    }
    let rules = schema.rules();
    if let Some(rules) = rules {
        check_combinations(schema, rules, value, path, errors);
    }
    match value {
        Value::String(text) => {
            if let Some(format) = schema.format().filter(|f| !formats::matches(f, text)) {
                let message = format!("{path} in body must be of type {format}: {text:?}");
                errors.push(Error::new(ErrorKind::TypeInvalid, path, text.as_str(), message));
            }
            rules.inspect(|r| check_text(r, text, path, errors));
        }
        Value::Number(number) => {
            rules.inspect(|r| check_number(r, number.as_f64().unwrap_or_default(), value, path, errors));
        }
        Value::Array(items) => {
            rules.inspect(|r| check_count(r, items.len(), path, errors));
            for (at, item) in items.iter().enumerate() {
                if let Some(schema) = schema.items() {
                    check(schema, item, &format!("{path}[{at}]"), errors);
                }
            }
        }
        Value::Object(map) => {
            rules.inspect(|r| check_properties(r, map.len(), path, errors));
            for name in schema.required().filter(|name| !map.contains_key(*name)) {
                errors.push(Error::required(child(path, name), ""));
            }
            if schema.is_embedded_resource() {
                for name in ["apiVersion", "kind"].iter().filter(|n| !map.contains_key(**n)) {
                    errors.push(Error::required(child(path, name), ""));
                }
            }
            for (name, member) in map {
                if let Some(schema) = schema.member(name) {
                    check(schema, member, &child(path, name), errors);
                }
            }
        }
        _ => {}
    }
    if let Some(rules) = rules.filter(|r| !r.choices.is_empty() && !r.choices.contains(value)) {
        let shown: Vec<String> = rules.choices.iter().map(plain).collect();
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        errors.push(Error::not_supported(path, value.clone(), &shown));
    }
}

/// Texts as they are, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn invalid(errors: &mut Vec<Error>, path: &str, value: impl Into<Value>, what: &str) {
    errors.push(Error::invalid(path, value, format!("{path} in body {what}")));
}

fn check_text(rules: &Rules, text: &str, path: &str, errors: &mut Vec<Error>) {
    let length = text.chars().count() as u64;
    if let Some(max) = rules.max_length.filter(|max| length > *max) {
        errors.push(Error::new(ErrorKind::TooLong, path, text, format!("may not be more than {max} bytes")));
    }
    if let Some(min) = rules.min_length.filter(|min| length < *min) {
        invalid(errors, path, text, &format!("should be at least {min} chars long"));
    }
    if let Some(pattern) = rules.pattern.as_ref().filter(|p| !p.is_match(text)) {
        invalid(errors, path, text, &format!("should match '{pattern}'"));
    }
}

fn check_number(rules: &Rules, number: f64, value: &Value, path: &str, errors: &mut Vec<Error>) {
    if let Some(factor) = rules.multiple_of {
        let times = number / factor;
        if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
            invalid(errors, path, value.clone(), &format!("should be a multiple of {factor}"));
        }
    }
    if let Some(max) = rules.maximum {
        if rules.exclusive_maximum && number >= max {
            invalid(errors, path, value.clone(), &format!("should be less than {max}"));
        } else if number > max {
            invalid(errors, path, value.clone(), &format!("should be less than or equal to {max}"));
        }
    }
    if let Some(min) = rules.minimum {
        if rules.exclusive_minimum && number <= min {
            invalid(errors, path, value.clone(), &format!("should be greater than {min}"));
        } else if number < min {
            invalid(errors, path, value.clone(), &format!("should be greater than or equal to {min}"));
        }
    }
}

fn too_many(errors: &mut Vec<Error>, path: &str, count: usize, max: u64) {
    let message = format!("{count}: must have at most {max} items");
    errors.push(Error::new(ErrorKind::TooMany, path, count, message));
}

fn check_count(rules: &Rules, count: usize, path: &str, errors: &mut Vec<Error>) {
    if let Some(min) = rules.min_items.filter(|min| (count as u64) < *min) {
        invalid(errors, path, count, &format!("should have at least {min} items"));
    }
    if let Some(max) = rules.max_items.filter(|max| count as u64 > *max) {
        too_many(errors, path, count, max);
    }
}

fn check_properties(rules: &Rules, count: usize, path: &str, errors: &mut Vec<Error>) {
    if let Some(min) = rules.min_properties.filter(|min| (count as u64) < *min) {
        invalid(errors, path, count, &format!("should have at least {min} properties"));
    }
    if let Some(max) = rules.max_properties.filter(|max| count as u64 > *max) {
        too_many(errors, path, count, max);
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`. Upstream's errors for these stand at no path.
fn check_combinations(schema: Schema<'_>, rules: &Rules, value: &Value, path: &str, errors: &mut Vec<Error>) {
    let outcome = |node: &u32| {
        let mut found = Vec::new();
        check(schema.schemas.node(*node), value, path, &mut found);
        found
    };
    let refuse = |what: &str| Error::invalid("<nil>", "", format!("{path:?} {what}"));
    if !rules.any_of.is_empty() {
        let outcomes: Vec<Vec<Error>> = rules.any_of.iter().map(outcome).collect();
        if outcomes.iter().all(|o| !o.is_empty()) {
            errors.push(refuse("must validate at least one schema (anyOf)"));
            errors.extend(outcomes.into_iter().next().unwrap_or_default());
        }
    }
    if !rules.one_of.is_empty() {
        let outcomes: Vec<Vec<Error>> = rules.one_of.iter().map(outcome).collect();
        match outcomes.iter().filter(|o| o.is_empty()).count() {
            1 => {}
            0 => {
                errors.push(refuse("must validate one and only one schema (oneOf). Found none valid"));
                errors.extend(outcomes.into_iter().next().unwrap_or_default());
            }
            valid => errors.push(refuse(&format!(
                "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
            ))),
        }
    }
    if !rules.all_of.is_empty() {
        let outcomes: Vec<Vec<Error>> = rules.all_of.iter().map(outcome).collect();
        let valid = outcomes.iter().filter(|o| o.is_empty()).count();
        errors.extend(outcomes.into_iter().flatten());
        if valid != rules.all_of.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            errors.push(refuse(&format!("must validate all the schemas (allOf){more}")));
        }
    }
    if rules.not.as_ref().is_some_and(|not| outcome(not).is_empty()) {
        errors.push(refuse("must not validate the schema (not)"));
    }
}

/// Sets hold no value twice; maps in lists hold no combination of keys twice.
fn check_lists(schema: Schema<'_>, value: &Value, path: &str, errors: &mut Vec<Error>) {
    match value {
        Value::Array(items) => {
            let mut seen = HashSet::new();
            for (at, item) in items.iter().enumerate() {
                let key = match schema.list_type() {
                    ListType::Atomic => break,
                    ListType::Set => item.clone(),
                    ListType::Map => map_keys(schema, item),
                };
                if !seen.insert(key.to_string()) {
                    errors.push(Error::duplicate(format!("{path}[{at}]"), key));
                }
            }
            for (at, item) in items.iter().enumerate() {
                if let Some(schema) = schema.items() {
                    check_lists(schema, item, &format!("{path}[{at}]"), errors);
                }
            }
        }
        Value::Object(map) => {
            for (name, member) in map {
                if let Some(schema) = schema.member(name) {
                    check_lists(schema, member, &child(path, name), errors);
                }
            }
        }
        _ => {}
    }
}

/// The key fields of an item, with defaults for those that are absent.
fn map_keys(schema: Schema<'_>, item: &Value) -> Value {
    let keys = schema.list_map_keys().filter_map(|key| {
        let default = || schema.items().and_then(|i| i.field(key)).and_then(Schema::default);
        item.get(key).or_else(default).map(|v| (key.to_owned(), v.clone()))
    });
    Value::Object(keys.collect())
}
