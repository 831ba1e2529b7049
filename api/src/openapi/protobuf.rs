//! The v2 document as gnostic's protobuf (`openapi.v2`), made from the same JSON pieces. Only the messages and fields
//! that the document uses are written; field numbers are those of `OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// Wire type of length-delimited fields.
const LENGTH_DELIMITED: u64 = 2;

/// A message under construction.
#[derive(Default)]
struct Message {
    out: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A text, left out when empty.
    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn text_of(&mut self, field: u64, object: &Map<String, Value>, name: &str) {
        self.text(field, object.get(name).and_then(Value::as_str).unwrap_or_default());
    }

    fn texts_of(&mut self, field: u64, object: &Map<String, Value>, name: &str) {
        for text in object.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag_of(&mut self, field: u64, object: &Map<String, Value>, name: &str) {
        if object.get(name).and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u64, message: Message) {
        self.bytes(field, &message.out);
    }

    /// A `Named…` entry: name and value.
    fn named(&mut self, field: u64, name: &str, value: Message) {
        let mut entry = Message::default();
        entry.text(1, name);
        entry.message(2, value);
        self.message(field, entry);
    }

    /// Extensions, as `NamedAny` with JSON for YAML.
    fn extensions(&mut self, field: u64, object: &Map<String, Value>) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, any(value));
        }
    }
}

/// The document's repeated parts, collected as they come.
#[derive(Default)]
pub(super) struct Document {
    paths: Message,
    definitions: Message,
    parameters: Message,
}

impl Document {
    pub(super) fn path(&mut self, name: &str, item: &Value) {
        self.paths.named(2, name, path_item(item));
    }

    pub(super) fn definition(&mut self, name: &str, value: &Value) {
        self.definitions.named(1, name, schema(value));
    }

    pub(super) fn parameter(&mut self, name: &str, value: &Value) {
        self.parameters.named(1, name, parameter(value));
    }

    pub(super) fn finish(self, info: &Value, (security_name, security): (&str, &Value)) -> Vec<u8> {
        let mut out = Message::default();
        out.text(1, "2.0");
        let mut message = Message::default();
        if let Some(info) = info.as_object() {
            message.text_of(1, info, "title");
            message.text_of(2, info, "version");
        }
        out.message(2, message);
        out.message(8, self.paths);
        out.message(9, self.definitions);
        out.message(10, self.parameters);
        let mut requirement = Message::default();
        requirement.named(1, security_name, Message::default());
        out.message(12, requirement);
        let mut key = Message::default();
        if let Some(security) = security.as_object() {
            key.text_of(1, security, "type");
            key.text_of(2, security, "name");
            key.text_of(3, security, "in");
            key.text_of(4, security, "description");
        }
        let mut item = Message::default();
        item.message(2, key);
        let mut definitions = Message::default();
        definitions.named(1, security_name, item);
        out.message(13, definitions);
        out.out
    }
}

fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, &value.to_string());
    out
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    let Some(item) = item.as_object() else { return out };
    let methods = [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (field, method) in methods {
        if let Some(value) = item.get(method).and_then(Value::as_object) {
            out.message(field, operation(value));
        }
    }
    parameters(&mut out, 9, item);
    out
}

fn operation(value: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    out.texts_of(1, value, "tags");
    out.text_of(3, value, "description");
    out.text_of(5, value, "operationId");
    out.texts_of(6, value, "produces");
    out.texts_of(7, value, "consumes");
    parameters(&mut out, 8, value);
    let mut responses = Message::default();
    for (code, answer) in value.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let Some(answer) = answer.as_object() else { continue };
        let mut response = Message::default();
        response.text_of(1, answer, "description");
        if let Some(value) = answer.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(value));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.named(1, code, value);
    }
    out.message(9, responses);
    out.texts_of(10, value, "schemes");
    out.extensions(13, value);
    out
}

/// `ParametersItem`s: parameters in place or references.
fn parameters(out: &mut Message, field: u64, object: &Map<String, Value>) {
    for value in object.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut item = Message::default();
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let mut message = Message::default();
                message.text(1, reference);
                item.message(2, message);
            }
            None => item.message(1, parameter(value)),
        }
        out.message(field, item);
    }
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(value) = value.as_object() else { return out };
    let mut inner = Message::default();
    let place = value.get("in").and_then(Value::as_str).unwrap_or_default();
    if place == "body" {
        inner.text_of(1, value, "description");
        inner.text_of(2, value, "name");
        inner.text_of(3, value, "in");
        inner.flag_of(4, value, "required");
        if let Some(value) = value.get("schema") {
            inner.message(5, schema(value));
        }
        out.message(1, inner);
        return out;
    }
    // Parameters in queries have one field more (allow_empty_value) before their type.
    let (at, shift) = if place == "query" { (3, 1) } else { (4, 0) };
    inner.flag_of(1, value, "required");
    inner.text_of(2, value, "in");
    inner.text_of(3, value, "description");
    inner.text_of(4, value, "name");
    inner.text_of(5 + shift, value, "type");
    inner.flag_of(19 + shift, value, "uniqueItems");
    let mut plain = Message::default();
    plain.message(at, inner);
    out.message(2, plain);
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(value) = value.as_object() else { return out };
    out.text_of(1, value, "$ref");
    out.text_of(2, value, "format");
    out.text_of(4, value, "description");
    if let Some(default) = value.get("default") {
        out.message(5, any(default));
    }
    out.text_of(13, value, "pattern");
    out.texts_of(19, value, "required");
    for choice in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.message(20, any(choice));
    }
    if let Some(values) = value.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(values));
        out.message(21, item);
    }
    if let Some(kind) = value.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.text(1, kind);
        out.message(22, item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        out.message(23, item);
    }
    if let Some(fields) = value.get("properties").and_then(Value::as_object) {
        let mut properties = Message::default();
        for (name, field) in fields {
            properties.named(1, name, schema(field));
        }
        out.message(25, properties);
    }
    out.extensions(31, value);
    out
}
