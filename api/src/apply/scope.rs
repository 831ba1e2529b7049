//! What a request's endpoint contributes to ownership: the type, the version, and the fields nobody owns through it.

use std::borrow::Cow;

use serde_json::Value;

use super::compare::{Changes, Typed, compare};
use super::set::Set;
use super::typed::Type;
use super::versions::Versions;
use crate::schema::Schema;

pub(super) struct Scope<'a> {
    pub schema: Schema<'a>,
    pub api_version: &'a str,
    pub reset_fields: Set,
    pub only_fields: &'a [&'a str],
    pub versions: Option<&'a dyn Versions>,
}

/// The two objects of a write, and what it changes.
pub(super) struct Write<'v> {
    live: &'v Value,
    new: &'v Value,
    typed: Typed,
    pub changes: Changes,
}

impl<'a> Scope<'a> {
    pub fn ty(&self) -> Type<'a> {
        Type::of(self.schema)
    }

    /// Whether versions other than the request's need a look of their own.
    pub fn is_foreign(&self, api_version: &str) -> bool {
        self.versions.is_some() && api_version != self.api_version
    }

    /// `object`, which may be in any version, and its type in a version; `None` when that version is gone.
    pub fn at<'v>(&self, object: &'v Value, api_version: &str) -> Option<(Type<'a>, Cow<'v, Value>)> {
        let Some(versions) = self.versions else { return Some((self.ty(), Cow::Borrowed(object))) };
        let schema = if api_version == self.api_version { self.schema } else { versions.schema(api_version)? };
        // What is compared with on creation is in no version.
        let stated = object.get("apiVersion").and_then(Value::as_str).unwrap_or(self.api_version);
        let object = if stated == api_version {
            Cow::Borrowed(object)
        } else {
            Cow::Owned(versions.convert(object, api_version)?)
        };
        Some((Type::of(schema), object))
    }

    /// Compares what was and what is to be, as far as this endpoint can own it.
    pub fn write<'v>(&self, live: &'v Value, new: &'v Value, typed: Typed) -> Write<'v> {
        let changes = self.filter_changes(compare(self.ty(), live, new, typed));
        Write { live, new, typed, changes }
    }

    /// The changes of a write in another version; `None` when that version is gone.
    pub fn changes_at(&self, write: &Write<'_>, api_version: &str) -> Option<Changes> {
        let (ty, live) = self.at(write.live, api_version)?;
        let (_, new) = self.at(write.new, api_version)?;
        Some(self.filter_changes(compare(ty, &live, &new, write.typed)))
    }

    fn filter_changes(&self, changes: Changes) -> Changes {
        Changes {
            added: self.filter(changes.added),
            modified: self.filter(changes.modified),
            removed: self.filter(changes.removed),
        }
    }

    /// The part of `set` that can be owned through this endpoint.
    pub fn filter(&self, set: Set) -> Set {
        let mut set = set;
        if !self.only_fields.is_empty() && !set.is_empty() {
            let patterns: Vec<Vec<&str>> = self.only_fields.iter().map(|path| path.split('.').collect()).collect();
            set = set.matching(&patterns);
        }
        set.subtract_with_descendants(&self.reset_fields);
        set
    }
}
