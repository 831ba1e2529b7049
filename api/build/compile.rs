//! Definitions and tables to arena nodes. Every use of a type gets a node: a field that refers to a named type shares
//! the type's field table and carries its own description and merge rules.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::encode::{
    ATOMIC, ListType, MERGE_TYPE_STATED, Node, PATCH_MERGE, PATCH_REPLACE, PATCH_RETAIN_KEYS, PRESERVES_UNKNOWN,
    QUANTITY, RAW_OBJECT, Shape, Writer,
};
use crate::tables::{MergeRule, Tables};

pub struct Compiled {
    pub words: Vec<u8>,
    pub text: String,
    pub defaults: Value,
}

struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    tables: &'a Tables,
    writer: Writer,
    types: HashMap<&'a str, u32>,
    defaults: Vec<Value>,
}

pub fn compile(definitions: &Map<String, Value>, tables: &Tables) -> Compiled {
    let mut compiler =
        Compiler { definitions, tables, writer: Writer::default(), types: HashMap::new(), defaults: Vec::new() };
    for name in definitions.keys() {
        let id = compiler.writer.reserve();
        compiler.writer.add_type(name, id);
        compiler.types.insert(name, id);
    }
    for (name, definition) in definitions {
        let node = compiler.named(name, definition);
        compiler.writer.set(compiler.types[name.as_str()], node);
    }
    let (words, text) = compiler.writer.finish();
    Compiled { words, text, defaults: Value::Array(compiler.defaults) }
}

fn str_at<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

impl Compiler<'_> {
    /// The node of a type itself.
    fn named(&mut self, name: &str, definition: &Value) -> Node {
        let mut node = self.node(name, definition);
        node.type_name = name.to_owned();
        if !is_list(name, definition) {
            node.required = self.tables.required(name);
        }
        apply(&mut node, self.tables.merge_rule(name, "."));
        node
    }

    /// The node for a use of a schema inside `owner`: inline, or a reference to a named type.
    fn node(&mut self, owner: &str, schema: &Value) -> Node {
        let mut node = match reference(schema) {
            Some(target) => self.use_of(target),
            None => self.inline(owner, schema),
        };
        let description = str_at(schema, "description");
        if !description.is_empty() {
            node.description = description.to_owned();
        }
        node
    }

    /// A node that refers to the type `target`, sharing its field table.
    fn use_of(&mut self, target: &str) -> Node {
        let definitions = self.definitions;
        let definition = definitions.get(target).unwrap_or_else(|| panic!("no definition of {target}"));
        let mut node = self.inline_shape(definition);
        if definition.get("additionalProperties").is_some() {
            node = self.inline(target, definition);
        }
        node.fields_of = self.types.get(target).copied();
        node.fields.clear();
        node.required = if is_list(target, definition) { required(definition) } else { self.tables.required(target) };
        node.type_name = target.to_owned();
        node.description.clear();
        special(&mut node, target);
        apply(&mut node, self.tables.merge_rule(target, "."));
        node
    }

    /// Shape, format and flags of a schema that is not a reference.
    fn inline_shape(&self, schema: &Value) -> Node {
        let mut node = Node { format: str_at(schema, "format").to_owned(), ..Node::default() };
        node.shape = match str_at(schema, "type") {
            "array" => Shape::List,
            "string" => Shape::String,
            "integer" => Shape::Integer,
            "number" => Shape::Number,
            "boolean" => Shape::Boolean,
            "object" if schema.get("additionalProperties").is_some() => Shape::Map,
            "object" if schema.get("properties").is_some() => Shape::Object,
            _ if schema["x-kubernetes-int-or-string"] == true => Shape::IntOrString,
            _ => Shape::Any,
        };
        if node.shape == Shape::Any {
            node.flags |= PRESERVES_UNKNOWN;
            if str_at(schema, "type") == "object" {
                node.flags |= RAW_OBJECT;
            }
        }
        node
    }

    fn inline(&mut self, owner: &str, schema: &Value) -> Node {
        let mut node = self.inline_shape(schema);
        node.required = required(schema);
        if let Some(items) = schema.get("items") {
            let items = self.node(owner, items);
            node.child = Some(self.writer.add(items));
        }
        if let Some(values) = schema.get("additionalProperties") {
            let values = self.node(owner, values);
            node.child = Some(self.writer.add(values));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let field = self.field(owner, name, field);
            let id = self.writer.add(field);
            node.fields.push((name.clone(), id));
        }
        special(&mut node, owner);
        node
    }

    fn field(&mut self, owner: &str, name: &str, schema: &Value) -> Node {
        let mut node = self.node(owner, schema);
        node.zero = self.tables.zero(owner, name);
        node.numbers = self.tables.numbers(owner, name);
        apply(&mut node, self.tables.merge_rule(owner, name));
        if let Some(default) = self.tables.default(owner, name) {
            node.extra = Some(self.defaults.len() as u32);
            self.defaults.push(default.clone());
        }
        node
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

fn required(schema: &Value) -> Vec<String> {
    schema["required"].as_array().into_iter().flatten().filter_map(|r| r.as_str().map(str::to_owned)).collect()
}

/// Whether a type is a list kind, as `roots::add_lists` makes them.
fn is_list(name: &str, definition: &Value) -> bool {
    name.ends_with("List") && definition["properties"].get("items").is_some()
}

/// Types whose wire form their schema does not tell.
fn special(node: &mut Node, name: &str) {
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" if node.shape == Shape::IntOrString => node.flags |= QUANTITY,
        "JSON" => node.flags &= !RAW_OBJECT,
        "IntOrString" if node.shape == Shape::IntOrString => node.format = "int-or-string".to_owned(),
        _ => {}
    }
}

fn apply(node: &mut Node, rule: MergeRule) {
    match rule.list_type.as_str() {
        "set" => node.list_type = ListType::Set,
        "map" => node.list_type = ListType::Map,
        "atomic" => node.list_type = ListType::Atomic,
        _ => {}
    }
    if !rule.list_type.is_empty() || !rule.map_type.is_empty() {
        node.flags |= MERGE_TYPE_STATED;
    }
    if !rule.list_map_keys.is_empty() {
        node.keys = rule.list_map_keys;
    }
    for strategy in &rule.patch_strategies {
        node.flags |= match strategy.as_str() {
            "merge" => PATCH_MERGE,
            "replace" => PATCH_REPLACE,
            "retainKeys" => PATCH_RETAIN_KEYS,
            other => panic!("merge-rules.tsv: unknown patch strategy {other}"),
        };
    }
    if !rule.patch_merge_key.is_empty() {
        node.merge_key = rule.patch_merge_key;
    }
    match rule.map_type.as_str() {
        "atomic" => node.flags |= ATOMIC,
        "granular" => node.flags &= !ATOMIC,
        _ => {}
    }
}
