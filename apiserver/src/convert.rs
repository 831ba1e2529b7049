//! Versions of one resource that share their stored objects: converts between the version asked for and the version
//! stored. Most resources have one version, and their objects pass through untouched.

use std::sync::Arc;

use api::catalogue::{Catalogue, Resource};
use api::conversion;
use serde_json::Value;

/// The row of the version in which objects of `resource` are stored.
pub fn storage_row(catalogue: &Catalogue, resource: &Arc<Resource>) -> Arc<Resource> {
    if resource.custom {
        let stored = catalogue.find(&resource.group, &resource.storage_version, &resource.plural);
        return Arc::clone(stored.unwrap_or(resource));
    }
    let shares = |row: &&Arc<Resource>| {
        row.stored && row.storage_prefix == resource.storage_prefix && row.version == row.storage_version
    };
    Arc::clone(catalogue.iter().find(shares).unwrap_or(resource))
}

/// An object as decoded from a request to the form it is stored in.
pub fn to_storage(resource: &Resource, storage: &Resource, object: Value) -> Value {
    conversion::convert(object, resource, storage)
}

/// Whether two rows are one version of one group.
pub fn same(a: &Resource, b: &Resource) -> bool {
    a.version == b.version && a.group == b.group
}

/// A stored object as it is to be read. `rewrites`: a custom resource whose objects may be stored in an older version,
/// or before a default was stated.
pub fn read(resource: &Resource, storage: &Resource, rewrites: bool, object: Value) -> Value {
    let mut object = from_storage(resource, storage, object);
    if rewrites {
        object["apiVersion"] = resource.api_version().into();
        api::decode::apply_defaults(resource.schema(), &mut object);
    }
    object
}

/// A stored object to the version asked for.
pub fn from_storage(resource: &Resource, storage: &Resource, object: Value) -> Value {
    conversion::convert(object, storage, resource)
}
