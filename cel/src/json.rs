//! Values from JSON that has no schema, and back to JSON.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as Object, Number, Value as Json};

use crate::error::Error;
use crate::functions::convert;
use crate::value::{Key, Value};

impl Value {
    /// Whole numbers are ints, as upstream reads unstructured objects.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(number) => from_number(number),
            Json::String(text) => Self::text(text.as_str()),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect()),
            Json::Object(fields) => {
                Self::map(fields.iter().map(|(name, value)| (Key::from(name.as_str()), Self::from_json(value))))
            }
        }
    }

    /// What a mutation writes. Types without a JSON form are an error.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => (*i).into(),
            Self::Uint(u) => (*u).into(),
            Self::Double(d) => Json::Number(Number::from_f64(*d).ok_or_else(|| Error::other("not a JSON number"))?),
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
            Self::Duration(nanos) => Json::String(convert::duration_text(*nanos)),
            Self::Timestamp(time) => Json::String(time.to_string()),
            Self::List(list) => Json::Array(list.items.iter().map(Self::to_json).collect::<Result<_, _>>()?),
            Self::Map(map) => {
                let mut out = Object::new();
                for (key, value) in &map.entries {
                    out.insert(key.to_string(), value.to_json()?);
                }
                Json::Object(out)
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            Self::Quantity(quantity) => Json::String(quantity.to_string()),
            other => return Err(Error::other(format!("unsupported conversion of {} to JSON", other.type_name()))),
        })
    }
}

pub fn from_number(number: &Number) -> Value {
    match (number.as_i64(), number.as_u64()) {
        (Some(i), _) => Value::Int(i),
        (None, Some(u)) => Value::Uint(u),
        _ => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Decodes what a schema says is base64.
pub fn from_base64(text: &str) -> Option<Value> {
    STANDARD.decode(text).ok().map(|bytes| Value::Bytes(Arc::from(bytes)))
}
