//! The aggregated discovery document: all groups, or the core group, in one `APIGroupDiscoveryList`.

use api::catalogue::{Catalogue, Resource, Scope, Subresource};
use serde_json::{Value, json};

use super::plain::sorted;

pub fn document(catalogue: &Catalogue, core: bool, version: &str) -> Value {
    let groups = catalogue.groups().iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|group| {
            let versions = group.versions.iter().map(|version| {
                let resources: Vec<Value> =
                    catalogue.in_version(&group.name, version).map(|row| resource(row)).collect();
                json!({ "version": version, "resources": resources, "freshness": "Current" })
            });
            let versions: Vec<Value> = versions.collect();
            let mut metadata = json!({ "creationTimestamp": null });
            if !core {
                metadata["name"] = group.name.as_str().into();
            }
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn resource(row: &Resource) -> Value {
    let scope = if row.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" };
    let mut entry = json!({
        "resource": row.plural,
        // Group and version stand here only where they differ from the surrounding ones.
        "responseKind": { "group": "", "version": "", "kind": row.kind },
        "scope": scope, "singularResource": row.singular, "verbs": sorted(&row.verbs),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        entry["subresources"] = row.subresources.iter().map(|sub| subresource(row, sub)).collect();
    }
    entry
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let foreign = (&sub.group, &sub.version) != (&row.group, &row.version);
    let (group, version) = if foreign { (sub.group.as_str(), sub.version.as_str()) } else { ("", "") };
    json!({
        "subresource": sub.name,
        "responseKind": { "group": group, "version": version, "kind": sub.kind },
        "verbs": sorted(&sub.verbs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::plain;

    #[test]
    fn both_forms_tell_the_same_resources() {
        let catalogue = Catalogue::builtin();
        let mut aggregated: Vec<String> = Vec::new();
        for core in [true, false] {
            for group in document(&catalogue, core, "v2")["items"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    for resource in version["resources"].as_array().unwrap() {
                        let head = format!("{name}/{}/{}", version["version"], resource["resource"].as_str().unwrap());
                        for sub in resource["subresources"].as_array().into_iter().flatten() {
                            aggregated.push(format!("{head}/{}", sub["subresource"].as_str().unwrap()));
                        }
                        aggregated.push(head);
                    }
                }
            }
        }
        let mut plain: Vec<String> = Vec::new();
        for group in catalogue.groups() {
            for version in &group.versions {
                let segments = [if group.name.is_empty() { "api" } else { "apis" }, &group.name, version];
                let segments: Vec<&str> = segments.into_iter().filter(|s| !s.is_empty()).collect();
                for entry in plain::document(&catalogue, &segments, "").unwrap()["resources"].as_array().unwrap() {
                    plain.push(format!("{}/\"{version}\"/{}", group.name, entry["name"].as_str().unwrap()));
                }
            }
        }
        aggregated.sort();
        plain.sort();
        assert_eq!(aggregated, plain);
        assert!(plain.contains(&"apps/\"v1\"/deployments/scale".to_owned()));
    }
}
