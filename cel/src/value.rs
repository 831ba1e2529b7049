//! Values: cheap to clone, compared as the language compares them (numbers across their types, sets without order).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use api::quantity::Quantity;

use crate::budget::Budget;
use crate::error::Error;
use crate::functions::format::Format;
use crate::functions::network::Cidr;
use crate::functions::semver::Semver;
use crate::functions::url::Url;

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(jiff::Timestamp),
    List(Arc<List>),
    Map(Arc<Map>),
    Optional(Option<Arc<Value>>),
    Type(Arc<str>),
    Quantity(Quantity),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Semver>),
    Format(&'static Format),
    Host(Arc<dyn Host>),
}

/// A value the embedder provides: read field by field, or called.
pub trait Host: fmt::Debug + Send + Sync {
    fn type_name(&self) -> &str;

    /// `None`: there is no such field.
    fn field(&self, _name: &str, _budget: &mut Budget) -> Option<Result<Value, Error>> {
        None
    }

    fn call(&self, _function: &str, _args: &[Value]) -> Result<Value, Error> {
        Err(Error::NoSuchOverload)
    }
}

#[derive(Debug, Default)]
pub struct List {
    pub items: Vec<Value>,
    pub kind: ListKind,
}

/// How a list of a schema is compared and added to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// Items are objects, told apart by these fields.
    Map(Arc<[Arc<str>]>),
}

#[derive(Debug, Default)]
pub struct Map {
    pub entries: BTreeMap<Key, Value>,
    /// Of an object that an expression constructed.
    pub type_name: Option<Arc<str>>,
    /// What a missing key reads as, where one that is missing is no error.
    pub default: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Only what is no `Int`.
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(i) => Self::Int(*i),
            Value::Uint(u) => i64::try_from(*u).map_or(Self::Uint(*u), Self::Int),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9e18 => Self::Int(*d as i64),
            Value::String(text) => Self::String(Arc::clone(text)),
            _ => return None,
        })
    }

    pub fn value(&self) -> Value {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => Value::Int(*i),
            Self::Uint(u) => Value::Uint(*u),
            Self::String(text) => Value::String(Arc::clone(text)),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(i) => i.fmt(f),
            Self::Uint(u) => u.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl Value {
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(List { items, kind: ListKind::Atomic }))
    }

    pub fn map(entries: impl IntoIterator<Item = (Key, Value)>) -> Self {
        Self::Map(Arc::new(Map { entries: entries.into_iter().collect(), type_name: None, default: None }))
    }

    pub fn some(value: Value) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// What `type()` says.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(map) => map.type_name.as_deref().unwrap_or("map"),
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Host(host) => host.type_name(),
        }
    }

    /// What a cost counts: characters, bytes, items, entries; one of all else.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.items.len() as u64,
            Self::Map(map) => map.entries.len() as u64,
            _ => 1,
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(i) => *i == 0,
            Self::Uint(u) => *u == 0,
            Self::Double(d) => *d == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::List(list) => list.items.is_empty(),
            Self::Map(map) => map.entries.is_empty(),
            Self::Optional(inner) => inner.is_none(),
            Self::Duration(nanos) => *nanos == 0,
            _ => false,
        }
    }

    pub(crate) fn non_zero(value: &Value) -> Value {
        if value.is_zero() { Self::Optional(None) } else { Self::some(value.clone()) }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::List(a), Self::List(b)) => lists_equal(a, b),
            (Self::Map(a), Self::Map(b)) => a.entries == b.entries,
            (Self::Optional(a), Self::Optional(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b).is_eq(),
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => std::ptr::eq(*a, *b),
            _ => crate::operators::order(self, other).is_some_and(std::cmp::Ordering::is_eq),
        }
    }
}

fn lists_equal(a: &List, b: &List) -> bool {
    if a.items.len() != b.items.len() {
        return false;
    }
    match &a.kind {
        ListKind::Atomic => a.items == b.items,
        ListKind::Set => a.items.iter().all(|item| b.items.contains(item)),
        ListKind::Map(keys) => {
            let same_key = |x: &Value, y: &Value| keys.iter().all(|key| member(x, key) == member(y, key));
            a.items.iter().all(|x| b.items.iter().any(|y| same_key(x, y) && x == y))
        }
    }
}

fn member<'a>(value: &'a Value, key: &Arc<str>) -> Option<&'a Value> {
    match value {
        Value::Map(map) => map.entries.get(&Key::String(Arc::clone(key))),
        _ => None,
    }
}

impl List {
    /// What `+` of two lists is: sets unite, items with the same key are replaced in place.
    pub fn plus(&self, other: &List) -> List {
        let mut items = self.items.clone();
        match &self.kind {
            ListKind::Atomic => items.extend(other.items.iter().cloned()),
            ListKind::Set => {
                for item in &other.items {
                    if !items.contains(item) {
                        items.push(item.clone());
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in &other.items {
                    let same = |x: &&mut Value| keys.iter().all(|key| member(x, key) == member(item, key));
                    match items.iter_mut().find(same) {
                        Some(found) => *found = item.clone(),
                        None => items.push(item.clone()),
                    }
                }
            }
        }
        List { items, kind: self.kind.clone() }
    }
}
