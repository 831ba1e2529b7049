//! Which requests a policy or webhook concerns: rules, selectors, and other versions of the same resource
//! (`matching.Matcher`, `rules.Matcher`).

use std::sync::Arc;

use api::catalogue::Resource;
use api::meta::{self, GroupVersionKind};
use api::selector::LabelSelector;
use serde_json::Value;

use super::{AdmissionRequest, Operation, find};
use crate::convert;
use crate::server::Server;

/// What a policy or webhook sees a request as.
#[derive(Clone, Debug)]
pub struct Matched {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub kind: GroupVersionKind,
    /// The row of another version than the one asked for.
    other: Option<Arc<Resource>>,
}

impl Matched {
    /// As it was asked for.
    pub fn exactly(request: &AdmissionRequest<'_>) -> Self {
        let info = request.info;
        Self {
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            kind: request.kind.clone(),
            other: None,
        }
    }

    /// The row of the resource, in the version that matched.
    pub fn row(&self, server: &Server) -> Option<Arc<Resource>> {
        server.catalogue.load().find(&self.group, &self.version, &self.resource).cloned()
    }

    /// An object of the request in the version that matched.
    pub fn convert(&self, server: &Server, request: &AdmissionRequest<'_>, object: &Value) -> Value {
        match (&self.other, own_row(server, request)) {
            (Some(other), Some(own)) if !object.is_null() => through_storage(server, &own, other, object.clone()),
            _ => object.clone(),
        }
    }

    /// And back.
    pub fn convert_back(&self, server: &Server, request: &AdmissionRequest<'_>, object: Value) -> Value {
        match (&self.other, own_row(server, request)) {
            (Some(other), Some(own)) => through_storage(server, other, &own, object),
            _ => object,
        }
    }
}

fn own_row(server: &Server, request: &AdmissionRequest<'_>) -> Option<Arc<Resource>> {
    let info = request.info;
    server.catalogue.load().find(&info.group, &info.version, &info.resource).cloned()
}

fn through_storage(server: &Server, from: &Arc<Resource>, to: &Arc<Resource>, object: Value) -> Value {
    let storage = convert::storage_row(&server.catalogue.load(), from);
    convert::from_storage(to, &storage, convert::to_storage(from, &storage, object))
}

/// Operations as rules name them.
pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// Whether the selectors and one of the rules match. Without rules everything does that the selectors select.
pub fn matches(
    server: &Server,
    request: &AdmissionRequest<'_>,
    criteria: &Value,
    rules: &str,
) -> Result<Option<Matched>, String> {
    if !object_selected(request, &criteria["objectSelector"])? {
        return Ok(None);
    }
    let namespace = namespace_selected(server, request, &criteria["namespaceSelector"]);
    if namespace == Ok(false) {
        return Ok(None);
    }
    let exact = criteria["matchPolicy"] == "Exact";
    if by_rules(server, request, &criteria["excludeResourceRules"], exact).is_some() {
        return Ok(None);
    }
    let stated = criteria[rules].as_array().is_some_and(|list| !list.is_empty());
    let matched = if stated || rules == "rules" {
        by_rules(server, request, &criteria[rules], exact)
    } else {
        Some(Matched::exactly(request))
    };
    // What no rule concerns is not held up by a namespace that is gone.
    if matched.is_some() {
        namespace?;
    }
    Ok(matched)
}

fn by_rules(server: &Server, request: &AdmissionRequest<'_>, rules: &Value, exact: bool) -> Option<Matched> {
    let rules = rules.as_array()?;
    let asked = Matched::exactly(request);
    if rules.iter().any(|rule| rule_matches(rule, request, &asked)) {
        return Some(asked);
    }
    if exact {
        return None;
    }
    let own = own_row(server, request)?;
    let catalogue = server.catalogue.load();
    let related =
        |row: &&Arc<Resource>| row.stored && row.storage_prefix == own.storage_prefix && !convert::same(row, &own);
    for row in catalogue.iter().filter(related) {
        // A subresource's kind is its own in every version.
        let kind = if request.info.subresource.is_empty() { row.gvk() } else { request.kind.clone() };
        let other = Matched {
            group: row.group.clone(),
            version: row.version.clone(),
            resource: row.plural.clone(),
            kind,
            other: request.info.subresource.is_empty().then(|| Arc::clone(row)),
        };
        if rules.iter().any(|rule| rule_matches(rule, request, &other)) {
            return Some(other);
        }
    }
    None
}

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().into_iter().flatten().any(|item| item == "*" || item == wanted)
}

fn rule_matches(rule: &Value, request: &AdmissionRequest<'_>, asked: &Matched) -> bool {
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    scope_matches(rule, request)
        && has(&rule["operations"], operation(request.operation))
        && has(&rule["apiGroups"], &asked.group)
        && has(&rule["apiVersions"], &asked.version)
        && resource_matches(&rule["resources"], &asked.resource, &request.info.subresource)
        && names.is_none_or(|names| names.iter().any(|name| name == request.name))
}

fn scope_matches(rule: &Value, request: &AdmissionRequest<'_>) -> bool {
    let namespaced = !request.namespace.is_empty() && !is_namespace(request);
    match rule["scope"].as_str() {
        Some("Namespaced") => namespaced,
        Some("Cluster") => !namespaced,
        _ => true,
    }
}

fn is_namespace(request: &AdmissionRequest<'_>) -> bool {
    request.info.group.is_empty() && request.info.resource == "namespaces"
}

fn resource_matches(patterns: &Value, resource: &str, subresource: &str) -> bool {
    patterns.as_array().into_iter().flatten().filter_map(Value::as_str).any(|pattern| {
        let (wanted, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
        (wanted == "*" || wanted == resource) && (sub == "*" || sub == subresource)
    })
}

fn selector(selector: &Value) -> Result<LabelSelector, String> {
    match selector.is_null() {
        true => Ok(LabelSelector::everything()),
        false => LabelSelector::from_object(Some(selector)).map_err(|error| error.to_string()),
    }
}

fn object_selected(request: &AdmissionRequest<'_>, wanted: &Value) -> Result<bool, String> {
    let selector = selector(wanted)?;
    let selects = |object: &Value| !object.is_null() && selector.matches(object["metadata"]["labels"].as_object());
    Ok(selector.is_everything() || selects(&request.object) || selects(request.old_object))
}

fn namespace_selected(server: &Server, request: &AdmissionRequest<'_>, wanted: &Value) -> Result<bool, String> {
    let selector = selector(wanted)?;
    if selector.is_everything() {
        return Ok(true);
    }
    let own = is_namespace(request) && request.info.subresource.is_empty();
    if own && !request.object.is_null() {
        return Ok(selector.matches(request.object["metadata"]["labels"].as_object()));
    }
    if request.namespace.is_empty() {
        return Ok(true);
    }
    match namespace_object(server, request.namespace) {
        Some(found) => Ok(selector.matches(found["metadata"]["labels"].as_object())),
        None => Err(format!("namespaces {:?} not found", request.namespace)),
    }
}

pub fn namespace_object(server: &Server, name: &str) -> Option<Value> {
    find(server, "", "namespaces", "", name)
}

/// Whether a request is for what admission is configured with: it must stay possible to repair that.
pub fn is_configuration(request: &AdmissionRequest<'_>) -> bool {
    request.info.group == "admissionregistration.k8s.io"
}

/// The request in the form of `admission.k8s.io/v1` AdmissionRequest, without objects.
pub fn described(request: &AdmissionRequest<'_>, matched: &Matched) -> Value {
    let info = request.info;
    let mut out = serde_json::json!({
        "kind": {"group": matched.kind.group, "version": matched.kind.version, "kind": matched.kind.kind},
        "resource": {"group": matched.group, "version": matched.version, "resource": matched.resource},
        "requestKind": {
            "group": request.kind.group, "version": request.kind.version, "kind": request.kind.kind,
        },
        "requestResource": {"group": info.group, "version": info.version, "resource": info.resource},
        "operation": operation(request.operation),
        "userInfo": request.user.to_value(),
        "dryRun": request.dry_run,
        "options": request.options,
    });
    let texts = [
        ("subResource", info.subresource.as_str()),
        ("requestSubResource", info.subresource.as_str()),
        ("name", request.name),
        ("namespace", request.namespace),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        meta::object_mut(&mut out).insert(field.to_owned(), text.into());
    }
    out
}
