//! The built-in rows against facts of discovery.

use serde_json::json;

use super::*;

#[test]
fn rows_are_found_by_resource_and_by_kind() {
    let catalogue = Catalogue::builtin();
    let deployments = catalogue.find("apps", "v1", "deployments").unwrap();
    assert_eq!(deployments.kind, "Deployment");
    assert_eq!(deployments.api_version(), "apps/v1");
    assert_eq!(deployments.short_names, ["deploy"]);
    assert!(deployments.namespaced() && deployments.stored);
    assert_eq!(deployments.schema().type_name(), Some("io.k8s.api.apps.v1.Deployment"));
    let scale = deployments.subresource("scale").unwrap();
    assert_eq!((scale.api_version().as_str(), scale.kind.as_str()), ("autoscaling/v1", "Scale"));
    assert_eq!(catalogue.by_kind("", "v1", "Pod").unwrap().plural, "pods");
    assert!(catalogue.find("apps", "v1beta1", "deployments").is_none());
}

#[test]
fn storage_prefixes_are_upstreams() {
    let catalogue = Catalogue::builtin();
    let prefix = |group, plural| catalogue.find(group, "v1", plural).unwrap().storage_prefix().to_owned();
    assert_eq!(prefix("", "services"), "/registry/services/specs");
    assert_eq!(prefix("", "nodes"), "/registry/minions");
    assert_eq!(prefix("networking.k8s.io", "ingresses"), "/registry/ingress");
    assert_eq!(prefix("apps", "deployments"), "/registry/deployments");
}

#[test]
fn every_stored_row_has_metadata_and_columns_have_types() {
    for row in Catalogue::builtin().iter() {
        assert!(!row.stored || row.schema().field("metadata").is_some(), "{}", row.plural);
        assert!(row.columns.iter().all(|c| !c.name.is_empty() && !c.kind.is_empty()), "{}", row.plural);
        assert!(row.schemas.type_named(&format!("{}List", row.schema().type_name().unwrap())).is_some() || !row.stored);
    }
}

#[test]
fn columns_carry_their_descriptions() {
    let catalogue = Catalogue::builtin();
    let columns = &catalogue.find("", "v1", "pods").unwrap().columns;
    assert!(columns[0].description.starts_with("Name must be unique within a namespace."));
    assert_eq!(columns[1].description, "The aggregate readiness state of this pod for accepting traffic.");
    assert_eq!((columns[5].name.as_str(), columns[5].priority), ("IP", 1));
}

#[test]
fn groups_are_in_discovery_order_with_preferred_versions_first() {
    let catalogue = Catalogue::builtin();
    let names: Vec<&str> = catalogue.groups().iter().map(|g| g.name.as_str()).collect();
    assert_eq!(&names[..4], ["", "apiregistration.k8s.io", "apps", "events.k8s.io"]);
    assert_eq!(catalogue.group("autoscaling").unwrap().versions, ["v2", "v1"]);
    assert_eq!(catalogue.preferred("autoscaling", "horizontalpodautoscalers").unwrap().version, "v2");
}

#[test]
fn versions_sort_as_upstream_sorts_them() {
    let mut versions = ["foo1", "v1alpha2", "v10", "v1", "v3beta1", "v2", "v12alpha1", "foo10", "v11beta2", "v10beta3"];
    versions.sort_by(|a, b| compare_versions(a, b));
    let want = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v1alpha2", "foo1", "foo10"];
    assert_eq!(versions, want);
}

#[test]
fn a_definition_makes_rows_of_its_served_versions() {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}});
    let definition = json!({"spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}, "scale": {}},
             "additionalPrinterColumns": [{"name": "F", "type": "string", "jsonPath": ".spec.f"}]},
            {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema},
            {"name": "v1alpha1", "served": false, "storage": false, "schema": schema}]}});
    let rows = custom_rows(&definition).unwrap();
    let catalogue = Catalogue::builtin().with(rows);
    assert_eq!(catalogue.group("example.com").unwrap().versions, ["v1", "v1beta1"]);
    let row = catalogue.find("example.com", "v1", "things").unwrap();
    assert_eq!((row.list_kind.as_str(), row.singular.as_str()), ("ThingList", "thing"));
    assert_eq!((row.storage_prefix(), row.storage_version.as_str()), ("/registry/example.com/things", "v1"));
    let subresources: Vec<&str> = row.subresources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(subresources, ["status", "scale"]);
    assert_eq!(row.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Name", "F"]);
    let beta = catalogue.by_kind("example.com", "v1beta1", "Thing").unwrap();
    assert_eq!(beta.columns[1].name, "Age");
    assert_eq!((row.deprecation.as_str(), beta.deprecation.as_str()), ("", "example.com/v1beta1 Thing is deprecated"));
}
