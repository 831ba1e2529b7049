//! Schema nodes as OpenAPI schemas, in the dialects of v2 and v3, and which named types they refer to.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, Resource};
use crate::meta::GroupVersionKind;
use crate::schema::{ListType, Schema, Schemas, Shape, Zero};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn reference(self, name: &str) -> Value {
        let place = match self {
            Self::V2 => "definitions",
            Self::V3 => "components/schemas",
        };
        json!({ "$ref": format!("#/{place}/{name}") })
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The component name of a custom resource: its group backwards, version and kind.
pub(super) fn custom_name(row: &Resource) -> String {
    let reversed: Vec<&str> = row.group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), row.version, row.kind)
}

/// The component name of a row's kind.
pub(super) fn kind_name(row: &Resource) -> String {
    match row.schema().type_name() {
        Some(name) if !row.custom => name.to_owned(),
        _ => custom_name(row),
    }
}

/// The component name of a subresource's kind, if it has a schema.
pub(super) fn type_of_kind(row: &Resource, group: &str, version: &str, kind: &str) -> Option<String> {
    if (group, version, kind) == (row.group.as_str(), row.version.as_str(), row.kind.as_str()) {
        return Some(kind_name(row));
    }
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    let name = format!("io.k8s.api.{package}.{version}.{kind}");
    Schemas::builtin().type_named(&name).map(|_| name)
}

/// Adds `name` and every type it refers to.
pub(super) fn collect(name: &str, found: &mut BTreeSet<String>) {
    let Some(schema) = Schemas::builtin().type_named(name) else { return };
    if !found.insert(name.to_owned()) {
        return;
    }
    for (_, field) in schema.fields() {
        collect_used(field, found);
    }
    for part in [schema.items(), schema.values()].into_iter().flatten() {
        collect_used(part, found);
    }
}

/// Adds the types which a node that is not itself a type refers to.
pub(super) fn collect_used(schema: Schema<'_>, found: &mut BTreeSet<String>) {
    if let Some(name) = schema.type_name() {
        return collect(name, found);
    }
    for (_, field) in schema.fields() {
        collect_used(field, found);
    }
    for part in [schema.items(), schema.values()].into_iter().flatten() {
        collect_used(part, found);
    }
}

/// A named type as a component.
pub(super) fn component(schema: Schema<'_>, dialect: Dialect, kinds: &[GroupVersionKind]) -> Value {
    let mut out = shape(schema, dialect);
    if !schema.description().is_empty() {
        out.insert("description".to_owned(), schema.description().into());
    }
    if schema.states_merge_type() && schema.map_is_atomic() {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if let Some(unions) = schema.type_name().and_then(unions) {
        out.insert("x-kubernetes-unions".to_owned(), unions);
    }
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".to_owned(), kinds.iter().map(gvk).collect());
    }
    Value::Object(out)
}

/// The unions of a type, from the project's table.
fn unions(ty: &str) -> Option<Value> {
    let rows = include_str!("../../data/unions.tsv").lines().filter_map(|l| l.split_once('\t'));
    let (_, unions) = rows.into_iter().find(|(name, _)| *name == ty)?;
    serde_json::from_str(unions).ok()
}

pub(super) fn gvk(gvk: &GroupVersionKind) -> Value {
    json!({ "group": gvk.group, "kind": gvk.kind, "version": gvk.version })
}

/// The kinds a type stands for within the group versions of a document.
pub(super) fn kinds_of(name: &str, catalogue: &Catalogue, versions: &[(String, String)]) -> Vec<GroupVersionKind> {
    let new = |group: &str, version: &str, kind: &str| GroupVersionKind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let plain = name.strip_prefix(META).and_then(|n| n.strip_prefix('.'));
    match plain {
        Some(kind @ ("Status" | "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions")) => {
            return vec![new("", "v1", kind)];
        }
        Some(kind @ ("DeleteOptions" | "WatchEvent")) => {
            let mut all = vec![new("", "v1", kind)];
            all.extend(versions.iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| new(g, v, kind)));
            return all;
        }
        Some(_) => return Vec::new(),
        None => {}
    }
    for row in catalogue.iter() {
        let row_name = kind_name(row);
        if name == row_name {
            return vec![row.gvk()];
        }
        if name.strip_suffix("List") == Some(&row_name) {
            return vec![new(&row.group, &row.version, &row.list_kind)];
        }
        for sub in &row.subresources {
            if type_of_kind(row, &sub.group, &sub.version, &sub.kind).as_deref() == Some(name) {
                return vec![new(&sub.group, &sub.version, &sub.kind)];
            }
        }
    }
    Vec::new()
}

/// A use of a schema: a field, item or value.
pub(super) fn used(schema: Schema<'_>, dialect: Dialect) -> Value {
    let mut own = Map::new();
    if !schema.description().is_empty() {
        own.insert("description".to_owned(), schema.description().into());
    }
    if dialect == Dialect::V3
        && let Some(default) = default(schema)
    {
        own.insert("default".to_owned(), default);
    }
    extensions(schema, &mut own);
    let Some(name) = schema.type_name() else {
        own.append(&mut shape(schema, dialect));
        return Value::Object(own);
    };
    let reference = dialect.reference(name);
    if own.is_empty() {
        return reference;
    }
    if dialect == Dialect::V3 {
        own.insert("allOf".to_owned(), Value::Array(vec![reference]));
    } else if let Value::Object(mut reference) = reference {
        own.append(&mut reference);
    }
    Value::Object(own)
}

/// Upstream states the zero value as the default of fields that are always written.
fn default(schema: Schema<'_>) -> Option<Value> {
    if let Some(default) = schema.default() {
        return Some(default.clone());
    }
    if schema.zero() != Zero::Emit {
        return None;
    }
    match schema.shape() {
        Shape::Object => Some(json!({})),
        Shape::String => Some("".into()),
        Shape::Integer | Shape::Number => Some(0.into()),
        Shape::Boolean => Some(false.into()),
        _ => None,
    }
}

/// The extensions that a use states, beyond what the type it refers to states.
fn extensions(schema: Schema<'_>, out: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| out.insert(format!("x-kubernetes-{name}"), value);
    let base = schema.type_name().and_then(|name| Schemas::builtin().type_named(name));
    let is_map = matches!(schema.shape(), Shape::Map | Shape::Object);
    if !is_map && schema.states_merge_type() {
        let list_type = match schema.list_type() {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        set("list-type", list_type.into());
        let keys: Vec<Value> = schema.list_map_keys().map(Value::from).collect();
        if !keys.is_empty() {
            set("list-map-keys", keys.into());
        }
    } else if is_map && schema.states_merge_type() && base.is_none_or(|b| b.map_is_atomic() != schema.map_is_atomic()) {
        set("map-type", if schema.map_is_atomic() { "atomic" } else { "granular" }.into());
    }
    let strategies = schema.patch_strategies();
    let named = [(strategies.merge, "merge"), (strategies.replace, "replace"), (strategies.retain_keys, "retainKeys")];
    let named: Vec<&str> = named.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    if !named.is_empty() {
        set("patch-strategy", named.join(",").into());
    }
    if let Some(key) = schema.patch_merge_key() {
        set("patch-merge-key", key.into());
    }
    if schema.is_structural() {
        for (keyword, value) in schema.stated_rules() {
            out.insert(keyword.clone(), value.clone());
        }
        let mut set = |name: &str, value: Value| out.insert(format!("x-kubernetes-{name}"), value);
        if schema.preserves_unknown() {
            set("preserve-unknown-fields", true.into());
        }
        if schema.is_embedded_resource() {
            set("embedded-resource", true.into());
        }
        if schema.shape() == Shape::IntOrString {
            set("int-or-string", true.into());
        }
    }
}

/// Type, format and parts, without description and extensions of the use.
fn shape(schema: Schema<'_>, dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    let kind = match schema.shape() {
        Shape::Object | Shape::Map => "object",
        Shape::List => "array",
        Shape::String => "string",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::IntOrString => return int_or_string(schema, dialect),
        Shape::Any => {
            // Raw JSON objects say so; anything-at-all has no type.
            if schema.is_raw_object() {
                out.insert("type".to_owned(), "object".into());
            }
            return out;
        }
    };
    out.insert("type".to_owned(), kind.into());
    if let Some(format) = schema.format() {
        out.insert("format".to_owned(), format.into());
    }
    let properties: Map<String, Value> =
        schema.fields().map(|(name, field)| (name.to_owned(), used(field, dialect))).collect();
    if !properties.is_empty() {
        out.insert("properties".to_owned(), properties.into());
    }
    let required: Vec<Value> = schema.required().map(Value::from).collect();
    if !required.is_empty() {
        out.insert("required".to_owned(), required.into());
    }
    if let Some(items) = schema.items() {
        out.insert("items".to_owned(), used(items, dialect));
    }
    if let Some(values) = schema.values() {
        out.insert("additionalProperties".to_owned(), used(values, dialect));
    }
    if schema.nullable() && dialect == Dialect::V3 {
        out.insert("nullable".to_owned(), true.into());
    }
    out
}

fn int_or_string(schema: Schema<'_>, dialect: Dialect) -> Map<String, Value> {
    let types = if schema.is_quantity() { ["string", "number"] } else { ["integer", "string"] };
    let mut out = Map::new();
    match dialect {
        Dialect::V2 if !schema.is_structural() => {
            out.insert("type".to_owned(), "string".into());
        }
        Dialect::V2 => {}
        Dialect::V3 => {
            let one_of = types.iter().map(|t| json!({ "type": t })).collect();
            out.insert(if schema.is_structural() { "anyOf" } else { "oneOf" }.to_owned(), one_of);
        }
    }
    if let Some(format) = schema.format() {
        out.insert("format".to_owned(), format.into());
    }
    out
}
