//! Schema-driven decoding of built-in kinds, straight from JSON text to the value that Go's types would hold.
//!
//! A value of the wrong type does not stop the reader: the first such error is kept, and told only if the text as a
//! whole is well formed, as Go does.

use serde_json::{Map, Number, Value};

use super::json_text::{Kind, Reader};
use super::untyped::{self, Path};
use super::{Decoded, Error, FieldValidation, Problems, TypeMeta, scalar};
use crate::quantity;
use crate::schema::{Schema, Shape, Zero};

struct Decoder<'b> {
    reader: Reader<'b>,
    problems: Problems,
    /// The first value of a wrong type.
    wrong: Option<String>,
}

/// What error messages say about where a value stands.
#[derive(Clone, Copy)]
struct Place<'p> {
    path: &'p Path<'p>,
    /// The innermost named type around the value; empty at the root.
    owner: &'p str,
}

pub(super) fn decode(schema: Schema<'_>, bytes: &[u8], mode: FieldValidation) -> Result<Decoded, Error> {
    let mut decoder = Decoder { reader: Reader::new(bytes), problems: Problems::new(mode), wrong: None };
    let object = decoder.value(schema, Place { path: &Path::Root, owner: "" })?;
    decoder.reader.end()?;
    if let Some(wrong) = decoder.wrong {
        return Err(Error::Type(wrong));
    }
    let object = if object.is_null() { zero_value(schema) } else { object };
    decoder.problems.settle(object, mode)
}

pub(super) fn type_meta(bytes: &[u8]) -> Result<TypeMeta, Error> {
    let mut reader = Reader::new(bytes);
    let mut meta = TypeMeta::default();
    let kind = reader.kind()?;
    let mut wrong = None;
    if kind != Kind::Object {
        reader.skip()?;
        if kind != Kind::Null {
            wrong = Some(format!("json: cannot unmarshal {} into Go value of type {TYPE_META}", kind.word()));
        }
    } else {
        reader.enter_object()?;
        let mut first = true;
        while let Some(key) = reader.next_key(first)? {
            first = false;
            let slot = match key.as_ref() {
                "apiVersion" => &mut meta.api_version,
                "kind" => &mut meta.kind,
                _ => {
                    reader.skip()?;
                    continue;
                }
            };
            match reader.kind()? {
                Kind::String => *slot = reader.string()?.into_owned(),
                Kind::Null => reader.null()?,
                kind => {
                    reader.skip()?;
                    wrong.get_or_insert_with(|| {
                        format!("json: cannot unmarshal {} into Go struct field .{key} of type string", kind.word())
                    });
                }
            }
        }
    }
    reader.end()?;
    wrong.map_or(Ok(meta), |wrong| Err(Error::Type(wrong)))
}

/// How Go prints the anonymous type that upstream reads version and kind into.
const TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// The last two parts of a type's name: `v1.PodSpec`.
fn short_name(name: &str) -> &str {
    name.rsplitn(3, '.').nth(2).map_or(name, |front| &name[front.len() + 1..])
}

/// A type as Go prints it.
fn go_type(schema: Schema<'_>) -> String {
    match schema.shape() {
        Shape::Object => short_name(schema.type_name().unwrap_or("struct {}")).to_owned(),
        Shape::List => schema.items().map_or_else(String::new, |items| format!("[]{}", go_type(items))),
        Shape::Map => schema.values().map_or_else(String::new, |values| format!("map[string]{}", go_type(values))),
        Shape::String if schema.format() == Some("byte") => "[]uint8".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::Integer => schema.format().unwrap_or("int64").to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::IntOrString => "int32".to_owned(),
        Shape::Any => "interface {}".to_owned(),
    }
}

/// The path as type errors show it: field names only.
fn field_path(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Index(parent, _) | Path::Entry(parent, _) => field_path(parent),
        Path::Key(parent, key) => {
            let parent = field_path(parent);
            if parent.is_empty() { (*key).to_owned() } else { format!("{parent}.{key}") }
        }
    }
}

/// Zero in Go's sense of a value that `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// What Go writes for a value that was never set.
pub(super) fn zero_value(schema: Schema<'_>) -> Value {
    match schema.shape() {
        Shape::Object => {
            let mut map = Map::new();
            fill(schema, &mut map);
            Value::Object(map)
        }
        Shape::String if schema.format() == Some("date-time") => Value::Null,
        Shape::String => Value::String(String::new()),
        Shape::IntOrString if schema.is_quantity() => Value::String("0".to_owned()),
        Shape::Integer | Shape::Number | Shape::IntOrString => Value::from(0),
        Shape::Boolean => Value::Bool(false),
        Shape::List | Shape::Map | Shape::Any => Value::Null,
    }
}

/// Adds the fields which Go writes always and which are not there.
fn fill(schema: Schema<'_>, map: &mut Map<String, Value>) {
    for (name, field) in schema.fields() {
        let value = match field.zero() {
            Zero::Emit if !map.contains_key(name) => zero_value(field),
            Zero::Null if !map.contains_key(name) => Value::Null,
            _ => continue,
        };
        map.insert(name.to_owned(), value);
    }
}

impl Decoder<'_> {
    fn refuse(&mut self, message: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(message());
        }
    }

    /// Reads over a value of a wrong type.
    fn mismatch(&mut self, schema: Schema<'_>, place: Place<'_>, what: &str) {
        self.refuse(|| {
            let into = go_type(schema);
            if place.owner.is_empty() {
                return format!("json: cannot unmarshal {what} into Go value of type {into}");
            }
            let owner = place.owner.rsplit('.').next().unwrap_or_default();
            let field = field_path(place.path);
            format!("json: cannot unmarshal {what} into Go struct field {owner}.{field} of type {into}")
        });
    }

    /// Reads the next value; null for null and for what could not be used.
    fn value(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        let kind = self.reader.kind()?;
        match (schema.shape(), kind) {
            (Shape::Any, _) => {
                // Upstream keeps such parts as raw text and does not look into them.
                return untyped::value(&mut self.reader, place.path, &mut Problems::default());
            }
            (_, Kind::Null) => self.reader.null()?,
            (Shape::Object, Kind::Object) => return self.object(schema, place),
            (Shape::Map, Kind::Object) => return self.map(schema, place),
            (Shape::List, Kind::Array) => return self.list(schema, place),
            (Shape::String, Kind::String) => return self.string(schema),
            (Shape::Integer, Kind::Number) => return self.integer(schema, place),
            (Shape::Number, Kind::Number) => {
                return Ok(self.reader.number()?.parse().map_or(Value::Null, untyped::float));
            }
            (Shape::Boolean, Kind::Bool) => return Ok(Value::Bool(self.reader.boolean()?)),
            (Shape::IntOrString, _) if schema.is_quantity() => return self.quantity(kind),
            (Shape::IntOrString, Kind::String) => return Ok(Value::String(self.reader.string()?.into_owned())),
            (Shape::IntOrString, Kind::Number) => return self.integer(schema, place),
            _ => {
                self.reader.skip()?;
                self.mismatch(schema, place, kind.word());
            }
        }
        Ok(Value::Null)
    }

    fn object(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        self.reader.enter_object()?;
        let owner = schema.type_name().unwrap_or(place.owner);
        let mut map = Map::new();
        let mut seen: Vec<u32> = Vec::new();
        let mut first = true;
        while let Some(key) = self.reader.next_key(first)? {
            first = false;
            let path = Path::Key(place.path, &key);
            let Some(field) = schema.field(&key) else {
                self.problems.push(|| format!("unknown field \"{path}\""));
                self.reader.skip()?;
                continue;
            };
            if seen.contains(&field.id()) {
                self.problems.push(|| format!("duplicate field \"{path}\""));
                map.remove(key.as_ref());
            } else {
                seen.push(field.id());
            }
            let value = self.value(field, Place { path: &path, owner })?;
            let value = match field.zero() {
                Zero::Keep if value.is_null() => continue,
                Zero::Drop if is_zero(&value) => continue,
                Zero::Emit if value.is_null() => zero_value(field),
                _ => value,
            };
            map.insert(key.into_owned(), value);
        }
        fill(schema, &mut map);
        Ok(Value::Object(map))
    }

    fn map(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        self.reader.enter_object()?;
        let mut map = Map::new();
        let mut first = true;
        while let Some(key) = self.reader.next_key(first)? {
            first = false;
            let path = Path::Entry(place.path, &key);
            if map.contains_key(key.as_ref()) {
                self.problems.push(|| format!("duplicate field \"{path}\""));
            }
            let value = match schema.values() {
                Some(values) => self.element(values, Place { path: &path, ..place })?,
                None => untyped::value(&mut self.reader, &path, &mut self.problems)?,
            };
            map.insert(key.into_owned(), value);
        }
        Ok(Value::Object(map))
    }

    fn list(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        self.reader.enter_array()?;
        let mut items = Vec::new();
        while self.reader.next_item(items.is_empty())? {
            let path = Path::Index(place.path, items.len());
            let item = match schema.items() {
                Some(item) => self.element(item, Place { path: &path, ..place })?,
                None => untyped::value(&mut self.reader, &path, &mut self.problems)?,
            };
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    /// A value of a map or an item of a list: null is the zero value there.
    fn element(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        let value = self.value(schema, place)?;
        Ok(if value.is_null() { zero_value(schema) } else { value })
    }

    fn string(&mut self, schema: Schema<'_>) -> Result<Value, Error> {
        let text = self.reader.string()?;
        let converted = match schema.format() {
            Some("date-time") => scalar::time(&text, schema.type_name().is_some_and(|n| n.ends_with(".MicroTime"))),
            Some("byte") => scalar::base64(&text),
            _ => return Ok(Value::String(text.into_owned())),
        };
        Ok(match converted {
            Ok(text) => Value::String(text),
            Err(message) => {
                self.refuse(|| message);
                Value::Null
            }
        })
    }

    fn integer(&mut self, schema: Schema<'_>, place: Place<'_>) -> Result<Value, Error> {
        let text = self.reader.number()?;
        let is_short = schema.format() == Some("int32") || schema.shape() == Shape::IntOrString;
        let value = if is_short { text.parse::<i32>().ok().map(i64::from) } else { text.parse::<i64>().ok() };
        if value.is_none() {
            self.mismatch(schema, place, &format!("number {text}"));
        }
        Ok(value.map_or(Value::Null, |v| Value::Number(Number::from(v))))
    }

    fn quantity(&mut self, kind: Kind) -> Result<Value, Error> {
        let canonical = match kind {
            Kind::String => quantity::canonical(&self.reader.string()?),
            Kind::Number => quantity::canonical(self.reader.number()?),
            _ => {
                self.reader.skip()?;
                Err(quantity::Error::Format)
            }
        };
        Ok(match canonical {
            Ok(text) => Value::String(text),
            Err(error) => {
                self.refuse(|| error.to_string());
                Value::Null
            }
        })
    }
}
