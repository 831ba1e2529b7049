//! Nobody gives away rights they do not have: a role may hold only what its writer holds, unless the writer may
//! `escalate`; a binding only to roles whose rights the writer holds, unless the writer may `bind`. Upstream has this in
//! the storage of the four kinds (`policybased`).

use std::collections::BTreeSet;

use serde_json::Value;

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, Operation};
use crate::authz::rule::{Rule, missing, quoted};
use crate::authz::{Attributes, Decision, GROUP};
use crate::server::Server;

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if request.info.group != GROUP || !writes || !request.info.subresource.is_empty() {
        return Ok(());
    }
    match request.info.resource.as_str() {
        resource @ ("roles" | "clusterroles") => role(server, request, resource),
        "rolebindings" | "clusterrolebindings" => binding(server, request),
        _ => Ok(()),
    }
}

fn role(server: &Server, request: &AdmissionRequest<'_>, resource: &str) -> Result<(), Status> {
    let unchanged = |field: &str| request.object.get(field) == request.old_object.get(field);
    if request.operation == Operation::Update && unchanged("rules") && unchanged("aggregationRule") {
        return Ok(());
    }
    if allowed(server, request, "escalate", resource, request.object_name()) {
        return Ok(());
    }
    let aggregates = |object: &Value| object.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if aggregates(&request.object) || aggregates(request.old_object) {
        let everything =
            Rule { verbs: vec!["*".into()], groups: vec!["*".into()], resources: vec!["*".into()], ..Rule::default() };
        let paths = Rule { verbs: vec!["*".into()], urls: vec!["*".into()], ..Rule::default() };
        if lacking(server, request, &[everything, paths]).is_some() {
            return Err(request.forbidden("must have cluster-admin privileges to use the aggregationRule"));
        }
    }
    holds(server, request, &Rule::parse_all(&request.object))
}

fn binding(server: &Server, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let unchanged = |field: &str| request.object.get(field) == request.old_object.get(field);
    if request.operation == Operation::Update && unchanged("roleRef") && unchanged("subjects") {
        return Ok(());
    }
    let role = |field: &str| request.object["roleRef"].get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (role("kind"), role("name"));
    let resource = if kind == "Role" { "roles" } else { "clusterroles" };
    if allowed(server, request, "bind", resource, name) {
        return Ok(());
    }
    let policy = server.authorizer.policy(server);
    let Some(rules) = policy.role(kind, meta::namespace(&request.object), name) else {
        // The answer upstream gives: the resource is that of the request, the name that of the role.
        return Err(Status::not_found(GROUP, &request.info.resource, name));
    };
    holds(server, request, rules)
}

fn allowed(server: &Server, request: &AdmissionRequest<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let asked =
        Attributes { name, namespace: request.namespace, ..Attributes::resource(request.user, verb, GROUP, resource) };
    matches!(server.authorizer.decide(server, &asked), Decision::Allow(_))
}

fn holds(server: &Server, request: &AdmissionRequest<'_>, rules: &[Rule]) -> Result<(), Status> {
    match lacking(server, request, rules) {
        None => Ok(()),
        Some(why) => Err(request.forbidden(why)),
    }
}

/// What the writer lacks of `rules`, as upstream words it (`ConfirmNoEscalation`).
fn lacking(server: &Server, request: &AdmissionRequest<'_>, rules: &[Rule]) -> Option<String> {
    let policy = server.authorizer.policy(server);
    let mut held = Vec::new();
    let unresolved = policy.visit(request.user, request.namespace, |grant| {
        held.push(grant.rule);
        true
    });
    let lacking = missing(held, rules);
    if lacking.is_empty() {
        return None;
    }
    let texts: BTreeSet<String> = lacking.iter().map(ToString::to_string).collect();
    let texts: Vec<String> = texts.into_iter().collect();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        request.user.name,
        quoted(request.user.groups.iter().map(String::as_str)),
        texts.join("\n")
    );
    if !unresolved.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", unresolved.join(", ")));
    }
    Some(why)
}
