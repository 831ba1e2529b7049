//! JSON text to a value without a schema. The last of duplicate fields wins; each is reported with its path.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::json_text::{Kind, Reader};
use super::{Error, Problems};

/// Where a value stands, as a list linked through the stack.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    /// A field of an object.
    Key(&'p Path<'p>, &'p str),
    /// An entry of a map.
    Entry(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) | Self::Entry(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) | Self::Entry(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

/// Reads a whole text.
pub(super) fn read(bytes: &[u8], problems: &mut Problems) -> Result<Value, Error> {
    let mut reader = Reader::new(bytes);
    let value = value(&mut reader, &Path::Root, problems)?;
    reader.end()?;
    Ok(value)
}

/// A number as the text has it: whole numbers stay whole.
pub(super) fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return Value::from(whole);
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Value::from(whole);
    }
    text.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

/// A float as Go writes it: a whole one has no fraction.
pub fn float(value: f64) -> Value {
    /// From here on neighbouring floats are further apart than whole numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Reads the next value.
pub(super) fn value(reader: &mut Reader<'_>, path: &Path<'_>, problems: &mut Problems) -> Result<Value, Error> {
    Ok(match reader.kind()? {
        Kind::Object => {
            reader.enter_object()?;
            let mut map = Map::new();
            let mut first = true;
            while let Some(key) = reader.next_key(first)? {
                first = false;
                let here = Path::Key(path, &key);
                let member = value(reader, &here, problems)?;
                if map.contains_key(key.as_ref()) {
                    problems.push(|| format!("duplicate field \"{here}\""));
                }
                map.insert(key.into_owned(), member);
            }
            Value::Object(map)
        }
        Kind::Array => {
            reader.enter_array()?;
            let mut items = Vec::new();
            while reader.next_item(items.is_empty())? {
                items.push(value(reader, &Path::Index(path, items.len()), problems)?);
            }
            Value::Array(items)
        }
        Kind::String => Value::String(reader.string()?.into_owned()),
        Kind::Number => number(reader.number()?),
        Kind::Bool => Value::Bool(reader.boolean()?),
        Kind::Null => {
            reader.null()?;
            Value::Null
        }
    })
}
