//! Versions of one resource that share their stored objects: converts between the version asked for and the version
//! stored. Most resources have one version, and their objects pass through untouched.

mod autoscaling;
mod events;

use std::sync::Arc;

use api::catalogue::{Catalogue, Resource};
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

fn same(a: &Resource, b: &Resource) -> bool {
    a.version == b.version && a.group == b.group
}

/// An object as decoded from a request to the form it is stored in.
pub fn to_storage(resource: &Resource, storage: &Resource, object: Value) -> Value {
    if same(resource, storage) { object } else { convert(resource, storage, object) }
}

/// A stored object to the version asked for.
pub fn from_storage(resource: &Resource, storage: &Resource, object: Value) -> Value {
    if same(resource, storage) { object } else { convert(storage, resource, object) }
}

fn convert(from: &Resource, to: &Resource, mut object: Value) -> Value {
    match (from.group.as_str(), from.version.as_str(), to.group.as_str(), to.version.as_str()) {
        ("autoscaling", "v1", "autoscaling", "v2") => autoscaling::v1_to_v2(&mut object),
        ("autoscaling", "v2", "autoscaling", "v1") => autoscaling::v2_to_v1(&mut object),
        ("events.k8s.io", _, "", _) => events::to_core(&mut object),
        ("", _, "events.k8s.io", _) => events::from_core(&mut object),
        _ => {}
    }
    object["apiVersion"] = to.api_version().into();
    object
}
