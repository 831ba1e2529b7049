//! Defaults stated by a schema, as upstream fills them in for custom resources
//! (`apiextensions-apiserver/pkg/apiserver/schema/defaulting`).

use serde_json::Value;

use crate::schema::Schema;

/// Fills in the schema's defaults, from the outside in, so that defaults of a defaulted object apply too. A null where
/// the schema admits none and has a default counts as absent.
pub fn apply_defaults(schema: Schema<'_>, object: &mut Value) {
    match object {
        Value::Object(map) => {
            for (name, field) in schema.fields() {
                let Some(default) = field.default() else { continue };
                let missing = map.get(name).is_none_or(|v| v.is_null() && !field.nullable());
                if missing {
                    map.insert(name.to_owned(), default.clone());
                }
            }
            map.retain(|name, value| !(value.is_null() && schema.member(name).is_some_and(drops_null)));
            for (name, value) in map.iter_mut() {
                if let Some(member) = schema.member(name) {
                    apply_defaults(member, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.items() else { return };
            for value in items {
                if let (Value::Null, Some(default), false) = (&*value, item.default(), item.nullable()) {
                    *value = default.clone();
                }
                apply_defaults(item, value);
            }
        }
        _ => {}
    }
}

/// Nulls that a schema knows and does not admit are dropped (`PruneNonNullableNullsWithoutDefaults`).
fn drops_null(field: Schema<'_>) -> bool {
    field.is_structural() && !field.nullable() && !field.preserves_unknown()
}
