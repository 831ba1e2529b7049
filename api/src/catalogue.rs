//! The catalogue: one row per served resource. Router, discovery, OpenAPI, authorization, tables, garbage collection
//! and namespace deletion read rows; CustomResourceDefinitions add rows at run time.
//!
//! A [`Catalogue`] never changes: adding rows makes a new one. Rows are in discovery order (group, version, name).

mod custom;
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::meta::{GroupVersionKind, api_version};
use crate::schema::{Schema, Schemas};

pub use custom::custom_rows;

/// Whether objects of a resource live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// A path below an object, such as `status` or `scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subresource {
    /// `status`, `scale`, `exec`, …
    pub name: String,
    /// The kind of its body; `Scale`, `Eviction` and `TokenRequest` are of another group than the resource.
    pub kind: String,
    pub group: String,
    pub version: String,
    pub verbs: Vec<String>,
}

/// A column of the server-side table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `name` for the column that holds the object's name, else mostly empty.
    pub format: String,
    pub description: String,
    /// 0 is always shown, higher only in wide output.
    pub priority: i32,
    /// Where the cell comes from, for columns of CustomResourceDefinitions; empty for built-in resources.
    pub json_path: String,
}

/// One served resource in one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    /// Field paths usable in field selectors beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
    /// Whether objects are stored; reviews, bindings and component statuses are not.
    pub stored: bool,
    /// A finished deletion answers with the deleted object rather than a Status (upstream's `ReturnDeletedObject`).
    pub returns_deleted: bool,
    /// What requests for this version are warned of; empty for versions that are not deprecated.
    pub deprecation: String,
    /// Defined by a CustomResourceDefinition.
    pub custom: bool,
    /// Key prefix in the store, without a trailing slash.
    pub storage_prefix: String,
    /// The version objects are stored in. All versions of a resource share one storage prefix.
    pub storage_version: String,
    pub schemas: Arc<Schemas>,
    /// The node of this kind in `schemas`.
    pub schema_node: u32,
}

/// An API group with its versions in order of preference.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<String>,
}

/// The rows, indexed.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    rows: Vec<Arc<Resource>>,
    groups: Vec<Group>,
    by_resource: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
}

impl Resource {
    /// The schema of an object of this kind.
    pub fn schema(&self) -> Schema<'_> {
        self.schemas.node(self.schema_node)
    }
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
    /// `/registry/pods`; upstream's prefixes where they differ from the plural.
    pub fn storage_prefix(&self) -> &str {
        &self.storage_prefix
    }
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

impl Subresource {
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl Catalogue {
    /// The built-in resources.
    pub fn builtin() -> Arc<Catalogue> {
        static BUILTIN: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(rows::builtin()));
        BUILTIN.clone()
    }

    /// Indexes rows. Groups and their versions keep the order in which the rows bring them up.
    pub fn new(rows: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut catalogue = Self::default();
        for row in rows {
            catalogue.push(row);
        }
        catalogue
    }

    /// This catalogue with more rows. A row replaces one of the same group, version and plural.
    pub fn with(&self, rows: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut catalogue = self.clone();
        for row in rows {
            catalogue.push(row);
        }
        catalogue
    }

    fn push(&mut self, row: Arc<Resource>) {
        let key = (row.group.clone(), row.version.clone(), row.plural.clone());
        let kind = (row.group.clone(), row.version.clone(), row.kind.clone());
        if let Some(at) = self.by_resource.get(&key) {
            self.by_kind.insert(kind, *at);
            self.rows[*at] = row;
            return;
        }
        match self.groups.iter_mut().find(|g| g.name == row.group) {
            Some(group) if group.versions.contains(&row.version) => {}
            Some(group) => {
                group.versions.push(row.version.clone());
                group.versions.sort_by(|a, b| compare_versions(a, b));
            }
            None => self.groups.push(Group { name: row.group.clone(), versions: vec![row.version.clone()] }),
        }
        self.by_resource.insert(key, self.rows.len());
        self.by_kind.insert(kind, self.rows.len());
        self.rows.push(row);
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_resource.get(&key).map(|at| &self.rows[*at])
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(|at| &self.rows[*at])
    }
    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }
    /// Groups in upstream's discovery order, each with its versions, most preferred first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }
    /// Rows of one group and version.
    pub fn in_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.rows.iter().filter(move |r| r.group == group && r.version == version)
    }
    /// The row of a resource in the group's most preferred version that has it.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.group(group)?.versions.iter().find_map(|version| self.find(group, version, plural))
    }
}

/// Upstream's order of versions (`version.CompareKubeAwareVersionStrings`): GA before beta before alpha, newer first,
/// anything else last by name. `Less` is more preferred.
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    match (kube_version(a), kube_version(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability (2 is GA), major and minor of `v1`, `v1beta2` and the like.
fn kube_version(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let major = rest[..digits].parse().ok()?;
    let suffix = &rest[digits..];
    if suffix.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match (suffix.strip_prefix("beta"), suffix.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((stability, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests;
