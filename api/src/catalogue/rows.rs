//! Reads the built-in rows from the project's tables in `data/`.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Catalogue, Column, Resource, Scope, Subresource};
use crate::schema::Schemas;

const RESOURCES: &str = include_str!("../../data/resources.tsv");
const COLUMNS: &str = include_str!("../../data/columns.tsv");

/// What `all` stands for in the verbs column.
const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Resources whose deletion answers with the deleted object, as (group, plural).
const RETURN_DELETED: [(&str, &str); 16] = [
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
];

/// The built-in catalogue. The tables are part of the program: a row that can't be read is a bug, found by the tests.
pub(super) fn builtin() -> Catalogue {
    let schemas = Schemas::builtin();
    let mut columns = all_columns();
    Catalogue::new(lines(RESOURCES).map(|line| {
        let mut row = resource(line, schemas);
        let key = (row.group.clone(), row.version.clone(), row.plural.clone());
        row.columns = columns.remove(&key).unwrap_or_default();
        Arc::new(row)
    }))
}

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// A field, with `-` read as empty.
fn text(field: &str) -> String {
    if field == "-" { String::new() } else { field.to_owned() }
}

fn list(field: &str, separator: char) -> Vec<String> {
    if field == "-" { Vec::new() } else { field.split(separator).map(str::to_owned).collect() }
}

fn resource(line: &str, schemas: &Arc<Schemas>) -> Resource {
    let fields: Vec<&str> = line.split('\t').collect();
    let [group, version, plural, singular, kind, scope, short, categories, verbs, subresources, store, ty, selectable] =
        fields[..]
    else {
        panic!("a row of resources.tsv has 13 fields: {line}");
    };
    let schema = schemas.type_named(ty).unwrap_or_else(|| panic!("resources.tsv names the unknown type {ty}"));
    let group = text(group);
    Resource {
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        short_names: list(short, ','),
        categories: list(categories, ','),
        scope: if scope == "N" { Scope::Namespaced } else { Scope::Cluster },
        verbs: if verbs == "all" { ALL_VERBS.map(str::to_owned).to_vec() } else { list(verbs, ',') },
        subresources: list(subresources, ' ').iter().map(|s| subresource(s, &group, version)).collect(),
        columns: Vec::new(),
        selectable_fields: list(selectable, ' '),
        stored: store != "-",
        returns_deleted: RETURN_DELETED.contains(&(group.as_str(), plural)),
        deprecation: deprecation(&group, plural).to_owned(),
        custom: false,
        storage_prefix: format!("/registry/{}", if store == "-" { plural } else { store }),
        storage_version: storage_version(&group, version).to_owned(),
        schemas: schemas.clone(),
        schema_node: schema.id(),
        group,
    }
}

/// Upstream's warning for resources on their way out (`APILifecycleDeprecated`).
fn deprecation(group: &str, plural: &str) -> &'static str {
    match (group, plural) {
        ("", "componentstatuses") => "v1 ComponentStatus is deprecated in v1.19+",
        ("", "endpoints") => "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        _ => "",
    }
}

/// The version in which objects are stored: the row's own, but for the one resource that has two versions.
fn storage_version<'a>(group: &str, version: &'a str) -> &'a str {
    if group == "autoscaling" { "v2" } else { version }
}

/// `name:kind:verbs`, where a kind of another group is `group/version/kind`.
fn subresource(field: &str, group: &str, version: &str) -> Subresource {
    let mut parts = field.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (name, kind, verbs) = (next(), next(), next());
    let mut own = kind.rsplitn(3, '/');
    let kind = own.next().unwrap_or_default().to_owned();
    let version = own.next().unwrap_or(version).to_owned();
    let group = own.next().unwrap_or(group).to_owned();
    Subresource { name: name.to_owned(), kind, group, version, verbs: list(verbs, ',') }
}

type Key = (String, String, String);

fn all_columns() -> HashMap<Key, Vec<Column>> {
    lines(COLUMNS)
        .map(|line| {
            let mut fields = line.split('\t');
            let mut next = || text(fields.next().unwrap_or_default());
            let key = (next(), next(), next());
            (key, fields.map(column).collect())
        })
        .collect()
}

/// `name:type:format:priority:description`.
fn column(field: &str) -> Column {
    let mut parts = field.splitn(5, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (name, kind, format, priority, description) = (next(), next(), next(), next(), next());
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        description: describe(description),
        priority: priority.parse().unwrap_or(0),
        json_path: String::new(),
    }
}

/// A description as the table has it: a reference to a field's, or a JSON text.
fn describe(text: &str) -> String {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let (ty, field) = match text.strip_prefix('@') {
        Some("name") => (META, "name"),
        Some("created") => (META, "creationTimestamp"),
        Some(reference) => reference.split_once('/').unwrap_or((reference, "")),
        None => return serde_json::from_str(text).unwrap_or_default(),
    };
    let field = Schemas::builtin().type_named(ty).and_then(|schema| schema.field(field));
    field.unwrap_or_else(|| panic!("columns.tsv refers to the unknown field {text}")).description().to_owned()
}
