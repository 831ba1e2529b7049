//! Rows of a CustomResourceDefinition: one per served version.

use std::sync::Arc;

use serde_json::Value;

use super::{Column, Resource, Scope, Subresource};
use crate::schema::{Error, Schemas};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The rows for every served version of a definition that has passed validation.
pub fn custom_rows(definition: &Value) -> Result<Vec<Arc<Resource>>, Error> {
    let spec = &definition["spec"];
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let storage = versions().find(|v| v["storage"] == true).map(|v| text(&v["name"])).unwrap_or_default();
    // What was accepted stands in the status; a definition not yet accepted is read as it asks to be.
    let accepted = &definition["status"]["acceptedNames"];
    let names = if accepted["plural"].is_string() { accepted } else { &spec["names"] };
    versions().filter(|v| v["served"] == true).map(|v| row(spec, names, v, &storage).map(Arc::new)).collect()
}

fn row(spec: &Value, names: &Value, version: &Value, storage: &str) -> Result<Resource, Error> {
    let schema = &version["schema"]["openAPIV3Schema"];
    let (schemas, schema_node) = Schemas::compile(schema)?;
    let (group, kind, plural) = (text(&spec["group"]), text(&names["kind"]), text(&names["plural"]));
    let list_kind = names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned);
    let singular = names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned);
    let name = text(&version["name"]);
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    Ok(Resource {
        subresources: subresources(version, &group, &name, &kind),
        columns: columns(version),
        selectable_fields: selectable.map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        scope: if spec["scope"] == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: owned(&VERBS),
        stored: true,
        returns_deleted: false,
        deprecation: deprecation(version, &group, &name, &kind),
        custom: true,
        storage_prefix: format!("/registry/{group}/{plural}"),
        storage_version: storage.to_owned(),
        version: name,
        group,
        kind,
        list_kind,
        plural,
        singular,
        schemas,
        schema_node,
    })
}

/// What the definition warns of, or upstream's words where it only says that the version is deprecated.
fn deprecation(version: &Value, group: &str, name: &str, kind: &str) -> String {
    match (&version["deprecated"], version["deprecationWarning"].as_str()) {
        (Value::Bool(true), Some(warning)) => warning.to_owned(),
        (Value::Bool(true), None) => format!("{group}/{name} {kind} is deprecated"),
        _ => String::new(),
    }
}

fn subresources(version: &Value, group: &str, name: &str, kind: &str) -> Vec<Subresource> {
    let new = |sub: &str, group: &str, version: &str, kind: &str| Subresource {
        name: sub.to_owned(),
        kind: kind.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        verbs: owned(&SUBRESOURCE_VERBS),
    };
    let stated = &version["subresources"];
    let mut out = Vec::new();
    if stated["status"].is_object() {
        out.push(new("status", group, name, kind));
    }
    if stated["scale"].is_object() {
        out.push(new("scale", "autoscaling", "v1", "Scale"));
    }
    out
}

fn metadata_description(field: &str) -> String {
    let metadata = Schemas::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    metadata.and_then(|m| m.field(field)).map(|f| f.description().to_owned()).unwrap_or_default()
}

/// The name, then what the definition asks for, or the age if it asks for nothing.
fn columns(version: &Value) -> Vec<Column> {
    let name = Column {
        name: "Name".to_owned(),
        kind: "string".to_owned(),
        format: "name".to_owned(),
        description: metadata_description("name"),
        priority: 0,
        json_path: ".metadata.name".to_owned(),
    };
    let mut out = vec![name];
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let json_path = text(&column["jsonPath"]);
        let stated = text(&column["description"]);
        let unstated = || format!("Custom resource definition column (in JSONPath format): {json_path}");
        out.push(Column {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            format: text(&column["format"]),
            description: if stated.is_empty() { unstated() } else { stated },
            priority: column["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            json_path,
        });
    }
    if out.len() == 1 {
        out.push(Column {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: metadata_description("creationTimestamp"),
            priority: 0,
            json_path: ".metadata.creationTimestamp".to_owned(),
        });
    }
    out
}
