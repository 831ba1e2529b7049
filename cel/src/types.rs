//! Types as the checker knows them. `Sized` bounds what a schema bounds; it says nothing about which values fit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Type {
    /// Only known when evaluated.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// Of types themselves.
    Type,
    Object(Arc<Object>),
    /// A type of a library, or one whose fields are not declared (`Object.spec` of mutations).
    Named(Arc<str>),
    /// Stands for any one type in a declaration; numbered anew for each call.
    Param(u32),
    /// At most so long: characters of a string, items of a list, entries of a map.
    Sized(Arc<Type>, u64),
}

/// Fields by name, as expressions write them (escaped).
#[derive(Debug, PartialEq)]
pub struct Object {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Type>,
}

impl Type {
    pub fn list(items: Type) -> Self {
        Self::List(Arc::new(items))
    }

    pub fn map(keys: Type, values: Type) -> Self {
        Self::Map(Arc::new(keys), Arc::new(values))
    }

    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub fn named(name: &str) -> Self {
        Self::Named(name.into())
    }

    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
        Self::Object(Arc::new(Object { name: name.into(), fields }))
    }

    #[must_use]
    pub fn sized(self, max: Option<u64>) -> Self {
        match max {
            Some(max) => Self::Sized(Arc::new(self), max),
            None => self,
        }
    }

    /// Without its bound.
    pub fn base(&self) -> &Type {
        match self {
            Self::Sized(inner, _) => inner.base(),
            other => other,
        }
    }

    pub fn size_max(&self) -> Option<u64> {
        match self {
            Self::Sized(_, max) => Some(*max),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Param(_) => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Type => f.write_str("type"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Named(name) => f.write_str(name),
            Self::Sized(inner, _) => inner.fmt(f),
        }
    }
}
