//! The OpenAPI v2 document of everything served, as JSON and as gnostic's protobuf. Long parameter descriptions that
//! many operations share stand once and are referred to; `dryRun` and `fieldValidation` stand in place, because
//! kubectl looks for them there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::operations::{self, Answer, MEDIA_TYPES, META, Operation, Parameter, Path, STREAM_MEDIA_TYPES};
use super::protobuf::Document;
use super::schemas::{self, Dialect};
use super::v3::{bearer_token, code_text, custom_components};
use super::{Writer, root_path};
use crate::catalogue::Catalogue;
use crate::schema::Schemas;

/// Parameters which kubectl looks for inside an operation.
const IN_PLACE: [&str; 2] = ["dryRun", "fieldValidation"];
/// Characters of the hash in a shared parameter's name.
const HASH_CHARACTERS: usize = 8;

/// The document as JSON.
pub fn json(catalogue: &Catalogue) -> Vec<u8> {
    let mut shared = Shared::default();
    let mut writer = Writer::new();
    writer.raw("{");
    writer.member("swagger", &"2.0".into());
    writer.member("info", &info());
    writer.name("paths");
    writer.raw("{");
    each_path(catalogue, &mut shared, |name, item| writer.member(name, &item));
    writer.raw("}");
    writer.name("definitions");
    writer.raw("{");
    each_definition(catalogue, |name, schema| writer.member(name, &schema));
    writer.raw("}");
    writer.name("parameters");
    writer.raw("{");
    for (name, parameter) in &shared.parameters {
        writer.member(name, parameter);
    }
    writer.raw("}");
    writer.member("security", &json!([{ "BearerToken": [] }]));
    writer.member("securityDefinitions", &json!({ "BearerToken": bearer_token() }));
    writer.raw("}");
    writer.out
}

/// The document as gnostic's `openapi.v2.Document`.
pub fn protobuf(catalogue: &Catalogue) -> Vec<u8> {
    let mut shared = Shared::default();
    let mut document = Document::default();
    each_path(catalogue, &mut shared, |name, item| document.path(name, &item));
    each_definition(catalogue, |name, schema| document.definition(name, &schema));
    for (name, parameter) in &shared.parameters {
        document.parameter(name, parameter);
    }
    document.finish(&info(), ("BearerToken", &bearer_token()))
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": env!("CARGO_PKG_VERSION") })
}

/// Shared parameters by name, made as operations need them.
#[derive(Default)]
struct Shared {
    parameters: BTreeMap<String, Value>,
}

impl Shared {
    fn refer(&mut self, parameter: Value) -> Value {
        let digest = Sha256::digest(parameter.to_string().as_bytes());
        let hash = URL_SAFE_NO_PAD.encode(digest);
        let plain = parameter["name"].as_str().unwrap_or_default();
        let name = format!("{plain}-{}", &hash[..HASH_CHARACTERS]);
        let reference = json!({ "$ref": format!("#/parameters/{name}") });
        self.parameters.entry(name).or_insert(parameter);
        reference
    }
}

fn each_path(catalogue: &Catalogue, shared: &mut Shared, mut write: impl FnMut(&str, Value)) {
    write("/api/", list_path("getCoreAPIVersions", "get available API versions", "APIVersions", "core", 3));
    write("/apis/", list_path("getAPIVersions", "get available API versions", "APIGroupList", "apis", 3));
    for group in catalogue.groups() {
        if !group.name.is_empty() {
            let camel = operations::camel_version(&group.name, "");
            let tag = operations::tag(&group.name, "");
            let id = format!("get{camel}APIGroup");
            let item = list_path(&id, "get information of a group", "APIGroup", tag.trim_end_matches('_'), 3);
            write(&format!("/apis/{}/", group.name), item);
        }
        for version in &group.versions {
            let tag = operations::tag(&group.name, version);
            let id = format!("get{}APIResources", operations::camel_version(&group.name, version));
            let item = list_path(&id, "get available resources", "APIResourceList", &tag, MEDIA_TYPES.len());
            write(&format!("/{}/", root_path(&group.name, version)), item);
            for row in catalogue.in_version(&group.name, version) {
                for path in operations::paths(row) {
                    write(&path.path, path_item(&path, &tag, shared));
                }
            }
        }
    }
    let mut version = list_path("getCodeVersion", "get the version information for this server", "", "version", 1);
    version["get"]["responses"]["200"]["schema"] = Dialect::V2.reference("io.k8s.apimachinery.pkg.version.Info");
    write("/version/", version);
}

/// A path that lists what is served, answered with the meta type `component`.
fn list_path(id: &str, description: &str, component: &str, tag: &str, media_types: usize) -> Value {
    let answer = Answer::Object { component: format!("{META}.{component}"), codes: &[200], streams: false };
    json!({ "get": {
        "consumes": MEDIA_TYPES[..media_types],
        "description": description,
        "operationId": id,
        "produces": MEDIA_TYPES[..media_types],
        "responses": responses(&answer),
        "schemes": ["https"],
        "tags": [tag],
    } })
}

fn each_definition(catalogue: &Catalogue, mut write: impl FnMut(&str, Value)) {
    let mut names = BTreeSet::new();
    for kind in ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "DeleteOptions", "ListMeta", "Patch"] {
        schemas::collect(&format!("{META}.{kind}"), &mut names);
    }
    for kind in ["ObjectMeta", "Status", "WatchEvent"] {
        schemas::collect(&format!("{META}.{kind}"), &mut names);
    }
    schemas::collect("io.k8s.apimachinery.pkg.version.Info", &mut names);
    for row in catalogue.iter() {
        if row.custom {
            let (kind, list) = custom_components(row, Dialect::V2);
            let name = schemas::custom_name(row);
            write(&name, kind);
            write(&format!("{name}List"), list);
            continue;
        }
        let name = schemas::kind_name(row);
        schemas::collect(&name, &mut names);
        schemas::collect(&format!("{name}List"), &mut names);
        for sub in &row.subresources {
            if let Some(name) = schemas::type_of_kind(row, &sub.group, &sub.version, &sub.kind) {
                schemas::collect(&name, &mut names);
            }
        }
    }
    let versions: Vec<(String, String)> =
        catalogue.groups().iter().flat_map(|g| g.versions.iter().map(|v| (g.name.clone(), v.clone()))).collect();
    for name in &names {
        let Some(schema) = Schemas::builtin().type_named(name) else { continue };
        let kinds = schemas::kinds_of(name, catalogue, &versions);
        write(name, schemas::component(schema, Dialect::V2, &kinds));
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out: Map<String, Value> = operations::parameter_schema(parameter).into_iter().collect();
    out.insert("description".to_owned(), parameter.description.as_str().into());
    out.insert("in".to_owned(), parameter.place.into());
    out.insert("name".to_owned(), parameter.name.as_str().into());
    if parameter.place == "path" {
        out.insert("required".to_owned(), true.into());
    }
    out.into()
}

fn parameters(list: &[Parameter], shared: &mut Shared) -> Vec<Value> {
    list.iter()
        .map(|p| {
            let value = parameter(p);
            let is_own = p.name == "name" || IN_PLACE.contains(&p.name.as_str());
            if is_own { value } else { shared.refer(value) }
        })
        .collect()
}

fn path_item(path: &Path, tag: &str, shared: &mut Shared) -> Value {
    let mut out = Map::new();
    for operation in &path.operations {
        out.insert(operation.method.to_owned(), operation_item(operation, tag, shared));
    }
    if !path.parameters.is_empty() {
        out.insert("parameters".to_owned(), parameters(&path.parameters, shared).into());
    }
    out.into()
}

fn operation_item(operation: &Operation, tag: &str, shared: &mut Shared) -> Value {
    let mut list = Vec::new();
    if let Some((component, is_required)) = &operation.body {
        let mut body = json!({ "in": "body", "name": "body", "schema": Dialect::V2.reference(component) });
        if *is_required {
            body["required"] = true.into();
        }
        list.push(if component.starts_with(META) { shared.refer(body) } else { body });
    }
    list.extend(parameters(&operation.parameters, shared));
    let produces: Vec<&str> = match &operation.answer {
        Answer::Object { streams, .. } => {
            MEDIA_TYPES.iter().chain(STREAM_MEDIA_TYPES.iter().filter(|_| *streams)).copied().collect()
        }
        Answer::Text { media_types } => media_types.clone(),
    };
    let mut out = json!({
        "consumes": operation.consumes,
        "description": operation.description,
        "operationId": operation.id,
        "produces": produces,
        "responses": responses(&operation.answer),
        "schemes": ["https"],
        "tags": [tag],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": schemas::gvk(&operation.kind),
    });
    if !list.is_empty() {
        out["parameters"] = list.into();
    }
    out
}

fn responses(answer: &Answer) -> Value {
    let mut out = Map::new();
    match answer {
        Answer::Object { component, codes, .. } => {
            for code in *codes {
                let schema = Dialect::V2.reference(component);
                out.insert(code.to_string(), json!({ "description": code_text(*code), "schema": schema }));
            }
        }
        Answer::Text { .. } => {
            out.insert("200".to_owned(), json!({ "description": "OK", "schema": { "type": "string" } }));
        }
    }
    out.insert("401".to_owned(), json!({ "description": code_text(401) }));
    out.into()
}
