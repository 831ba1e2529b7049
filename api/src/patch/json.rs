//! JSON patch (RFC 6902) with the liberties upstream's library takes: `replace` may create a key, indices may be
//! negative, a copy of a missing key is null, and whatever stands before the first slash of a path is ignored.

use serde_json::{Map, Value};

use super::{Error, gofmt};

/// Most operations in one JSON patch (upstream's `maxJSONPatchOperations`).
pub const MAX_OPERATIONS: usize = 10_000;

const OPERATION_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// Applies the operations in order; all or nothing.
pub fn json(document: &Value, operations: &Value) -> Result<Value, Error> {
    let operations = match operations {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(not_operations(other)),
    };
    check_forms(operations)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooManyOperations(operations.len()));
    }
    let mut document = document.clone();
    for operation in operations {
        apply_one(&mut document, operation)?;
    }
    Ok(document)
}

/// Unknown fields of the operations, as strict field validation words them. Unknown fields are otherwise ignored.
pub fn unknown_fields(operations: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (i, operation) in operations.as_array().into_iter().flatten().enumerate() {
        for key in operation.as_object().into_iter().flat_map(Map::keys) {
            if !OPERATION_FIELDS.contains(&key.as_str()) {
                found.push(format!("json patch unknown field \"[{i}].{key}\""));
            }
        }
    }
    found
}

fn not_operations(value: &Value) -> Error {
    let kind = gofmt::json_kind(value);
    Error::Malformed(format!(
        "error decoding patch: json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
    ))
}

/// The types of the operations' fields, before any of them runs.
fn check_forms(operations: &[Value]) -> Result<(), Error> {
    for operation in operations {
        let fields = match operation {
            Value::Object(fields) => fields,
            Value::Null => continue,
            other => {
                let kind = gofmt::json_kind(other);
                return Err(Error::Malformed(format!(
                    "error decoding patch: json: cannot unmarshal {kind} into Go value of type handlers.jsonPatchOp"
                )));
            }
        };
        for name in ["op", "path", "from"] {
            let Some(value) = fields.get(name) else { continue };
            if !value.is_string() && !value.is_null() {
                let kind = gofmt::json_kind(value);
                return Err(Error::Malformed(format!(
                    "error decoding patch: json: cannot unmarshal {kind} into Go struct field jsonPatchOp.{name} of type string"
                )));
            }
        }
    }
    Ok(())
}

fn apply_one(document: &mut Value, operation: &Value) -> Result<(), Error> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let path = || text("path").ok_or_else(|| fails(format!("{kind} operation failed to decode path: missing value")));
    let from = || text("from").ok_or_else(|| fails(format!("{kind} operation failed to decode from: missing value")));
    match kind {
        "add" => add(document, path()?, operation.get("value").cloned().unwrap_or(Value::Null)),
        "remove" => remove(document, path()?).map(drop),
        "replace" => replace(document, path()?, operation.get("value").cloned()),
        "move" => {
            let value = remove(document, from()?)?;
            add(document, path()?, value)
        }
        "copy" => {
            let value = read(document, from()?)?.cloned().unwrap_or(Value::Null);
            add(document, path()?, value)
        }
        "test" => test(document, path()?, operation.get("value")),
        other => Err(fails(format!("Unexpected kind: {other}"))),
    }
}

fn fails(message: impl Into<String>) -> Error {
    Error::DoesNotApply(message.into())
}

fn missing(path: &str) -> Error {
    fails(format!("operation does not apply: doc is missing path: {path:?}: missing value"))
}

/// A path split into the containers on the way and the last key, both unescaped.
fn split(path: &str) -> Option<(impl Iterator<Item = String> + '_, String)> {
    let (_, below) = path.split_once('/')?;
    let (parents, key) = match below.rsplit_once('/') {
        Some((parents, key)) => (Some(parents), key),
        None => (None, below),
    };
    Some((parents.into_iter().flat_map(|p| p.split('/')).map(unescape), unescape(key)))
}

/// One pass over the text, as upstream's replacer: `~01` is `~1`, not `/`.
fn unescape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('~') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('1') {
            out.push('/');
            rest = after;
        } else {
            out.push('~');
            rest = rest.strip_prefix('0').unwrap_or(rest);
        }
    }
    out.push_str(rest);
    out
}

/// The container a path points into. Scalars and nulls on the way are a missing path.
fn container<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Error> {
    let (parents, key) = split(path).ok_or_else(|| missing(path))?;
    let mut current = document;
    for part in parents {
        let next = match current {
            Value::Object(map) => map.get_mut(&part),
            Value::Array(items) => index(&part, items.len()).ok().and_then(|i| items.get_mut(i)),
            _ => None,
        };
        current = next.ok_or_else(|| missing(path))?;
    }
    if current.is_object() || current.is_array() { Ok((current, key)) } else { Err(missing(path)) }
}

/// A decimal index; negative ones count from the end. `len` is one past the last index that is allowed.
fn index(key: &str, len: usize) -> Result<usize, Error> {
    let number: i64 = key.parse().map_err(|_| fails(format!("value was not a proper array index: '{key}'")))?;
    let invalid = || fails(format!("Unable to access invalid index: {number}: invalid index referenced"));
    let len = i64::try_from(len).map_err(|_| invalid())?;
    let at = if number < 0 { number + len } else { number };
    if at < 0 || at >= len { Err(invalid()) } else { usize::try_from(at).map_err(|_| invalid()) }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Error> {
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => map.remove(&key).ok_or_else(|| {
            fails(format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}"))
        }),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Ok(items.remove(at))
        }
        _ => Err(missing(path)),
    }
}

fn replace(document: &mut Value, path: &str, value: Option<Value>) -> Result<(), Error> {
    if path.is_empty() {
        return match value {
            Some(value @ (Value::Object(_) | Value::Array(_))) => {
                *document = value;
                Ok(())
            }
            _ => Err(fails("replace operation value must be object or array")),
        };
    }
    let value = value.unwrap_or(Value::Null);
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            items[at] = value;
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

/// The value at a path: `None` for a key an object does not have.
fn read<'a>(document: &'a mut Value, path: &str) -> Result<Option<&'a Value>, Error> {
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => Ok(map.get(&key)),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Ok(items.get(at))
        }
        _ => Err(missing(path)),
    }
}

fn test(document: &mut Value, path: &str, expected: Option<&Value>) -> Result<(), Error> {
    let found = if path.is_empty() { Some(&*document) } else { read(document, path)? };
    // An absent key and null are the same to a test.
    if found.unwrap_or(&Value::Null) == expected.unwrap_or(&Value::Null) {
        return Ok(());
    }
    Err(fails(format!("testing value {path} failed: test failed")))
}
