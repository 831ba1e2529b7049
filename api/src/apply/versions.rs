//! Managers own fields in the version they wrote: how ownership gets from one version of a resource to another.

use serde_json::Value;

use crate::catalogue::{Catalogue, Resource};
use crate::conversion;
use crate::meta;
use crate::schema::Schema;

/// The other versions of a resource.
pub trait Versions {
    /// The type in a version; `None` when the version is not served (any more).
    fn schema(&self, api_version: &str) -> Option<Schema<'_>>;
    /// `object` in that version; `None` when it cannot be converted.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// The versions of a resource that a catalogue serves.
pub struct Served<'a> {
    pub catalogue: &'a Catalogue,
    /// The resource in any of its versions.
    pub resource: &'a Resource,
}

impl Served<'_> {
    fn row(&self, api_version: &str) -> Option<&Resource> {
        let (group, version) = meta::split_api_version(api_version);
        self.catalogue.find(group, version, &self.resource.plural).map(|row| &**row)
    }
}

impl Versions for Served<'_> {
    fn schema(&self, api_version: &str) -> Option<Schema<'_>> {
        self.row(api_version).map(Resource::schema)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let to = self.row(api_version)?;
        let stated = object.get("apiVersion").and_then(Value::as_str);
        // What is compared with on creation has nothing yet, not even a version.
        let from = stated.and_then(|stated| self.row(stated)).unwrap_or(self.resource);
        Some(conversion::convert(object.clone(), from, to))
    }
}
