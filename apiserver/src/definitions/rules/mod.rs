//! Rules of definitions on their resources (`x-kubernetes-validations`): checked with the definition, and run on each
//! object that is created or changed.

mod check;
mod run;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use api::field::Error;
use cel::{Env, Program, Type};
use serde_json::Value;

pub use check::check;

const FIELD: &str = "x-kubernetes-validations";

/// The rules of one version.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    schema: Value,
    tree: OnceLock<Option<Box<Node>>>,
}

impl Rules {
    /// Of a schema; without rules nothing is kept of it.
    pub(super) fn new(schema: &Value) -> Self {
        Self { schema: if states_rules(schema) { schema.clone() } else { Value::Null }, tree: OnceLock::new() }
    }

    pub(super) fn schema(&self) -> &Value {
        &self.schema
    }

    pub(super) fn broken(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        if self.schema.is_null() {
            return Vec::new();
        }
        match self.tree.get_or_init(|| Node::compile(&self.schema, true).map(Box::new)) {
            Some(tree) => run::run(tree, &self.schema, object, old),
            None => Vec::new(),
        }
    }
}

fn states_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.get(FIELD).and_then(Value::as_array).is_some_and(|rules| !rules.is_empty())
                || map.values().any(states_rules)
        }
        Value::Array(list) => list.iter().any(states_rules),
        _ => false,
    }
}

/// One rule as it is stated, with what is compiled of it.
#[derive(Clone, Debug)]
struct Rule {
    stated: Value,
    program: Result<Program, String>,
    message: Option<Result<Program, String>>,
    uses_old: bool,
    optional_old: bool,
}

impl Rule {
    fn new(stated: &Value, self_type: &Type) -> Self {
        let text = |field: &str| stated[field].as_str().unwrap_or_default();
        let optional_old = stated["optionalOldSelf"].as_bool().unwrap_or(false);
        let old_type = if optional_old { Type::optional(self_type.clone()) } else { self_type.clone() };
        let env = Env::default().with("self", self_type.clone()).with("oldSelf", old_type);
        let program = env.compile(text("rule")).map_err(|error| format!("compilation failed: {error}"));
        let program = program.and_then(|program| match program.result_type() {
            Type::Bool => Ok(program),
            _ => Err("cel expression must evaluate to a bool".to_owned()),
        });
        let message = Some(text("messageExpression")).filter(|source| !source.trim().is_empty()).map(|source| {
            let program = env.compile(source).map_err(|error| format!("messageExpression compilation failed: {error}"));
            program.and_then(|program| match program.result_type() {
                Type::String => Ok(program),
                _ => Err("messageExpression must evaluate to a string".to_owned()),
            })
        });
        let uses_old = program.as_ref().is_ok_and(|program| program.reads("oldSelf"));
        Self { stated: stated.clone(), program, message, uses_old, optional_old }
    }

    fn text(&self, field: &str) -> &str {
        self.stated[field].as_str().unwrap_or_default().trim()
    }
}

/// A part of a schema that has rules, or parts with rules.
#[derive(Clone, Debug, Default)]
struct Node {
    kind: String,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    values: Option<Box<Node>>,
    items: Option<Box<Node>>,
    /// Keys by which items are known again; without them old and new items don't correspond.
    map_keys: Vec<String>,
    /// Entries correspond to those of the old object.
    correlates: bool,
}

fn stated_rules(schema: &Value) -> impl Iterator<Item = &Value> {
    schema[FIELD].as_array().into_iter().flatten()
}

fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"].as_bool().unwrap_or(false)
}

impl Node {
    fn compile(schema: &Value, is_root: bool) -> Option<Self> {
        if !states_rules(schema) {
            return None;
        }
        let ty = cel::schema::type_of(schema, is_root);
        let rules = stated_rules(schema).map(|stated| Rule::new(stated, ty.as_ref().unwrap_or(&Type::Dyn)));
        let child = |schema: &Value| Self::compile(schema, is_embedded(schema)).map(Box::new);
        let properties = schema["properties"].as_object().into_iter().flatten();
        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        let is_map_list = schema["x-kubernetes-list-type"] == "map";
        Some(Self {
            kind: schema["type"].as_str().unwrap_or_default().to_owned(),
            rules: rules.collect(),
            properties: properties
                .filter_map(|(name, property)| Some((name.clone(), Self::compile(property, is_embedded(property))?)))
                .collect(),
            values: child(&schema["additionalProperties"]),
            items: child(&schema["items"]),
            map_keys: keys.filter(|_| is_map_list).filter_map(|key| key.as_str().map(str::to_owned)).collect(),
            correlates: schema["x-kubernetes-map-type"] != "atomic",
        })
    }
}
