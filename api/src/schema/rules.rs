//! What a CustomResourceDefinition's schema demands of values beyond their shape: bounds, patterns, choices, formats
//! and combinations of schemas.

use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that [`Rules`] stand for; kept as they were for OpenAPI output.
const KEYWORDS: [&str; 19] = [
    "allOf",
    "anyOf",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "example",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
];

/// Demands on one node. Combinations hold node ids of the same arena.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) pattern: Option<Regex>,
    pub(super) choices: Vec<Value>,
    pub(super) all_of: Vec<u32>,
    pub(super) any_of: Vec<u32>,
    pub(super) one_of: Vec<u32>,
    pub(super) not: Option<u32>,
    /// The keywords as they were written.
    pub(super) stated: Map<String, Value>,
}

impl Rules {
    /// The demands of a schema, less its combinations; `None` when it makes none.
    pub(super) fn read(schema: &Value) -> Result<Option<Self>, regex::Error> {
        let mut rules = Self::default();
        for keyword in KEYWORDS {
            if let Some(value) = schema.get(keyword) {
                rules.stated.insert(keyword.to_owned(), value.clone());
            }
        }
        if let Some(value) = schema.get("x-kubernetes-validations") {
            rules.stated.insert("x-kubernetes-validations".to_owned(), value.clone());
        }
        if rules.stated.is_empty() {
            return Ok(None);
        }
        let number = |name: &str| schema[name].as_f64();
        let count = |name: &str| schema[name].as_u64();
        rules.minimum = number("minimum");
        rules.maximum = number("maximum");
        rules.exclusive_minimum = schema["exclusiveMinimum"] == true;
        rules.exclusive_maximum = schema["exclusiveMaximum"] == true;
        rules.multiple_of = number("multipleOf").filter(|m| *m > 0.0);
        rules.min_length = count("minLength");
        rules.max_length = count("maxLength");
        rules.min_items = count("minItems");
        rules.max_items = count("maxItems");
        rules.min_properties = count("minProperties");
        rules.max_properties = count("maxProperties");
        rules.choices = schema["enum"].as_array().cloned().unwrap_or_default();
        if let Some(pattern) = schema["pattern"].as_str().filter(|p| !p.is_empty()) {
            rules.pattern = Some(Regex::new(pattern)?);
        }
        Ok(Some(rules))
    }
}
