//! Names of things: group/version/kind, group/version/resource, object keys, and accessors for the metadata of an
//! object in flight (a JSON value). Accessors never panic on a malformed object: absent reads as empty.

use serde_json::{Map, Value};

/// Group, version and kind, as in `apiVersion` + `kind`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl GroupVersionKind {
    /// `v1` for the core group, `group/version` otherwise.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// `v1` for the core group, `group/version` otherwise.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits an `apiVersion` into group and version; the core group is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Namespace and name. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}
pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}
pub fn generate_name(object: &Value) -> &str {
    meta_str(object, "generateName")
}
/// `metadata.resourceVersion`, empty when unset.
pub fn resource_version(object: &Value) -> &str {
    meta_str(object, "resourceVersion")
}
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    Some(meta_str(object, "deletionTimestamp")).filter(|t| !t.is_empty())
}
pub fn key(object: &Value) -> ObjectKey {
    ObjectKey::new(namespace(object), name(object))
}
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let list = object.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// The metadata map, created when absent. An object in flight is always a JSON object (decoding refuses others), so
/// anything else is replaced by an empty object.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_mut(child_mut(object, "metadata"))
}

/// The value at `field` of `parent`, created as an empty object when absent or null.
pub fn child_mut<'a>(parent: &'a mut Value, field: &str) -> &'a mut Value {
    let slot = object_mut(parent).entry(field).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// `value` as an object, replacing anything else by an empty one.
pub fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}
