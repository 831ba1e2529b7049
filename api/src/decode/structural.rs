//! Custom resources: pruning by a structural schema, with unknown fields reported where somebody wants to know.

use serde_json::Value;

use super::untyped::Path;
use super::{Decoded, Error, FieldValidation, Problems, typed};
use crate::schema::{Schema, Schemas, Shape};

/// Settles an object that was read without a schema: metadata takes its built-in type, the rest is pruned.
pub(super) fn decode(
    schema: Schema<'_>,
    mut object: Value,
    mut problems: Problems,
    mode: FieldValidation,
) -> Result<Decoded, Error> {
    if !object.is_object() {
        let message = "json: cannot unmarshal into Go value of type map[string]interface {}";
        return Err(Error::Type(message.to_owned()));
    }
    settle_metadata(&mut object, &mut problems, "metadata")?;
    prune_value(schema, &mut object, &Path::Root, &mut problems);
    problems.settle(object, mode)
}

/// Decodes `metadata` by its built-in type, which also drops what it does not know.
fn settle_metadata(object: &mut Value, problems: &mut Problems, path: &str) -> Result<(), Error> {
    let Some(metadata) = object.get_mut("metadata").filter(|m| !m.is_null()) else { return Ok(()) };
    let Some(schema) = Schemas::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
        return Ok(());
    };
    let bytes = serde_json::to_vec(metadata).map_err(|e| Error::Syntax(e.to_string()))?;
    let mode = if problems.wanted { FieldValidation::Warn } else { FieldValidation::Ignore };
    let decoded = typed::decode(schema, &bytes, mode)?;
    for warning in decoded.warnings {
        problems.push(|| warning.replacen("field \"", &format!("field \"{path}."), 1));
    }
    *metadata = decoded.object;
    Ok(())
}

/// Removes fields which the schema does not know.
pub fn prune(schema: Schema<'_>, object: &mut Value) {
    prune_value(schema, object, &Path::Root, &mut Problems::default());
}

fn prune_value(schema: Schema<'_>, value: &mut Value, path: &Path<'_>, problems: &mut Problems) {
    match value {
        Value::Array(items) => {
            let Some(item) = schema.items() else { return };
            for (at, value) in items.iter_mut().enumerate() {
                prune_value(item, value, &Path::Index(path, at), problems);
            }
        }
        Value::Object(map) => {
            let is_resource = matches!(path, Path::Root) || schema.is_embedded_resource();
            if schema.is_embedded_resource() {
                settle_embedded(map, path, problems);
            }
            map.retain(|key, value| {
                let here = Path::Key(path, key);
                if is_resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                match schema.member(key) {
                    Some(member) => prune_value(member, value, &here, problems),
                    None if keeps_unknown(schema) => {}
                    None => {
                        problems.push(|| format!("unknown field \"{here}\""));
                        return false;
                    }
                }
                true
            });
        }
        _ => {}
    }
}

/// Metadata of an embedded resource takes its built-in type; what can't is left for validation.
fn settle_embedded(map: &mut serde_json::Map<String, Value>, path: &Path<'_>, problems: &mut Problems) {
    let mut object = Value::Object(std::mem::take(map));
    let settled = settle_metadata(&mut object, problems, &format!("{path}.metadata"));
    if settled.is_err() {
        problems.push(|| format!("unknown field \"{path}.metadata\""));
    }
    if let Value::Object(object) = object {
        *map = object;
    }
}

/// Upstream prunes only where a schema says `type: object` with properties, or nothing at all about its fields.
fn keeps_unknown(schema: Schema<'_>) -> bool {
    schema.preserves_unknown() || !matches!(schema.shape(), Shape::Object | Shape::Any)
}
