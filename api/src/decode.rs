//! Request bodies to objects: JSON or YAML text, driven by a schema, to a [`Value`].
//!
//! For built-in kinds the result is what upstream's Go types would hold after decoding: unknown fields are gone, nulls
//! too, quantities and times are canonical, and zero values are there or not as [`Zero`](crate::schema::Zero) says.
//! Custom resources keep what they are sent, less the fields their schema does not know.
//!
//! Nesting is bounded by [`MAX_DEPTH_LEVELS`], what YAML aliases may expand to by limits of their own.

mod defaults;
mod json_text;
mod scalar;
mod structural;
mod typed;
mod untyped;
mod yaml_text;

use serde_json::Value;

use crate::schema::Schema;

pub use defaults::apply_defaults;
pub use structural::prune;
pub(crate) use untyped::float;

/// Deepest nesting of a body. Stored objects are read back by `serde_json`, which stops at 128 levels, and lists and
/// watch events add levels of their own.
pub const MAX_DEPTH_LEVELS: usize = 120;
/// Most unknown and duplicate fields reported for one body, as upstream.
const MAX_STRICT_ERRORS: usize = 100;

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The query parameter's value; absent or empty is [`FieldValidation::Warn`].
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "Warn" | "" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
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

/// What `apiVersion` and `kind` a body states; empty where it states none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

/// Unknown and duplicate fields in the order they were met, without repetition.
#[derive(Default)]
struct Problems {
    found: Vec<String>,
    /// Whether anybody wants to know.
    wanted: bool,
}

impl Problems {
    fn new(mode: FieldValidation) -> Self {
        Self { found: Vec::new(), wanted: mode != FieldValidation::Ignore }
    }

    fn push(&mut self, problem: impl FnOnce() -> String) {
        if !self.wanted || self.found.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let problem = problem();
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    fn settle(self, object: Value, mode: FieldValidation) -> Result<Decoded, Error> {
        match mode {
            FieldValidation::Strict if !self.found.is_empty() => Err(Error::Strict(self.found)),
            _ => Ok(Decoded { object, warnings: self.found }),
        }
    }
}

/// Decodes a JSON body.
pub fn json(schema: Schema<'_>, bytes: &[u8], mode: FieldValidation) -> Result<Decoded, Error> {
    if schema.is_structural() {
        let mut problems = Problems::new(mode);
        let object = untyped::read(bytes, &mut problems)?;
        return structural::decode(schema, object, problems, mode);
    }
    typed::decode(schema, bytes, mode)
}

/// Decodes a YAML body: its first document.
pub fn yaml(schema: Schema<'_>, bytes: &[u8], mode: FieldValidation) -> Result<Decoded, Error> {
    let document = yaml_text::read(bytes)?;
    let decoded = match value(schema, document.value, mode) {
        Err(Error::Strict(mut problems)) => {
            problems.splice(0..0, yaml_duplicates_message(&document.duplicates));
            return Err(Error::Strict(problems));
        }
        decoded => decoded?,
    };
    match mode {
        FieldValidation::Ignore => Ok(decoded),
        FieldValidation::Warn => {
            let warnings = document.duplicates.into_iter().chain(decoded.warnings).collect();
            Ok(Decoded { object: decoded.object, warnings })
        }
        FieldValidation::Strict => match yaml_duplicates_message(&document.duplicates) {
            Some(message) => Err(Error::Strict(vec![message])),
            None => Ok(decoded),
        },
    }
}

/// Decodes an object that is a value already, such as the result of a patch.
pub fn value(schema: Schema<'_>, object: Value, mode: FieldValidation) -> Result<Decoded, Error> {
    if schema.is_structural() {
        return structural::decode(schema, object, Problems::new(mode), mode);
    }
    let bytes = serde_json::to_vec(&object).map_err(|e| Error::Syntax(e.to_string()))?;
    typed::decode(schema, &bytes, mode)
}

/// JSON text to a value with nothing assumed about its fields: patches, options. The warnings are duplicate fields.
pub fn untyped_json(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut problems = Problems::new(FieldValidation::Warn);
    let object = untyped::read(bytes, &mut problems)?;
    Ok(Decoded { object, warnings: problems.found })
}

/// YAML text to a value with nothing assumed about its fields: apply configurations. The warnings are duplicate keys,
/// each `line N: key "x" already set in map`.
pub fn untyped_yaml(bytes: &[u8]) -> Result<Decoded, Error> {
    let document = yaml_text::read(bytes)?;
    Ok(Decoded { object: document.value, warnings: document.duplicates })
}

/// Upstream's one message for all duplicate keys of a YAML text; none when there are none.
pub fn yaml_duplicates_message(duplicates: &[String]) -> Option<String> {
    if duplicates.is_empty() {
        return None;
    }
    Some(format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")))
}

/// Reads `apiVersion` and `kind` of a JSON body without decoding the rest. Refusals are worded as upstream's
/// `SimpleMetaFactory.Interpret`, to follow `couldn't get version/kind; json parse error: `.
pub fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    typed::type_meta(bytes)
}

/// What upstream's types write for a value of `schema` that nobody set: required fields, and structs inside.
pub fn zero(schema: Schema<'_>) -> Value {
    typed::zero_value(schema)
}

#[cfg(test)]
mod tests;
