//! The `openAPIV3Schema` of a CustomResourceDefinition to an arena. The root gets `apiVersion`, `kind` and `metadata`
//! of the built-in types, so that merging and applying treat them as they do everywhere.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::encode::{
    ATOMIC, EMBEDDED, ListType, MERGE_TYPE_STATED, NULLABLE, Node, PRESERVES_UNKNOWN, QUANTITY, Shape, Writer,
};
use super::rules::Rules;
use super::{Extra, Schema, Schemas};

/// Deepest nesting of a schema.
const MAX_DEPTH_LEVELS: usize = 100;

/// Why a schema can't be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("{path}: the pattern {pattern:?} is no regular expression: {why}")]
    Pattern { path: String, pattern: String, why: String },
    #[error("{path}: nested deeper than {MAX_DEPTH_LEVELS} levels")]
    TooDeep { path: String },
}

struct Compiler {
    writer: Writer,
    extras: Vec<Extra>,
}

impl Schemas {
    /// Compiles the schema of a custom resource's version. Returns the arena and the id of its root node.
    pub fn compile(openapi_v3: &Value) -> Result<(Arc<Schemas>, u32), Error> {
        let mut compiler = Compiler { writer: Writer::default(), extras: Vec::new() };
        let mut root = compiler.node(openapi_v3, "", 0)?;
        compiler.add_meta(&mut root);
        let id = compiler.writer.add(root);
        let (words, text) = compiler.writer.finish();
        let schemas = Schemas {
            words: Cow::Owned(words),
            text: Cow::Owned(text),
            extras: compiler.extras,
            structural: true,
            digest: OnceLock::new(),
        };
        Ok((Arc::new(schemas), id))
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn shape(schema: &Value) -> Shape {
    if schema["x-kubernetes-int-or-string"] == true {
        return Shape::IntOrString;
    }
    match schema["type"].as_str() {
        Some("object") => match schema.get("additionalProperties") {
            Some(Value::Object(_) | Value::Bool(true)) => Shape::Map,
            _ => Shape::Object,
        },
        Some("array") => Shape::List,
        Some("string") => Shape::String,
        Some("integer") => Shape::Integer,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        _ => Shape::Any,
    }
}

impl Compiler {
    fn node(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Node, Error> {
        if depth > MAX_DEPTH_LEVELS {
            return Err(Error::TooDeep { path: path.to_owned() });
        }
        let mut node = Node {
            shape: shape(schema),
            description: text(&schema["description"]),
            format: text(&schema["format"]),
            required: texts(&schema["required"]),
            keys: texts(&schema["x-kubernetes-list-map-keys"]),
            ..Node::default()
        };
        merge_types(&mut node, schema);
        for (keyword, flag) in [
            ("x-kubernetes-preserve-unknown-fields", PRESERVES_UNKNOWN),
            ("x-kubernetes-embedded-resource", EMBEDDED),
            ("nullable", NULLABLE),
        ] {
            if schema[keyword] == true {
                node.flags |= flag;
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let field = self.node(field, &format!("{path}.{name}"), depth + 1)?;
            node.fields.push((name.clone(), self.writer.add(field)));
        }
        let part = match node.shape {
            Shape::List => schema.get("items"),
            _ => schema.get("additionalProperties").filter(|v| v.is_object()),
        };
        if let Some(part) = part {
            let part = self.node(part, &format!("{path}[]"), depth + 1)?;
            node.child = Some(self.writer.add(part));
        }
        self.extra(&mut node, schema, path, depth)?;
        Ok(node)
    }

    /// Default and rules, if there are any.
    fn extra(&mut self, node: &mut Node, schema: &Value, path: &str, depth: usize) -> Result<(), Error> {
        let refused = |error: regex::Error| Error::Pattern {
            path: path.to_owned(),
            pattern: text(&schema["pattern"]),
            why: error.to_string(),
        };
        let mut rules = Rules::read(schema).map_err(refused)?;
        if let Some(rules) = &mut rules {
            rules.all_of = self.combined(&schema["allOf"], path, depth)?;
            rules.any_of = self.combined(&schema["anyOf"], path, depth)?;
            rules.one_of = self.combined(&schema["oneOf"], path, depth)?;
            if let Some(not) = schema.get("not") {
                let not = self.node(not, path, depth + 1)?;
                rules.not = Some(self.writer.add(not));
            }
        }
        let default = schema.get("default").cloned();
        if default.is_some() || rules.is_some() {
            node.extra = Some(self.extras.len() as u32);
            self.extras.push(Extra { default, rules: rules.map(Box::new) });
        }
        Ok(())
    }

    fn combined(&mut self, list: &Value, path: &str, depth: usize) -> Result<Vec<u32>, Error> {
        let mut out = Vec::new();
        for schema in list.as_array().into_iter().flatten() {
            let node = self.node(schema, path, depth + 1)?;
            out.push(self.writer.add(node));
        }
        Ok(out)
    }

    /// `apiVersion`, `kind` and `metadata` of the root. What the schema says of `metadata.name` and
    /// `metadata.generateName` stays as rules of those fields.
    fn add_meta(&mut self, root: &mut Node) {
        let stated = root.fields.iter().find(|(name, _)| name == "metadata").map(|(_, id)| *id);
        root.fields.retain(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        for name in ["apiVersion", "kind"] {
            let node = Node { shape: Shape::String, ..Node::default() };
            root.fields.push((name.to_owned(), self.writer.add(node)));
        }
        let Some(meta) = Schemas::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
            return;
        };
        let metadata = self.copy(meta);
        if let Some(stated) = stated {
            for name in ["name", "generateName"] {
                let extra = self.writer.field(stated, name).and_then(|id| self.writer.node(id)).and_then(|n| n.extra);
                let field = metadata.fields.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
                if let (Some(extra), Some(node)) = (extra, field.and_then(|id| self.writer.node_mut(id))) {
                    node.extra = Some(extra);
                }
            }
        }
        root.fields.push(("metadata".to_owned(), self.writer.add(metadata)));
    }

    /// A copy of a built-in node and of everything below it, without descriptions and without required fields, which
    /// metadata's own validation asks for.
    fn copy(&mut self, schema: Schema<'_>) -> Node {
        let strategies = schema.patch_strategies();
        let mut node = Node {
            shape: schema.shape(),
            list_type: schema.list_type(),
            zero: schema.zero(),
            type_name: schema.type_name().unwrap_or_default().to_owned(),
            format: schema.format().unwrap_or_default().to_owned(),
            keys: schema.list_map_keys().map(str::to_owned).collect(),
            merge_key: schema.patch_merge_key().unwrap_or_default().to_owned(),
            ..Node::default()
        };
        for (is_set, flag) in [
            (schema.map_is_atomic(), ATOMIC),
            (schema.states_merge_type(), MERGE_TYPE_STATED),
            (schema.preserves_unknown(), PRESERVES_UNKNOWN),
            (schema.is_quantity(), QUANTITY),
            (strategies.merge, super::encode::PATCH_MERGE),
        ] {
            if is_set {
                node.flags |= flag;
            }
        }
        for (name, field) in schema.fields() {
            let field = self.copy(field);
            node.fields.push((name.to_owned(), self.writer.add(field)));
        }
        if let Some(part) = schema.items().or_else(|| schema.values()) {
            let part = self.copy(part);
            node.child = Some(self.writer.add(part));
        }
        node
    }
}

fn merge_types(node: &mut Node, schema: &Value) {
    if let Some(list_type) = schema["x-kubernetes-list-type"].as_str() {
        node.flags |= MERGE_TYPE_STATED;
        node.list_type = match list_type {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        };
    }
    if let Some(map_type) = schema["x-kubernetes-map-type"].as_str() {
        node.flags |= MERGE_TYPE_STATED;
        if map_type == "atomic" {
            node.flags |= ATOMIC;
        }
    }
}
