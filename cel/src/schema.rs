//! Structural schemas of custom resources as types, and values read by them: whole numbers as doubles where the schema
//! says so, times and durations, escaped names of fields, the comparison of lists (`SchemaDeclType`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::functions::convert;
use crate::json::{from_base64, from_number};
use crate::parser::RESERVED;
use crate::types::{Object, Type};
use crate::value::{Key, List, ListKind, Map, Value};

/// Bytes of the largest request, which bound what has no bound of its own.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Words that need escaping as names of fields beside those that are reserved.
const LITERALS: [&str; 4] = ["true", "false", "null", "in"];

/// A type with the bytes its shortest JSON has.
struct Declared {
    ty: Type,
    least: u64,
}

/// The type of what a schema describes; `None` where rules see nothing of it.
pub fn type_of(schema: &Json, is_root: bool) -> Option<Type> {
    declared(schema, is_root).map(|declared| declared.ty)
}

fn is_set(schema: &Json, flag: &str) -> bool {
    schema[flag].as_bool().unwrap_or(false)
}

fn is_embedded(schema: &Json) -> bool {
    is_set(schema, "x-kubernetes-embedded-resource")
}

fn declared(schema: &Json, is_root: bool) -> Option<Declared> {
    let max = |field: &str| schema[field].as_u64();
    if is_set(schema, "x-kubernetes-int-or-string") {
        let bound = max("maxLength").map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
        return Some(Declared { ty: Type::Dyn.sized(Some(bound)), least: 1 });
    }
    match schema["type"].as_str().unwrap_or(if is_root { "object" } else { "" }) {
        "array" => {
            let items = declared(&schema["items"], is_embedded(&schema["items"]))?;
            let bound = max("maxItems").unwrap_or((REQUEST_BYTES_MAX - 2) / (items.least + 1));
            Some(Declared { ty: Type::list(items.ty).sized(Some(bound)), least: 2 })
        }
        "object" if schema["additionalProperties"].is_object() => {
            let values = &schema["additionalProperties"];
            let values = declared(values, is_embedded(values))?;
            let bound = max("maxProperties").unwrap_or((REQUEST_BYTES_MAX - 2) / (values.least + 6));
            Some(Declared { ty: Type::map(Type::String, values.ty).sized(Some(bound)), least: 2 })
        }
        "object" => Some(object(schema, is_root)),
        "string" => Some(string(schema)),
        "boolean" => Some(Declared { ty: Type::Bool, least: 4 }),
        "number" => Some(Declared { ty: Type::Double, least: 1 }),
        "integer" => Some(Declared { ty: Type::Int, least: 1 }),
        _ => None,
    }
}

fn string(schema: &Json) -> Declared {
    let max_length = schema["maxLength"].as_u64();
    let sized = |ty: Type, max: u64, least: u64| Declared { ty: ty.sized(Some(max)), least };
    match schema["format"].as_str() {
        Some("byte") => sized(Type::Bytes, max_length.unwrap_or(REQUEST_BYTES_MAX - 2), 2),
        Some("duration") => sized(Type::Duration, 32, 4),
        Some("date") => sized(Type::Timestamp, 12, 12),
        Some("date-time") => sized(Type::Timestamp, 37, 21),
        _ => {
            let longest = schema["enum"]
                .as_array()
                .map(|values| values.iter().filter_map(Json::as_str).map(|text| text.len() as u64).max().unwrap_or(0));
            let bound = max_length.map(|max| max.saturating_mul(4)).or(longest).unwrap_or(REQUEST_BYTES_MAX - 2);
            sized(Type::String, bound, 2)
        }
    }
}

fn object(schema: &Json, is_root: bool) -> Declared {
    let mut fields = BTreeMap::new();
    let mut least = 2;
    let required = |name: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|r| r == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(field) = declared(property, is_embedded(property)) else { continue };
        if required(name) && property.get("default").is_none() {
            least += name.len() as u64 + field.least + 4;
        }
        if let Some(name) = escape(name) {
            fields.insert(Arc::from(name), field.ty);
        }
    }
    if is_root {
        let text = || Type::String.sized(Some(REQUEST_BYTES_MAX - 2));
        fields.insert("kind".into(), text());
        fields.insert("apiVersion".into(), text());
        fields.insert("metadata".into(), Type::object("object", [("name", text()), ("generateName", text())]));
    }
    Declared { ty: Type::Object(Arc::new(Object { name: "object".into(), fields })), least }
}

/// A field's name as expressions write it; `None` if they can't (`apiservercel.Escape`).
pub fn escape(name: &str) -> Option<String> {
    if LITERALS.contains(&name) || RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
        return None;
    }
    let escaped = name.replace("__", "__underscores__");
    Some(escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// The value of what a schema describes.
pub fn value_of(json: &Json, schema: &Json, is_root: bool) -> Value {
    if is_set(schema, "x-kubernetes-int-or-string") {
        return Value::from_json(json);
    }
    match (json, schema["type"].as_str()) {
        (Json::Number(number), Some("number")) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        (Json::Number(number), _) => from_number(number),
        (Json::String(text), _) => string_value(text, schema),
        (Json::Array(items), _) if schema["items"].is_object() => {
            let item_schema = &schema["items"];
            let embedded = is_embedded(item_schema);
            let items = items.iter().map(|item| value_of(item, item_schema, embedded)).collect();
            Value::List(Arc::new(List { items, kind: list_kind(schema) }))
        }
        (Json::Object(fields), _) => {
            let entries = match schema["additionalProperties"].as_object() {
                Some(_) => {
                    let values = &schema["additionalProperties"];
                    let one = |(name, value): (&String, &Json)| {
                        (Key::from(name.as_str()), value_of(value, values, is_embedded(values)))
                    };
                    fields.iter().map(one).collect()
                }
                None => object_entries(fields, schema, is_root),
            };
            Value::Map(Arc::new(Map { entries, type_name: None, default: None }))
        }
        _ => Value::from_json(json),
    }
}

/// Fields that the schema does not name are not seen.
fn object_entries(fields: &serde_json::Map<String, Json>, schema: &Json, is_root: bool) -> BTreeMap<Key, Value> {
    let mut out = BTreeMap::new();
    for (name, value) in fields {
        let property = &schema["properties"][name];
        let known = property.is_object();
        let always = is_root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        // A null where none is allowed was not set.
        if !(known || always) || (value.is_null() && !is_set(property, "nullable")) {
            continue;
        }
        let Some(escaped) = escape(name) else { continue };
        let value = if always && name == "metadata" {
            Value::from_json(value)
        } else {
            value_of(value, property, is_embedded(property))
        };
        out.insert(Key::from(escaped.as_str()), value);
    }
    out
}

fn string_value(text: &str, schema: &Json) -> Value {
    let parsed = match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => from_base64(text),
        (Some("string"), Some("duration")) => convert::parse_duration(text).ok().map(Value::Duration),
        (Some("string"), Some("date-time")) => convert::parse_timestamp(text).ok().map(Value::Timestamp),
        (Some("string"), Some("date")) => {
            convert::parse_timestamp(&format!("{text}T00:00:00Z")).ok().map(Value::Timestamp)
        }
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::text(text))
}

fn list_kind(schema: &Json) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let keys = keys.into_iter().flatten().filter_map(Json::as_str).filter_map(escape).map(Arc::from);
            ListKind::Map(keys.collect())
        }
        _ => ListKind::Atomic,
    }
}
