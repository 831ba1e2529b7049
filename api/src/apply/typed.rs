//! Schemas as structured-merge-diff sees them: what a value at a place may be (scalar, list, map), which lists have
//! items with an identity, and what is atomic. Undeclared places deduce their type from the value.

use std::fmt;

use serde_json::{Map, Value};

use super::element::Element;
use super::values;
use crate::schema::{ListType, Schema, Shape, Zero};

/// The type of a place in an object.
#[derive(Clone, Copy)]
pub(super) enum Type<'a> {
    /// Declared by a schema. `open`: unknown fields are allowed here and below.
    Declared { schema: Schema<'a>, open: bool },
    /// Not declared: objects merge field by field, lists are atomic.
    Deduced,
    /// Not declared, and atomic whatever it is.
    Opaque,
}

/// How a value is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Scalar,
    List,
}

/// How a list is merged.
#[derive(Clone, Copy)]
pub(super) enum ListRule<'a> {
    Atomic,
    /// Items are their own identity.
    Set,
    /// The identity of an item is in its key fields; `schema` is the list's.
    Map(Schema<'a>),
}

const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

impl<'a> Type<'a> {
    pub fn of(schema: Schema<'a>) -> Self {
        Self::declared(schema, false)
    }

    fn declared(schema: Schema<'a>, open: bool) -> Self {
        let open = open || schema.preserves_unknown();
        match schema.shape() {
            Shape::Any if schema.type_name() == Some(RAW_EXTENSION) => Self::Opaque,
            Shape::Any if schema.fields().next().is_none() && schema.values().is_none() => Self::Deduced,
            _ => Self::Declared { schema, open },
        }
    }

    /// What `value` is to be treated as. A null or absent value, and one of the wrong kind, is what the type is first
    /// of all (upstream's `deduceAtom` and `handleAtom`).
    pub fn kind(self, value: Option<&Value>) -> Kind {
        match self {
            Self::Declared { schema, .. } if schema.shape() != Shape::Any => match schema.shape() {
                Shape::Object | Shape::Map => Kind::Map,
                Shape::List => Kind::List,
                _ => Kind::Scalar,
            },
            _ => match value {
                None | Some(Value::Null | Value::Object(_)) => Kind::Map,
                Some(Value::Array(_)) => Kind::List,
                Some(_) => Kind::Scalar,
            },
        }
    }

    /// Maps and objects that are owned as a whole.
    pub fn map_is_atomic(self) -> bool {
        match self {
            Self::Declared { schema, .. } => schema.map_is_atomic(),
            Self::Deduced => false,
            Self::Opaque => true,
        }
    }

    /// The type of a field or map value; `None` where the schema knows of no such field.
    pub fn member(self, name: &str) -> Option<Self> {
        match self {
            Self::Declared { schema, open } => match schema.field(name).or_else(|| schema.values()) {
                Some(member) => Some(Self::declared(member, open)),
                // An object without any declared field is a free form one.
                None if open || schema.fields().next().is_none() => Some(Self::Deduced),
                None => None,
            },
            Self::Deduced => Some(Self::Deduced),
            Self::Opaque => Some(Self::Opaque),
        }
    }

    /// The schema of a named field, as opposed to a map key.
    pub fn named_field(self, name: &str) -> Option<Schema<'a>> {
        match self {
            Self::Declared { schema, .. } if schema.shape() != Shape::Map => schema.field(name),
            _ => None,
        }
    }

    pub fn list_rule(self) -> ListRule<'a> {
        match self {
            Self::Declared { schema, .. } => match schema.list_type() {
                ListType::Map => ListRule::Map(schema),
                ListType::Set => ListRule::Set,
                ListType::Atomic => ListRule::Atomic,
            },
            _ => ListRule::Atomic,
        }
    }

    pub fn items(self) -> Self {
        match self {
            Self::Declared { schema, open } => schema.items().map_or(Self::Opaque, |items| Self::declared(items, open)),
            _ => Self::Opaque,
        }
    }
}

impl ListRule<'_> {
    pub fn is_atomic(self) -> bool {
        matches!(self, Self::Atomic)
    }

    /// The step that leads to an item.
    pub fn identity(self, item: &Value) -> Result<Element, String> {
        match self {
            Self::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            Self::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Element::Value(scalar.clone())),
            },
            Self::Map(list) => keyed_identity(list, item),
        }
    }
}

fn keyed_identity(list: Schema<'_>, item: &Value) -> Result<Element, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut fields = Vec::new();
    for key in list.list_map_keys() {
        let value = map.get(key).cloned().or_else(|| key_default(list, key));
        if let Some(value) = value {
            fields.push((key.into(), value));
        }
    }
    if fields.is_empty() {
        let keys: Vec<String> = list.list_map_keys().map(|k| format!("{k:?}")).collect();
        let keys = keys.join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{keys}] (and doesn't have default values for any key fields)"
        ));
    }
    Ok(Element::key(fields))
}

/// The value of a key field that an item leaves out: the stated default, or the zero value of a field that upstream's
/// types always write.
fn key_default(list: Schema<'_>, key: &str) -> Option<Value> {
    let field = list.items()?.field(key)?;
    if let Some(default) = field.default() {
        return Some(default.clone());
    }
    match field.zero() {
        Zero::Emit => values::implied(field).filter(|value| !value.is_null() && !value.is_object()).cloned(),
        _ => None,
    }
}

/// What is wrong with an applied object, worded as upstream's typed values word it.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, path: &str, message: impl fmt::Display) {
        self.0.push(if path.is_empty() { message.to_string() } else { format!("{path}: {message}") });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Checks that `value` fits its schema and that no list has two items of the same identity.
pub(super) fn check(schema: Schema<'_>, value: &Value) -> Problems {
    let mut problems = Problems::default();
    check_value(Type::of(schema), value, &mut String::new(), &mut problems);
    problems
}

fn check_value(ty: Type<'_>, value: &Value, path: &mut String, problems: &mut Problems) {
    match (ty.kind(Some(value)), value) {
        (_, Value::Null) => {}
        (Kind::Map, Value::Object(map)) => check_map(ty, map, path, problems),
        (Kind::List, Value::Array(items)) => check_list(ty, items, path, problems),
        (Kind::Scalar, value) => check_scalar(ty, value, path, problems),
        (Kind::Map, other) => problems.add(path, format_args!("expected map, got &{{{other}}}")),
        (Kind::List, other) => problems.add(path, format_args!("expected list, got &{{{other}}}")),
    }
}

fn check_map(ty: Type<'_>, map: &Map<String, Value>, path: &mut String, problems: &mut Problems) {
    for (key, value) in map {
        let len = path.len();
        path.push('.');
        path.push_str(key);
        match ty.member(key) {
            Some(member) => check_value(member, value, path, problems),
            None => problems.add(path, "field not declared in schema"),
        }
        path.truncate(len);
    }
}

fn check_list(ty: Type<'_>, items: &[Value], path: &mut String, problems: &mut Problems) {
    let rule = ty.list_rule();
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let element = if rule.is_atomic() {
            Element::Index(i64::try_from(i).unwrap_or(i64::MAX))
        } else {
            match rule.identity(item) {
                Ok(element) => element,
                Err(why) => {
                    problems.add(path, format_args!("element {i}: {why}"));
                    return;
                }
            }
        };
        let len = path.len();
        let step = element.to_string();
        if !seen.insert(element) {
            problems.add(path, format_args!("duplicate entries for key {step}"));
        }
        path.push_str(&step);
        check_value(ty.items(), item, path, problems);
        path.truncate(len);
    }
}

fn check_scalar(ty: Type<'_>, value: &Value, path: &str, problems: &mut Problems) {
    let Type::Declared { schema, .. } = ty else { return };
    let (fits, expected) = match schema.shape() {
        Shape::Integer | Shape::Number => (value.is_number(), "numeric (int or float)"),
        Shape::Boolean => (value.is_boolean(), "boolean"),
        // Quantities, times and other formatted texts are any scalar to upstream.
        Shape::String if !schema.is_quantity() && matches!(schema.format(), None | Some("byte")) => {
            (value.is_string(), "string")
        }
        _ => (!value.is_array() && !value.is_object(), "any scalar"),
    };
    if !fits {
        problems.add(path, format_args!("expected {expected}, got &{{{value}}}"));
    }
}
