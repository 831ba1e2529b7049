//! The protobuf form of built-in kinds (`application/vnd.kubernetes.protobuf`): typed clients send it, kubectl's
//! `create` commands among them. Field numbers come with the schemas; values pass through the JSON form, so that both
//! mean the same.
//!
//! A body is the magic number and an envelope (`runtime.Unknown`) with apiVersion, kind and the object's message.

mod read;
mod wire;
mod write;

use serde_json::Value;

use crate::decode::{self, Decoded, Error, FieldValidation, TypeMeta};
use crate::schema::Schema;

/// What every body starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// An opened envelope.
struct Envelope<'b> {
    meta: TypeMeta,
    raw: &'b [u8],
}

fn open(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let message = bytes.strip_prefix(&MAGIC).ok_or_else(|| {
        let what = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
        Error::Syntax(what.to_owned())
    })?;
    let mut envelope = Envelope { meta: TypeMeta::default(), raw: &[] };
    for field in wire::fields(message) {
        let (number, value) = field?;
        match (number, value) {
            (1, wire::Field::Bytes(meta)) => {
                for field in wire::fields(meta) {
                    match field? {
                        (1, wire::Field::Bytes(text)) => envelope.meta.api_version = wire::text(text),
                        (2, wire::Field::Bytes(text)) => envelope.meta.kind = wire::text(text),
                        _ => {}
                    }
                }
            }
            (2, wire::Field::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// What apiVersion and kind a body states.
pub fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    Ok(open(bytes)?.meta)
}

/// Decodes a body of the kind that `schema` describes. Unknown fields are dropped without a word, as upstream does.
pub fn decode(schema: Schema<'_>, bytes: &[u8]) -> Result<Decoded, Error> {
    let envelope = open(bytes)?;
    let object = read::message(schema, envelope.raw)?;
    let mut decoded = decode::value(schema, object, FieldValidation::Ignore)?;
    if let Value::Object(map) = &mut decoded.object {
        for (name, value) in [("apiVersion", envelope.meta.api_version), ("kind", envelope.meta.kind)] {
            if !value.is_empty() {
                map.insert(name.to_owned(), value.into());
            }
        }
    }
    Ok(decoded)
}

/// Encodes an object of the kind that `schema` describes, with its envelope. What the schema does not know is left out.
pub fn encode(schema: Schema<'_>, object: &Value) -> Vec<u8> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut meta = wire::Writer::default();
    meta.bytes(1, text("apiVersion").as_bytes());
    meta.bytes(2, text("kind").as_bytes());
    let mut envelope = wire::Writer::default();
    envelope.bytes(1, &meta.out);
    envelope.bytes(2, &write::message(schema, object));
    envelope.bytes(3, b"");
    envelope.bytes(4, b"");
    [MAGIC.as_slice(), &envelope.out].concat()
}

#[cfg(test)]
mod tests;
