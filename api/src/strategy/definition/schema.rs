//! What the schema of a custom resource may look like: structural, without what upstream forbids
//! (`apiextensions-apiserver/pkg/apiserver/schema` and its validation).

use serde_json::Value;

use crate::field::{Error, ErrorKind};
use crate::strategy::place::{Errors, Place};

/// Checks the root of a schema.
pub(super) fn check(root: &Place, errors: &mut Errors) {
    if root.field("nullable").is_true() {
        errors.push(root.field("nullable").forbidden("nullable cannot be true at the root"));
    }
    let kind = root.field("type");
    match kind.str() {
        "object" => {}
        "" => errors.push(kind.required("must not be empty at the root")),
        _ => errors.push(kind.invalid("must be object at the root")),
    }
    let properties = root.field("properties");
    if let Some(map) = properties.field("metadata").map() {
        let allowed = |name: &String| name == "name" || name == "generateName";
        let restricted = map.keys().any(|key| key != "type" && key != "properties" && key != "description")
            || map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.keys().all(allowed));
        if restricted {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(properties.key("metadata").forbidden(why));
        }
    }
    node(root, true, errors);
}

/// Checks one node and everything below it.
fn node(place: &Place, root: bool, errors: &mut Errors) {
    if !place.field("$ref").is_empty() {
        errors.push(place.field("$ref").forbidden("$ref is not supported"));
    }
    if place.field("uniqueItems").is_true() {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(place.field("uniqueItems").forbidden(why));
    }
    let (properties, additional) = (place.field("properties"), place.field("additionalProperties"));
    if properties.map().is_some_and(|map| !map.is_empty()) && additional.is_set() {
        errors.push(additional.forbidden("additionalProperties and properties are mutual exclusive"));
    }
    let kind = place.field("type");
    let untyped = place.field("x-kubernetes-int-or-string").is_true()
        || place.field("x-kubernetes-preserve-unknown-fields").is_true();
    if kind.is_empty() && !untyped && !root && errors.is_empty() {
        errors.push(kind.required("must not be empty for specified object fields"));
    }
    check_list(place, errors);
    check_default(place, errors);
    for (_, property) in properties.entries() {
        node(&property, false, errors);
    }
    if additional.map().is_some() {
        node(&additional, false, errors);
    }
    let items = place.field("items");
    if items.map().is_some() {
        node(&items, false, errors);
    }
    for combination in ["allOf", "anyOf", "oneOf"] {
        for part in place.field(combination).items() {
            value_validation(&part, errors);
        }
    }
    if place.field("not").map().is_some() {
        value_validation(&place.field("not"), errors);
    }
}

fn check_list(place: &Place, errors: &mut Errors) {
    let (kind, keys) = (place.field("x-kubernetes-list-type"), place.field("x-kubernetes-list-map-keys"));
    if kind.str() == "map" && keys.is_empty() {
        errors.push(keys.required("must not be empty if x-kubernetes-list-type is map"));
    }
    if kind.is_set() && place.field("type").str() != "array" {
        errors.push(place.field("type").invalid("must be array if x-kubernetes-list-type is specified"));
    }
}

/// A default must be what its own schema admits.
fn check_default(place: &Place, errors: &mut Errors) {
    let default = place.field("default");
    if !default.is_set() {
        return;
    }
    let Some(kind) = place.field("type").value.as_str() else { return };
    let stated = match default.value {
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    };
    if kind != stated && !(kind == "number" && stated == "integer") {
        let why = format!(" in body must be of type {kind}: {stated:?}");
        errors.push(Error::new(ErrorKind::TypeInvalid, default.path(), stated, why));
    }
}

/// Below `allOf`, `anyOf`, `oneOf` and `not` only values are restricted; structure is stated above.
fn value_validation(place: &Place, errors: &mut Errors) {
    let structure = ["type", "default", "additionalProperties", "nullable", "description", "title"];
    for field in structure.iter().filter(|field| place.field(field).is_set()) {
        let exempt = *field == "type" && matches!(place.field("type").str(), "integer" | "string");
        if !exempt || !in_int_or_string(place) {
            errors.push(place.field(field).forbidden("must be empty to be structural"));
        }
    }
    for (_, property) in place.field("properties").entries() {
        value_validation(&property, errors);
    }
    for combination in ["allOf", "anyOf", "oneOf"] {
        for part in place.field(combination).items() {
            value_validation(&part, errors);
        }
    }
}

/// Whether `anyOf` at this place is the one that int-or-string fields may have.
fn in_int_or_string(place: &Place) -> bool {
    place.path().contains(".anyOf[") && place.value.as_object().is_some_and(|map| map.len() == 1)
}
