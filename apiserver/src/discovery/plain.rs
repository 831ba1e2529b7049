//! The discovery documents of one level each: `/api`, `/apis`, a group, a group's version.

use std::collections::BTreeSet;

use api::catalogue::{Catalogue, Group, Resource, Subresource};
use api::meta::api_version;
use serde_json::{Map, Value, json};

/// The document at a path (`api`, `api/v1`, `apis`, `apis/GROUP`, `apis/GROUP/VERSION`), if there is one.
pub fn document(catalogue: &Catalogue, segments: &[&str], server_address: &str) -> Option<Value> {
    match segments {
        ["api"] => {
            let versions = &catalogue.group("")?.versions;
            let address = json!([{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }]);
            Some(json!({ "kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": address }))
        }
        ["api", version] => resources(catalogue, "", version),
        ["apis"] => {
            let groups: Vec<Value> = catalogue.groups().iter().filter(|g| !g.name.is_empty()).map(group).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] => {
            let mut document = group(catalogue.group(name).filter(|g| !g.name.is_empty())?);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Some(document)
        }
        ["apis", name, version] if !name.is_empty() => resources(catalogue, name, version),
        _ => None,
    }
}

fn group(group: &Group) -> Value {
    let version = |version: &String| json!({ "groupVersion": api_version(&group.name, version), "version": version });
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({ "name": group.name, "versions": versions, "preferredVersion": preferred })
}

fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    if !catalogue.group(group)?.versions.iter().any(|v| v == version) {
        return None;
    }
    let mut list = Vec::new();
    for row in catalogue.in_version(group, version) {
        list.push(resource(row));
        list.extend(row.subresources.iter().map(|s| subresource(row, s)));
    }
    let group_version = api_version(group, version);
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
}

fn resource(row: &Resource) -> Value {
    let mut entry = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind,
        "verbs": sorted(&row.verbs),
    });
    let map = api::meta::object_mut(&mut entry);
    for (field, values) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
        if !values.is_empty() {
            map.insert(field.to_owned(), json!(values));
        }
    }
    entry
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), format!("{}/{}", row.plural, sub.name).into());
    map.insert("singularName".to_owned(), "".into());
    map.insert("namespaced".to_owned(), row.namespaced().into());
    if (&sub.group, &sub.version) != (&row.group, &row.version) {
        map.insert("group".to_owned(), sub.group.as_str().into());
        map.insert("version".to_owned(), sub.version.as_str().into());
    }
    map.insert("kind".to_owned(), sub.kind.as_str().into());
    map.insert("verbs".to_owned(), json!(sorted(&sub.verbs)));
    Value::Object(map)
}

pub(super) fn sorted(verbs: &[String]) -> Vec<&str> {
    verbs.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}
