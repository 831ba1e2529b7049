//! Reading the server's JSON as a type. To Kubernetes a field that is `null` is one that is absent (upstream writes a
//! zero time as `null`), and a required field that is absent has its zero value. Our types are stricter, and one such
//! object must not stop the watch of a whole resource.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Upstream's zero time.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Where the type can't take the object as it is, fields that are `null` count as absent, and conditions get the zero
/// values of what they lack. What is wrong otherwise is told as if nothing had been done.
pub fn decode<R: DeserializeOwned>(json: &[u8]) -> Result<R, serde_json::Error> {
    let error = match serde_json::from_slice(json) {
        Ok(object) => return Ok(object),
        Err(error) if error.is_data() => error,
        Err(error) => return Err(error),
    };
    // Rare, so that the usual way pays nothing for it.
    let Ok(mut value) = serde_json::from_slice(json) else { return Err(error) };
    complete(&mut value);
    serde_json::from_value(value).map_err(|_| error)
}

fn complete(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            for (name, field) in fields {
                complete(field);
                if name == "conditions" {
                    let conditions = field.as_array_mut().into_iter().flatten();
                    conditions.filter_map(Value::as_object_mut).for_each(complete_condition);
                }
            }
        }
        // Elements stay: their places mean something.
        Value::Array(items) => items.iter_mut().for_each(complete),
        _ => {}
    }
}

/// What `metav1.Condition` requires.
fn complete_condition(condition: &mut Map<String, Value>) {
    for (name, zero) in [("lastTransitionTime", ZERO_TIME), ("reason", ""), ("message", "")] {
        condition.entry(name).or_insert_with(|| zero.into());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::decode;

    fn service(condition: &serde_json::Value) -> Result<Service, serde_json::Error> {
        let status = json!({"conditions": [condition]});
        decode(json!({"metadata": {"name": "a"}, "status": status}).to_string().as_bytes())
    }

    #[test]
    fn a_null_where_the_type_has_no_place_for_it_is_absent() {
        for condition in [
            json!({"type": "T", "status": "True", "reason": null, "lastTransitionTime": null}),
            json!({"type": "T", "status": "True"}),
        ] {
            let read = service(&condition).unwrap();
            let condition = &read.status.unwrap().conditions.unwrap()[0];
            assert_eq!((condition.type_.as_str(), condition.reason.as_str()), ("T", ""));
        }
    }

    #[test]
    fn what_is_wrong_is_told_as_it_was_found() {
        let error = service(&json!({"type": 1, "lastTransitionTime": null})).unwrap_err().to_string();
        assert!(error.contains("null") || error.contains("integer `1`"), "{error}");
        assert!(service(&json!({"type": 1})).unwrap_err().to_string().contains("integer `1`"));
    }
}
