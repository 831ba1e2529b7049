//! The documents against facts of upstream's.

use serde_json::json;

use super::*;

fn v3(group: &str, version: &str) -> Value {
    serde_json::from_slice(&v3_json(&Catalogue::builtin(), group, version).unwrap()).unwrap()
}

#[test]
fn components_carry_merge_rules_defaults_and_kinds() {
    let core = v3("", "v1");
    let schemas = &core["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["items"], json!({ "$ref": "#/components/schemas/io.k8s.api.core.v1.Container" }));
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"];
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(port["properties"]["containerPort"]["default"], 0);
    assert_eq!(port["required"], json!(["containerPort"]));
    let metadata = &schemas["io.k8s.api.core.v1.Pod"]["properties"]["metadata"];
    let reference = json!([{ "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" }]);
    assert_eq!((&metadata["allOf"], &metadata["default"]), (&reference, &json!({})));
    let kinds = json!([{ "group": "", "kind": "Pod", "version": "v1" }]);
    assert_eq!(schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"], kinds);
    let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["oneOf"], json!([{ "type": "string" }, { "type": "number" }]));
    let claim = &schemas["io.k8s.api.core.v1.PersistentVolumeSpec"]["properties"]["claimRef"];
    assert_eq!(claim["x-kubernetes-map-type"], "granular");
}

#[test]
fn operations_carry_their_kind_and_action() {
    let apps = v3("apps", "v1");
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(scale["operationId"], "replaceAppsV1NamespacedDeploymentScale");
    let kind = json!({ "group": "autoscaling", "kind": "Scale", "version": "v1" });
    assert_eq!((&scale["x-kubernetes-action"], &scale["x-kubernetes-group-version-kind"]), (&json!("put"), &kind));
    let core = v3("", "v1");
    let exec = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"];
    assert_eq!(exec["operationId"], "connectCoreV1PostNamespacedPodExec");
    assert!(core["paths"].get("/api/v1/nodes/{name}/proxy/{path}").is_some());
    assert!(core["paths"]["/api/v1/namespaces"].get("delete").is_none());
}

#[test]
fn every_reference_is_answered() {
    let catalogue = Catalogue::builtin();
    for group in catalogue.groups() {
        for version in &group.versions {
            let document = v3(&group.name, version);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let text = document.to_string();
            for reference in text.split("\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(schemas.contains_key(name), "{}/{version}: {name}", group.name);
            }
        }
    }
    let document: Value = serde_json::from_slice(&v2_json(&catalogue)).unwrap();
    let text = document.to_string();
    for (place, names) in [("definitions", &document["definitions"]), ("parameters", &document["parameters"])] {
        for reference in text.split(&format!("\"#/{place}/")).skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(names.get(name).is_some(), "{place}: {name}");
        }
    }
}

#[test]
fn kubectl_finds_its_parameters_in_place_in_v2() {
    let document: Value = serde_json::from_slice(&v2_json(&Catalogue::builtin())).unwrap();
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldValidation"]);
}

/// The fields of a message as (number, payload); all fields written are length-delimited or varints.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = varint(&mut bytes);
        if key & 7 == 2 {
            let (payload, rest) = bytes.split_at(length as usize);
            out.push((key >> 3, payload));
            bytes = rest;
        }
    }
    out
}

fn first(message: &[u8], number: u64) -> &[u8] {
    fields(message).into_iter().find(|(n, _)| *n == number).unwrap().1
}

#[test]
fn the_protobuf_form_says_what_the_json_form_says() {
    let catalogue = Catalogue::builtin();
    let bytes = v2_protobuf(&catalogue);
    let document: Value = serde_json::from_slice(&v2_json(&catalogue)).unwrap();
    let names = |message: &[u8], field: u64| -> Vec<String> {
        let named = fields(message).into_iter().filter(|(n, _)| *n == field);
        named.map(|(_, entry)| String::from_utf8(first(entry, 1).to_vec()).unwrap()).collect()
    };
    for (field, inner, place) in [(8, 2, "paths"), (9, 1, "definitions"), (10, 1, "parameters")] {
        let mut have = names(first(&bytes, field), inner);
        have.sort();
        let want: Vec<&String> = document[place].as_object().unwrap().keys().collect();
        assert_eq!(have.iter().collect::<Vec<_>>(), want, "{place}");
    }
    let pod = fields(first(&bytes, 9)).into_iter().find(|(_, d)| first(d, 1) == b"io.k8s.api.core.v1.Pod").unwrap().1;
    let extension = first(first(pod, 2), 31);
    assert_eq!(first(extension, 1), b"x-kubernetes-group-version-kind");
    let yaml = first(first(extension, 2), 2);
    assert_eq!(yaml, br#"[{"group":"","kind":"Pod","version":"v1"}]"#);
}

#[test]
fn the_index_changes_with_the_rows() {
    let catalogue = Catalogue::builtin();
    let index = v3_index(&catalogue);
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(apps.starts_with("/openapi/v3/apis/apps/v1?hash="));
    let mut row = catalogue.find("apps", "v1", "deployments").unwrap().as_ref().clone();
    row.plural = "others".to_owned();
    let more = catalogue.with([std::sync::Arc::new(row)]);
    assert_ne!(v3_hash(&catalogue, "apps", "v1"), v3_hash(&more, "apps", "v1"));
    assert_eq!(v3_hash(&catalogue, "batch", "v1"), v3_hash(&more, "batch", "v1"));
    assert_ne!(v2_hash(&catalogue), v2_hash(&more));
}

#[test]
fn custom_resources_are_published() {
    let definition = json!({"spec": {"group": "g.example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {
                "a": {"type": "string", "description": "the a", "pattern": "^x"}}}}}}}]}});
    let catalogue = Catalogue::builtin().with(crate::catalogue::custom_rows(&definition).unwrap());
    let document: Value = serde_json::from_slice(&v3_json(&catalogue, "g.example.com", "v1").unwrap()).unwrap();
    let thing = &document["components"]["schemas"]["com.example.g.v1.Thing"];
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "string", "description": "the a", "pattern": "^x"}}});
    assert_eq!(thing["properties"]["spec"], spec);
    let kinds = json!([{ "group": "g.example.com", "kind": "Thing", "version": "v1" }]);
    assert_eq!(thing["x-kubernetes-group-version-kind"], kinds);
    assert_eq!(document["paths"].as_object().unwrap().len(), 3);
    let patch = &document["paths"]["/apis/g.example.com/v1/namespaces/{namespace}/things/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}
