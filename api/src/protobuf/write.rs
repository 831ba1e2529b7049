//! JSON values to messages, by schema: the reverse of reading.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::Writer;
use crate::schema::encode::NUMBER_BITS;
use crate::schema::{Schema, Schemas, Shape};

const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The message of an object.
pub(super) fn message(schema: Schema<'_>, object: &Value) -> Vec<u8> {
    object.as_object().map(|map| members(schema, map, 0, 0)).unwrap_or_default()
}

/// The fields whose outer numbers are `outer`, in the order of their numbers; inline messages where they belong.
fn members(schema: Schema<'_>, map: &Map<String, Value>, outer: u32, level: u32) -> Vec<u8> {
    let mask = (1_u32 << (NUMBER_BITS * level)) - 1;
    let mut fields: Vec<(u32, u32, &str, Schema<'_>)> = schema
        .fields()
        .filter(|(_, field)| field.protobuf_numbers() != 0 && field.protobuf_numbers() & mask == outer)
        .map(|(name, field)| {
            let rest = field.protobuf_numbers() >> (NUMBER_BITS * level);
            (rest & ((1 << NUMBER_BITS) - 1), rest >> NUMBER_BITS, name, field)
        })
        .collect();
    fields.sort_by_key(|(number, ..)| *number);
    let mut out = Writer::default();
    let mut inline = 0;
    for (number, deeper, name, field) in fields {
        if deeper == 0 {
            if let Some(value) = map.get(name) {
                member(field, number, value, &mut out);
            }
        } else if inline != number {
            inline = number;
            out.bytes(number, &members(schema, map, outer | number << (NUMBER_BITS * level), level + 1));
        }
    }
    out.out
}

fn member(schema: Schema<'_>, number: u32, value: &Value, out: &mut Writer) {
    match (schema.items(), schema.values(), value) {
        (Some(items), _, Value::Array(list)) => list.iter().for_each(|item| single(items, number, item, out)),
        (_, Some(values), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Writer::default();
                entry.bytes(1, key.as_bytes());
                single(values, 2, value, &mut entry);
                out.bytes(number, &entry.out);
            }
        }
        (_, _, Value::Null) => {}
        _ => single(schema, number, value, out),
    }
}

fn single(schema: Schema<'_>, number: u32, value: &Value, out: &mut Writer) {
    match (schema.shape(), value) {
        (Shape::Object, Value::Object(_)) => out.bytes(number, &message(schema, value)),
        (Shape::List, Value::Array(_)) => {
            let mut wrapped = Writer::default();
            member(schema, 1, value, &mut wrapped);
            out.bytes(number, &wrapped.out);
        }
        (Shape::String, Value::String(text)) => match schema.format() {
            Some("byte") => out.bytes(number, &STANDARD.decode(text).unwrap_or_default()),
            Some("date-time") => out.bytes(number, &time(text)),
            _ => out.bytes(number, text.as_bytes()),
        },
        (Shape::Boolean, Value::Bool(value)) => out.varint(number, u64::from(*value)),
        (Shape::Integer, Value::Number(value)) => out.varint(number, value.as_i64().unwrap_or_default() as u64),
        (Shape::Number, Value::Number(value)) => out.double(number, value.as_f64().unwrap_or_default()),
        (Shape::IntOrString, value) => {
            let mut inner = Writer::default();
            match value {
                Value::String(text) if schema.is_quantity() => inner.bytes(1, text.as_bytes()),
                Value::String(text) => {
                    inner.varint(1, 1);
                    inner.varint(2, 0);
                    inner.bytes(3, text.as_bytes());
                }
                _ => {
                    inner.varint(1, 0);
                    inner.varint(2, value.as_i64().unwrap_or_default() as u64);
                    inner.bytes(3, b"");
                }
            }
            out.bytes(number, &inner.out);
        }
        (Shape::Any, value) => out.bytes(number, &raw(schema, value)),
        _ => {}
    }
}

/// `Timestamp`; what is no time is the time that was never set.
fn time(text: &str) -> Vec<u8> {
    let mut out = Writer::default();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        out.varint(1, at.as_second() as u64);
        out.varint(2, at.subsec_nanosecond() as u64);
    }
    out.out
}

fn raw(schema: Schema<'_>, value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    let choice = schema.type_name().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
    let props = Schemas::builtin().type_named(JSON_SCHEMA).filter(|_| choice.starts_with("JSONSchemaPropsOr"));
    match (props, value) {
        (Some(props), Value::Object(_)) => {
            let number = if choice == "JSONSchemaPropsOrBool" { 2 } else { 1 };
            if number == 2 {
                out.varint(1, 1);
            }
            out.bytes(number, &message(props, value));
        }
        (Some(_), Value::Bool(allows)) => out.varint(1, u64::from(*allows)),
        (Some(props), Value::Array(items)) => {
            for item in items {
                match item {
                    Value::String(text) => out.bytes(2, text.as_bytes()),
                    item => out.bytes(2, &message(props, item)),
                }
            }
        }
        (Some(_), _) => {}
        (None, value) => out.bytes(1, value.to_string().as_bytes()),
    }
    out.out
}
