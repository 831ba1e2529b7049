//! Messages to JSON values, by schema. Values come out as the JSON form would write them before it is settled.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::wire::{self, Field};
use crate::decode::{Error, MAX_DEPTH_LEVELS};
use crate::schema::encode::NUMBER_BITS;
use crate::schema::{Schema, Schemas, Shape};

const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The message of an object.
pub(super) fn message(schema: Schema<'_>, bytes: &[u8]) -> Result<Value, Error> {
    object(schema, bytes, 0)
}

fn object(schema: Schema<'_>, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut map = Map::new();
    members(schema, bytes, 0, 0, depth, &mut map)?;
    Ok(Value::Object(map))
}

/// Reads the fields of one message of `schema`. Messages which JSON has inline are read into the same map: `outer` are
/// the numbers of the `level` messages around.
fn members(
    schema: Schema<'_>,
    bytes: &[u8],
    outer: u32,
    level: u32,
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_DEPTH_LEVELS {
        return Err(Error::Syntax("proto: exceeded max depth".to_owned()));
    }
    for field in wire::fields(bytes) {
        let (number, value) = field?;
        if number >= 1 << NUMBER_BITS || level > 2 {
            continue;
        }
        let numbers = outer | number << (NUMBER_BITS * level);
        let found = schema.fields().find(|(_, field)| field.protobuf_numbers() == numbers);
        if let Some((name, field)) = found {
            add(field, name, value, depth, map)?;
            continue;
        }
        let mask = (1_u32 << (NUMBER_BITS * (level + 1)).min(31)) - 1;
        let is_inline = schema.fields().any(|(_, f)| f.protobuf_numbers() & mask == numbers && numbers != 0);
        if let (true, Field::Bytes(inner)) = (is_inline, value) {
            members(schema, inner, numbers, level + 1, depth + 1, map)?;
        }
    }
    Ok(())
}

/// Adds one occurrence of a field: another item, another entry, or the value.
fn add(
    schema: Schema<'_>,
    name: &str,
    value: Field<'_>,
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), Error> {
    match (schema.shape(), schema.items(), schema.values(), value) {
        (Shape::List, Some(items), _, value) => {
            let list = map.entry(name).or_insert_with(|| json!([]));
            let Value::Array(list) = list else { return Ok(()) };
            match value {
                // Packed numbers.
                Field::Bytes(mut packed) if matches!(items.shape(), Shape::Integer | Shape::Boolean) => {
                    while !packed.is_empty() {
                        let number = Field::Varint(wire::varint(&mut packed)?);
                        list.push(single(items, number, depth + 1)?);
                    }
                }
                value => list.push(single(items, value, depth + 1)?),
            }
        }
        (Shape::Map, _, Some(values), Field::Bytes(entry)) => {
            let entries = map.entry(name).or_insert_with(|| json!({}));
            let (mut key, mut value) = (String::new(), Value::Null);
            for field in wire::fields(entry) {
                match field? {
                    (1, Field::Bytes(text)) => key = wire::text(text),
                    (2, found) => value = single(values, found, depth + 1)?,
                    _ => {}
                }
            }
            if let Value::Object(entries) = entries {
                entries.insert(key, value);
            }
        }
        (_, _, _, value) => {
            let value = single(schema, value, depth + 1)?;
            map.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// One value of a schema.
fn single(schema: Schema<'_>, value: Field<'_>, depth: usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH_LEVELS {
        return Err(Error::Syntax("proto: exceeded max depth".to_owned()));
    }
    Ok(match (schema.shape(), value) {
        (Shape::Object, Field::Bytes(bytes)) => object(schema, bytes, depth)?,
        // Lists that are values of maps are messages with the items in field 1.
        (Shape::List, Field::Bytes(bytes)) => {
            let mut wrapped = Map::new();
            for field in wire::fields(bytes) {
                let (number, value) = field?;
                if number == 1 {
                    add(schema, "items", value, depth, &mut wrapped)?;
                }
            }
            wrapped.remove("items").unwrap_or_else(|| json!([]))
        }
        (Shape::String, Field::Bytes(bytes)) if schema.format() == Some("byte") => STANDARD.encode(bytes).into(),
        (Shape::String, Field::Bytes(bytes)) if schema.format() == Some("date-time") => time(schema, bytes)?,
        (Shape::String, Field::Bytes(bytes)) => wire::text(bytes).into(),
        (Shape::Boolean, Field::Varint(value)) => (value != 0).into(),
        (Shape::Integer, Field::Varint(value)) if schema.format() == Some("int32") => (value as i32).into(),
        (Shape::Integer, Field::Varint(value)) => (value as i64).into(),
        (Shape::Number, Field::Fixed64(bits)) => crate::decode::float(f64::from_bits(bits)),
        (Shape::IntOrString, Field::Bytes(bytes)) => int_or_string(schema, bytes)?,
        (Shape::Any, Field::Bytes(bytes)) => raw(schema, bytes, depth)?,
        _ => return Err(Error::Syntax("proto: wrong wireType for field".to_owned())),
    })
}

/// `Timestamp` as text; an empty message is the time that was never set.
fn time(schema: Schema<'_>, bytes: &[u8]) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for field in wire::fields(bytes) {
        match field? {
            (1, Field::Varint(value)) => seconds = value as i64,
            (2, Field::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|e| Error::Syntax(format!("proto: {e}")))?;
    let is_micro = schema.type_name().is_some_and(|name| name.ends_with(".MicroTime"));
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S");
    Ok(if is_micro { format!("{whole}.{:06}Z", nanos / 1000) } else { format!("{whole}Z") }.into())
}

fn int_or_string(schema: Schema<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (schema.is_quantity(), 0_i32, String::new());
    for field in wire::fields(bytes) {
        match field? {
            (1, Field::Bytes(value)) => text = wire::text(value),
            (1, Field::Varint(kind)) => is_text = kind == 1,
            (2, Field::Varint(value)) => number = value as i32,
            (3, Field::Bytes(value)) => text = wire::text(value),
            _ => {}
        }
    }
    if schema.is_quantity() && text.is_empty() {
        text.push('0');
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// Parts that are JSON within the message, and the three choices within JSON schemas.
fn raw(schema: Schema<'_>, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let choice = schema.type_name().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
    if !choice.starts_with("JSONSchemaPropsOr") {
        let mut text: &[u8] = b"null";
        for field in wire::fields(bytes) {
            if let (1, Field::Bytes(value)) = field? {
                text = value;
            }
        }
        return if text.is_empty() { Ok(Value::Null) } else { Ok(crate::decode::untyped_json(text)?.object) };
    }
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    for field in wire::fields(bytes) {
        let (number, value) = field?;
        let is_schema = matches!((choice, number), ("JSONSchemaPropsOrBool", 2) | ("JSONSchemaPropsOrArray", 1 | 2))
            || (choice == "JSONSchemaPropsOrStringArray" && number == 1);
        match value {
            Field::Varint(value) => allows = value != 0,
            Field::Bytes(bytes) if is_schema => {
                let Some(props) = Schemas::builtin().type_named(JSON_SCHEMA) else { continue };
                let value = object(props, bytes, depth + 1)?;
                if number == 2 && choice == "JSONSchemaPropsOrArray" { many.push(value) } else { one = Some(value) }
            }
            Field::Bytes(bytes) => many.push(wire::text(bytes).into()),
            _ => {}
        }
    }
    Ok(match one {
        Some(schema) => schema,
        None if choice == "JSONSchemaPropsOrBool" => allows.into(),
        None => many.into(),
    })
}
