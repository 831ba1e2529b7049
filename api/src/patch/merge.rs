//! JSON merge patch (RFC 7386). Nulls remove; lists are replaced whole.

use serde_json::{Map, Value};

use super::{Error, gofmt};

/// Merges `patch` into `document`.
pub fn merge(document: &Value, patch: &Value) -> Result<Value, Error> {
    let Value::Object(patch) = patch else {
        let kind = gofmt::json_kind(patch);
        return Err(Error::Malformed(match patch {
            Value::Null => "Invalid JSON Patch".to_owned(),
            _ => format!(
                "error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            ),
        }));
    };
    let mut document = document.clone();
    match &mut document {
        Value::Object(map) => merge_maps(map, patch),
        other => *other = without_nulls(&Value::Object(patch.clone())),
    }
    Ok(document)
}

fn merge_maps(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (document.get_mut(key), value) {
            (_, Value::Null) => {
                document.remove(key);
            }
            (Some(Value::Object(into)), Value::Object(from)) => merge_maps(into, from),
            // What takes the place of an object is taken as it is; elsewhere upstream's library drops null members.
            (Some(Value::Object(_)), _) => {
                document.insert(key.clone(), value.clone());
            }
            _ => {
                document.insert(key.clone(), without_nulls(value));
            }
        }
    }
}

/// A copy in which no object, also inside lists, has a null member. Nulls that are list items stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}
