//! The OpenAPI v3 document of a group version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::operations::{self, Answer, MEDIA_TYPES, META, Operation, Parameter, Path, STREAM_MEDIA_TYPES};
use super::schemas::{self, Dialect};
use super::{Writer, root_path};
use crate::catalogue::{Catalogue, Resource};
use crate::schema::Schemas;

/// What upstream refers to in the description of custom lists.
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// How clients identify themselves.
pub(super) fn bearer_token() -> Value {
    json!({ "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey" })
}

/// The document as JSON; `None` for a group version that is not served.
pub fn json(catalogue: &Catalogue, group: &str, version: &str) -> Option<Vec<u8>> {
    let rows: Vec<&Resource> = catalogue.in_version(group, version).map(AsRef::as_ref).collect();
    if rows.is_empty() {
        return None;
    }
    let mut paths: Vec<Path> = rows.iter().flat_map(|row| operations::paths(row)).collect();
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    let mut writer = Writer::new();
    writer.raw("{");
    writer.member("openapi", &"3.0.0".into());
    writer.member("info", &json!({ "title": "Kubernetes", "version": "unversioned" }));
    writer.name("paths");
    writer.raw("{");
    // Upstream publishes the list of resources only of built-in group versions.
    let is_custom = rows.iter().all(|row| row.custom);
    if !is_custom {
        let root = format!("/{}/", root_path(group, version));
        writer.member(&root, &resource_list_path(group, version));
    }
    let tag = operations::tag(group, version);
    for path in &paths {
        writer.member(&path.path, &path_item(path, &tag));
    }
    writer.raw("}");
    writer.name("components");
    writer.raw("{");
    writer.name("schemas");
    writer.raw("{");
    components(&mut writer, catalogue, &rows, &paths, (group, version));
    writer.raw("}");
    writer.member("securitySchemes", &json!({ "BearerToken": bearer_token() }));
    writer.raw("}}");
    Some(writer.out)
}

/// Components of the paths, of custom kinds, and of everything they refer to.
fn components(
    writer: &mut Writer,
    catalogue: &Catalogue,
    rows: &[&Resource],
    paths: &[Path],
    (group, version): (&str, &str),
) {
    let mut names = BTreeSet::new();
    if rows.iter().any(|row| !row.custom) {
        schemas::collect(&format!("{META}.APIResourceList"), &mut names);
    }
    for operation in paths.iter().flat_map(|p| &p.operations) {
        if let Some((body, _)) = &operation.body {
            schemas::collect(body, &mut names);
        }
        if let Answer::Object { component, .. } = &operation.answer {
            schemas::collect(component, &mut names);
        }
    }
    for row in rows.iter().filter(|r| r.custom) {
        schemas::collect_used(row.schema(), &mut names);
        schemas::collect(&format!("{META}.ListMeta"), &mut names);
        schemas::collect(&format!("{META}.ObjectMeta"), &mut names);
        let (kind, list) = custom_components(row, Dialect::V3);
        let name = schemas::custom_name(row);
        writer.member(&name, &kind);
        writer.member(&format!("{name}List"), &list);
    }
    let versions = [(group.to_owned(), version.to_owned())];
    for name in &names {
        let Some(schema) = Schemas::builtin().type_named(name) else { continue };
        let kinds = schemas::kinds_of(name, catalogue, &versions);
        writer.member(name, &schemas::component(schema, Dialect::V3, &kinds));
    }
}

/// The components of a custom resource's kind and list.
pub(super) fn custom_components(row: &Resource, dialect: Dialect) -> (Value, Value) {
    let mut kind = schemas::component(row.schema(), dialect, &[row.gvk()]);
    let with_meta = |meta: &str| {
        let mut reference = json!({ "allOf": [dialect.reference(&format!("{META}.{meta}"))] });
        if dialect == Dialect::V2 {
            reference = dialect.reference(&format!("{META}.{meta}"));
        }
        let text = |field: &str| {
            let schema = Schemas::builtin().type_named("io.k8s.api.core.v1.ConfigMap").and_then(|s| s.field(field));
            schema.map_or_else(|| json!({ "type": "string" }), |s| schemas::used(s, dialect))
        };
        json!({ "apiVersion": text("apiVersion"), "kind": text("kind"), "metadata": reference })
    };
    if let (Some(properties), Value::Object(meta)) =
        (kind.as_object_mut().map(|k| k.entry("properties").or_insert_with(|| json!({}))), with_meta("ObjectMeta"))
        && let Some(properties) = properties.as_object_mut()
    {
        properties.extend(meta);
    }
    let mut properties = with_meta("ListMeta");
    properties["items"] = json!({
        "description": format!("List of {}. More info: {CONVENTIONS}", row.plural),
        "items": dialect.reference(&schemas::custom_name(row)),
        "type": "array",
    });
    let list_kind = crate::meta::GroupVersionKind { kind: row.list_kind.clone(), ..row.gvk() };
    let list = json!({
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "properties": properties,
        "required": ["items"],
        "type": "object",
        "x-kubernetes-group-version-kind": [schemas::gvk(&list_kind)],
    });
    (kind, list)
}

fn resource_list_path(group: &str, version: &str) -> Value {
    let answer = Answer::Object { component: format!("{META}.APIResourceList"), codes: &[200], streams: false };
    json!({ "get": {
        "description": "get available resources",
        "operationId": format!("get{}APIResources", operations::camel_version(group, version)),
        "responses": responses(&answer),
        "tags": [operations::tag(group, version)],
    } })
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = Map::new();
    out.insert("description".to_owned(), parameter.description.as_str().into());
    out.insert("in".to_owned(), parameter.place.into());
    out.insert("name".to_owned(), parameter.name.as_str().into());
    if parameter.place == "path" {
        out.insert("required".to_owned(), true.into());
    }
    let schema: Map<String, Value> = operations::parameter_schema(parameter).into_iter().collect();
    out.insert("schema".to_owned(), schema.into());
    out.into()
}

fn path_item(path: &Path, tag: &str) -> Value {
    let mut out = Map::new();
    for operation in &path.operations {
        out.insert(operation.method.to_owned(), operation_item(operation, tag));
    }
    if !path.parameters.is_empty() {
        out.insert("parameters".to_owned(), path.parameters.iter().map(parameter).collect());
    }
    out.into()
}

fn content<'m>(media_types: impl IntoIterator<Item = &'m str>, schema: &Value) -> Value {
    let of = |media: &str| (media.to_owned(), json!({ "schema": schema }));
    Value::Object(media_types.into_iter().map(of).collect())
}

fn operation_item(operation: &Operation, tag: &str) -> Value {
    let mut out = Map::new();
    out.insert("description".to_owned(), operation.description.as_str().into());
    out.insert("operationId".to_owned(), operation.id.as_str().into());
    if !operation.parameters.is_empty() {
        out.insert("parameters".to_owned(), operation.parameters.iter().map(parameter).collect());
    }
    if let Some((component, is_required)) = &operation.body {
        let schema = Dialect::V3.reference(component);
        let mut body = json!({ "content": content(operation.consumes.iter().copied(), &schema) });
        if *is_required {
            body["required"] = true.into();
        }
        out.insert("requestBody".to_owned(), body);
    }
    out.insert("responses".to_owned(), responses(&operation.answer));
    out.insert("tags".to_owned(), json!([tag]));
    out.insert("x-kubernetes-action".to_owned(), operation.action.into());
    out.insert("x-kubernetes-group-version-kind".to_owned(), schemas::gvk(&operation.kind));
    out.into()
}

pub(super) fn code_text(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        _ => "Unauthorized",
    }
}

fn responses(answer: &Answer) -> Value {
    let mut out = Map::new();
    match answer {
        Answer::Object { component, codes, streams } => {
            let schema = Dialect::V3.reference(component);
            let media_types = MEDIA_TYPES.iter().chain(STREAM_MEDIA_TYPES.iter().filter(|_| *streams));
            let content = content(media_types.copied(), &schema);
            for code in *codes {
                out.insert(code.to_string(), json!({ "content": content, "description": code_text(*code) }));
            }
        }
        Answer::Text { media_types } => {
            let content = content(media_types.iter().copied(), &json!({ "type": "string" }));
            out.insert("200".to_owned(), json!({ "content": content, "description": "OK" }));
        }
    }
    out.insert("401".to_owned(), json!({ "description": code_text(401) }));
    out.into()
}
