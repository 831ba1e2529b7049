//! The paths and operations of a row, independent of the dialect.

use std::sync::LazyLock;

use serde_json::Value;

use super::root_path;
use super::schemas::{kind_name, type_of_kind};
use crate::catalogue::{Resource, Subresource};
use crate::meta::GroupVersionKind;

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// What objects are answered as.
pub(super) const MEDIA_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What lists and watches are answered as, beyond [`MEDIA_TYPES`].
pub(super) const STREAM_MEDIA_TYPES: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
/// What patches come as.
pub(super) const PATCH_MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A parameter of an operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter {
    pub name: String,
    /// `query` or `path`.
    pub place: &'static str,
    pub kind: &'static str,
    pub description: String,
}

/// What an operation answers with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// An object of a component, with these status codes.
    Object { component: String, codes: &'static [u16], streams: bool },
    /// Text of any kind.
    Text { media_types: Vec<&'static str> },
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// HTTP method in lower case.
    pub method: &'static str,
    pub id: String,
    pub description: String,
    pub action: &'static str,
    pub kind: GroupVersionKind,
    pub parameters: Vec<Parameter>,
    /// Component of the body and whether it is required.
    pub body: Option<(String, bool)>,
    pub consumes: Vec<&'static str>,
    pub answer: Answer,
}

/// A path with its operations. Parameters common to all of them stand at the path.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub path: String,
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

/// Parameters by set; see the table.
static PARAMETERS: LazyLock<Vec<(&'static str, Parameter)>> = LazyLock::new(|| {
    let table = include_str!("../../data/parameters.tsv");
    let rows = table.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    rows.map(|row| {
        let mut fields = row.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        let (set, name, kind, description) = (next(), next(), next(), next());
        let description = serde_json::from_str(description).expect("descriptions in parameters.tsv are JSON");
        (set, Parameter { name: name.to_owned(), place: "query", kind, description })
    })
    .collect()
});

fn set(name: &str) -> impl Iterator<Item = Parameter> {
    PARAMETERS.iter().filter(move |(set, _)| *set == name).map(|(_, p)| p.clone())
}

fn in_path(name: &str, description: impl Into<String>) -> Parameter {
    Parameter { name: name.to_owned(), place: "path", kind: "string", description: description.into() }
}

fn namespace() -> Parameter {
    in_path("namespace", "object name and auth scope, such as for teams and projects")
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// `AppsV1`, `RbacAuthorizationV1`, `CoreV1`.
pub(super) fn camel_version(group: &str, version: &str) -> String {
    let words = group.strip_suffix(".k8s.io").unwrap_or(group);
    let words = if words.is_empty() { "core" } else { words };
    let camel: String = words.split(['.', '-']).map(upper_first).collect();
    camel + &upper_first(version)
}

/// `apps_v1`, `rbacAuthorization_v1`, `core_v1`.
pub(super) fn tag(group: &str, version: &str) -> String {
    let camel = camel_version(group, "");
    let mut chars = camel.chars();
    let lower: String = chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect());
    format!("{lower}_{version}")
}

/// `a Pod`, `an Ingress`, `Endpoints`.
fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// All paths of a row.
pub(super) fn paths(row: &Resource) -> Vec<Path> {
    let builder = Builder {
        row,
        camel: camel_version(&row.group, &row.version),
        scope: if row.namespaced() { "Namespaced" } else { "" },
        component: kind_name(row),
    };
    let root = format!("/{}", root_path(&row.group, &row.version));
    let collection = match row.namespaced() {
        true => format!("{root}/namespaces/{{namespace}}/{}", row.plural),
        false => format!("{root}/{}", row.plural),
    };
    let item = format!("{collection}/{{name}}");
    let mut out = Vec::new();
    if row.namespaced() && row.has_verb("list") {
        out.push(builder.path(format!("{root}/{}", row.plural), false, false, vec![builder.list_everywhere()]));
    }
    out.push(builder.path(collection.clone(), row.namespaced(), false, builder.on_collection()));
    out.push(builder.path(item.clone(), row.namespaced(), true, builder.on_item()));
    for sub in &row.subresources {
        out.extend(builder.subresource(&item, sub));
    }
    // Upstream publishes no watch paths for custom resources.
    if row.has_verb("watch") && !row.custom {
        out.extend(builder.watches(&root));
    }
    out.retain(|p| !p.operations.is_empty());
    out
}

struct Builder<'r> {
    row: &'r Resource,
    camel: String,
    /// `Namespaced` or nothing.
    scope: &'static str,
    component: String,
}

impl Builder<'_> {
    /// A path whose common parameters are pulled up from its operations.
    fn path(&self, path: String, namespaced: bool, named: bool, mut operations: Vec<Operation>) -> Path {
        for operation in &mut operations {
            if namespaced {
                operation.parameters.push(namespace());
            }
            if named {
                let kind = &operation.kind.kind;
                operation.parameters.push(in_path("name", format!("name of the {kind}")));
            }
            if operation.action != "connect" {
                operation.parameters.extend(set("read"));
            }
            operation.parameters.sort();
        }
        let first = operations.first().map(|o| o.parameters.clone()).unwrap_or_default();
        let common: Vec<Parameter> =
            first.into_iter().filter(|p| operations.iter().all(|o| o.parameters.contains(p))).collect();
        for operation in &mut operations {
            operation.parameters.retain(|p| !common.contains(p));
        }
        Path { path, parameters: common, operations }
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, description: String) -> Operation {
        Operation {
            method,
            id,
            description,
            action,
            kind: self.row.gvk(),
            parameters: Vec::new(),
            body: None,
            consumes: vec!["*/*"],
            answer: self.object(&self.component, &[200], false),
        }
    }

    fn object(&self, component: &str, codes: &'static [u16], streams: bool) -> Answer {
        Answer::Object { component: component.to_owned(), codes, streams }
    }

    fn list(&self, id: String) -> Operation {
        let kind = &self.row.kind;
        let watches = self.row.has_verb("watch");
        let what = if watches { "list or watch objects of kind" } else { "list objects of kind" };
        let mut out = self.operation("get", "list", id, format!("{what} {kind}"));
        out.parameters.extend(set("list"));
        out.answer = self.object(&format!("{}List", self.component), &[200], true);
        out
    }

    fn list_everywhere(&self) -> Operation {
        self.list(format!("list{}{}ForAllNamespaces", self.camel, self.row.kind))
    }

    fn on_collection(&self) -> Vec<Operation> {
        let (row, kind) = (self.row, &self.row.kind);
        let mut out = Vec::new();
        if row.has_verb("list") {
            out.push(self.list(format!("list{}{}{kind}", self.camel, self.scope)));
        }
        if row.has_verb("create") {
            let id = format!("create{}{}{kind}", self.camel, self.scope);
            out.push(self.create(id, format!("create {}", with_article(kind)), &self.component));
        }
        if row.has_verb("deletecollection") {
            let id = format!("delete{}Collection{}{kind}", self.camel, self.scope);
            let mut delete = self.operation("delete", "deletecollection", id, format!("delete collection of {kind}"));
            let list = set("list").filter(|p| p.name != "watch" && p.name != "allowWatchBookmarks");
            delete.parameters.extend(list.chain(set("delete")));
            delete.body = Some((format!("{META}.DeleteOptions"), false));
            delete.answer = self.object(&format!("{META}.Status"), &[200], false);
            out.push(delete);
        }
        out
    }

    fn create(&self, id: String, description: String, component: &str) -> Operation {
        let mut out = self.operation("post", "post", id, description);
        out.parameters.extend(set("write"));
        out.body = Some((component.to_owned(), true));
        out.answer = self.object(component, &[200, 201, 202], false);
        out
    }

    fn replace(&self, id: String, description: String, component: &str) -> Operation {
        let mut out = self.operation("put", "put", id, description);
        out.parameters.extend(set("write"));
        out.body = Some((component.to_owned(), true));
        out.answer = self.object(component, &[200, 201], false);
        out
    }

    fn patch(&self, id: String, description: String, component: &str) -> Operation {
        let mut out = self.operation("patch", "patch", id, description);
        let own: Vec<Parameter> = set("patch").collect();
        let shared = set("write").filter(|p| own.iter().all(|o| o.name != p.name));
        out.parameters.extend(shared.chain(own.clone()));
        out.body = Some((format!("{META}.Patch"), true));
        out.consumes = PATCH_MEDIA_TYPES.to_vec();
        if self.row.custom {
            out.consumes.retain(|m| !m.contains("strategic"));
        }
        out.answer = self.object(component, &[200, 201], false);
        out
    }

    fn on_item(&self) -> Vec<Operation> {
        let (row, kind) = (self.row, &self.row.kind);
        let id = |verb: &str| format!("{verb}{}{}{kind}", self.camel, self.scope);
        let mut out = Vec::new();
        if row.has_verb("get") {
            out.push(self.operation("get", "get", id("read"), format!("read the specified {kind}")));
        }
        if row.has_verb("update") {
            out.push(self.replace(id("replace"), format!("replace the specified {kind}"), &self.component));
        }
        if row.has_verb("delete") {
            let mut delete = self.operation("delete", "delete", id("delete"), format!("delete {}", with_article(kind)));
            delete.parameters.extend(set("delete"));
            delete.body = Some((format!("{META}.DeleteOptions"), false));
            let component = if row.returns_deleted { self.component.clone() } else { format!("{META}.Status") };
            delete.answer = self.object(&component, &[200, 202], false);
            out.push(delete);
        }
        if row.has_verb("patch") {
            out.push(self.patch(id("patch"), format!("partially update the specified {kind}"), &self.component));
        }
        out
    }

    fn subresource(&self, item: &str, sub: &Subresource) -> Vec<Path> {
        let kind = GroupVersionKind { group: sub.group.clone(), version: sub.version.clone(), kind: sub.kind.clone() };
        let path = format!("{item}/{}", sub.name);
        if sub.kind.ends_with("Options") {
            return self.connect(path, sub, &kind);
        }
        let component = type_of_kind(self.row, &sub.group, &sub.version, &sub.kind);
        let component = component.unwrap_or_else(|| self.component.clone());
        let (owner, name) = (&self.row.kind, &sub.name);
        let id = |verb: &str| format!("{verb}{}{}{owner}{}", self.camel, self.scope, camel_subresource(name));
        let mut operations = Vec::new();
        if sub.has_verb("get") {
            let mut get = self.operation("get", "get", id("read"), format!("read {name} of the specified {owner}"));
            get.answer = self.object(&component, &[200], false);
            if name == "log" {
                get.parameters.extend(set("PodLogOptions"));
                let media_types = std::iter::once("text/plain").chain(MEDIA_TYPES).collect();
                get.answer = Answer::Text { media_types };
            }
            operations.push(get);
        }
        if sub.has_verb("create") {
            let owner = with_article(owner);
            operations.push(self.create(id("create"), format!("create {name} of {owner}"), &component));
        }
        if sub.has_verb("update") {
            let description = format!("replace {name} of the specified {owner}");
            operations.push(self.replace(id("replace"), description, &component));
        }
        if sub.has_verb("patch") {
            let description = format!("partially update {name} of the specified {owner}");
            operations.push(self.patch(id("patch"), description, &component));
        }
        for operation in &mut operations {
            operation.kind = kind.clone();
        }
        vec![self.path(path, self.row.namespaced(), true, operations)]
    }

    /// Streams and proxies, which answer with text of any kind.
    fn connect(&self, path: String, sub: &Subresource, kind: &GroupVersionKind) -> Vec<Path> {
        let mut methods: Vec<&'static str> = Vec::new();
        for (verb, method) in
            [("get", "get"), ("create", "post"), ("update", "put"), ("patch", "patch"), ("delete", "delete")]
        {
            if sub.has_verb(verb) {
                methods.push(method);
            }
        }
        let is_proxy = sub.name == "proxy";
        if is_proxy {
            methods.extend(["head", "options"]);
        }
        let owner = &self.row.kind;
        let operations = |suffix: &str, more: Option<Parameter>| {
            let build = |method: &&'static str| {
                let verb = upper_first(method);
                let id =
                    format!("connect{}{verb}{}{owner}{}{suffix}", self.camel, self.scope, camel_subresource(&sub.name));
                let description = format!("connect {} requests to {} of {owner}", method.to_uppercase(), sub.name);
                let mut out = self.operation(method, "connect", id, description);
                out.kind = kind.clone();
                out.parameters.extend(set(&sub.kind).chain(more.clone()));
                out.answer = Answer::Text { media_types: vec!["*/*"] };
                out
            };
            methods.iter().map(build).collect::<Vec<_>>()
        };
        let mut out = vec![self.path(path.clone(), self.row.namespaced(), true, operations("", None))];
        if is_proxy {
            let more = Some(in_path("path", "path to the resource"));
            let operations = operations("WithPath", more);
            out.push(self.path(format!("{path}/{{path}}"), self.row.namespaced(), true, operations));
        }
        out
    }

    /// The deprecated watch paths.
    fn watches(&self, root: &str) -> Vec<Path> {
        let (kind, plural) = (&self.row.kind, &self.row.plural);
        let watch = |action: &'static str, id: String| {
            let what = match action {
                "watchlist" => format!("watch individual changes to a list of {kind}."),
                _ => format!("watch changes to an object of kind {kind}."),
            };
            let hint = match action {
                "watchlist" => "deprecated: use the 'watch' parameter with a list operation instead.",
                _ => {
                    "deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item \
                     with the 'fieldSelector' parameter."
                }
            };
            let mut out = self.operation("get", action, id, format!("{what} {hint}"));
            out.parameters.extend(set("list"));
            out.answer = self.object(&format!("{META}.WatchEvent"), &[200], true);
            out
        };
        let (camel, scope) = (&self.camel, self.scope);
        let mut out = Vec::new();
        let collection = if self.row.namespaced() {
            let id = format!("watch{camel}{kind}ListForAllNamespaces");
            out.push(self.path(format!("{root}/watch/{plural}"), false, false, vec![watch("watchlist", id)]));
            format!("{root}/watch/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{root}/watch/{plural}")
        };
        let namespaced = self.row.namespaced();
        let list = watch("watchlist", format!("watch{camel}{scope}{kind}List"));
        out.push(self.path(collection.clone(), namespaced, false, vec![list]));
        let one = watch("watch", format!("watch{camel}{scope}{kind}"));
        out.push(self.path(format!("{collection}/{{name}}"), namespaced, true, vec![one]));
        out
    }
}

fn camel_subresource(name: &str) -> String {
    upper_first(name)
}

/// A parameter's schema keywords.
pub(super) fn parameter_schema(parameter: &Parameter) -> [(String, Value); 2] {
    [("type".to_owned(), parameter.kind.into()), ("uniqueItems".to_owned(), true.into())]
}
