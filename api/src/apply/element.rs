//! One step of a path into an object: a field, a list item by its keys, a set item by its value, or an index. Steps
//! have the order and the text forms of structured-merge-diff (`fieldpath.PathElement`).

use std::cmp::Ordering;
use std::fmt::{self, Write};

use serde_json::Value;

use super::values;

/// One step. Fields sort before keyed items, these before values, these before indices.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object or a key of a map.
    Field(Box<str>),
    /// An item of a list of type map: its key fields, sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// An item of a list of type set.
    Value(Value),
    /// An item by position. Nothing here makes these; they are kept where a client sent them.
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Key fields in any order.
    pub fn key(mut fields: Vec<(Box<str>, Value)>) -> Self {
        fields.sort_by(|(l, _), (r, _)| l.cmp(r));
        Self::Key(fields.into())
    }

    /// Reads the wire form, such as `f:spec` or `k:{"name":"c"}`. `Ok(None)` for kinds of step this server does not
    /// know: these are skipped.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        if !kind.ends_with(':') {
            return Err(format!("missing colon: {text}"));
        }
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| e.to_string());
        match kind {
            "f:" => Ok(Some(Self::field(rest))),
            "v:" => Ok(Some(Self::Value(json()?))),
            "k:" => match json()? {
                Value::Object(map) => Ok(Some(Self::key(map.into_iter().map(|(k, v)| (k.into(), v)).collect()))),
                _ => Err(format!("key is not an object: {text}")),
            },
            "i:" => rest.parse().map(|i| Some(Self::Index(i))).map_err(|_| format!("invalid index: {text}")),
            _ => Ok(None),
        }
    }

    /// Appends the wire form.
    pub(super) fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _infallible = match self {
            Self::Field(name) => write!(out, "f:{name}"),
            Self::Value(value) => write!(out, "v:{value}"),
            Self::Index(index) => write!(out, "i:{index}"),
            Self::Key(fields) => {
                out.push_str("k:{");
                for (i, (name, value)) in fields.iter().enumerate() {
                    let separator = if i > 0 { "," } else { "" };
                    let _infallible = write!(out, "{separator}{}:{value}", Value::from(&**name));
                }
                out.push('}');
                Ok(())
            }
        };
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(l), Self::Field(r)) => l.cmp(r),
            (Self::Key(l), Self::Key(r)) => {
                let pairs = l.iter().zip(r.iter());
                let first = pairs.map(|((ln, lv), (rn, rv))| ln.cmp(rn).then_with(|| values::order(lv, rv)));
                first.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| l.len().cmp(&r.len()))
            }
            (Self::Value(l), Self::Value(r)) => values::order(l, r),
            (Self::Index(l), Self::Index(r)) => l.cmp(r),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// As messages show it: `.spec`, `[name="c"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(fields) => {
                f.write_char('[')?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let separator = if i > 0 { "," } else { "" };
                    write!(f, "{separator}{name}={value}")?;
                }
                f.write_char(']')
            }
        }
    }
}

/// A path from the root of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}
