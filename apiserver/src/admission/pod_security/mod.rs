//! PodSecurity: a namespace's labels say which of upstream's pod security standards its pods must meet (`enforce`), and
//! which only warn. Objects with pod templates are never refused for it, only warned about.

mod checks;
mod policy;

use std::collections::BTreeMap;

use serde_json::Value;

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, Operation, all, find};
use crate::server::Server;
use api::quota::containers;
use policy::{Level, LevelVersion, Policy};

/// Pods looked at when a namespace's level is tightened (upstream's `defaultNamespaceMaxPodsToCheck`).
const EXISTING_PODS_MAX: usize = 3_000;

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let info = request.info;
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("", "namespaces", "") => namespace(server, request),
        ("", "pods", "" | "ephemeralcontainers" | "resize") => pod(server, request),
        (group, resource, "") => template(server, request, group, resource),
        _ => Ok(()),
    }
}

fn namespace_policy(server: &Server, name: &str) -> Policy {
    let found = find(server, "", "namespaces", "", name);
    found.map(|namespace| Policy::of_labels(meta::labels(&namespace)).0).unwrap_or_default()
}

fn pod(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let policy = namespace_policy(server, request.namespace);
    if policy.is_privileged() {
        return Ok(());
    }
    if request.operation == Operation::Update && !significant(&request.object, request.old_object) {
        return Ok(());
    }
    let violations = evaluate(policy.enforce, &request.object);
    if !violations.is_empty() {
        let details = describe(&violations);
        return Err(request.forbidden(format!("violates PodSecurity \"{}\": {details}", policy.enforce)));
    }
    warn(request, policy.warn, None);
    Ok(())
}

/// Adds a warning if the pod, or the template given, would not meet the level.
fn warn(request: &mut AdmissionRequest<'_>, level: LevelVersion, template: Option<&Value>) {
    let violations = evaluate(level, template.unwrap_or(&request.object));
    if !violations.is_empty() {
        request.warnings.push(format!("would violate PodSecurity \"{level}\": {}", describe(&violations)));
    }
}

fn template(server: &Server, request: &mut AdmissionRequest<'_>, group: &str, resource: &str) -> Result<(), Status> {
    let path = match (group, resource) {
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => "/spec/template",
        ("", "replicationcontrollers") | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        ("", "podtemplates") => "/template",
        _ => return Ok(()),
    };
    let policy = namespace_policy(server, request.namespace);
    if policy.warn.level == Level::Privileged {
        return Ok(());
    }
    if let Some(template) = request.object.pointer(path).filter(|t| t.is_object()).cloned() {
        warn(request, policy.warn, Some(&template));
    }
    Ok(())
}

fn namespace(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let (new, errors) = Policy::of_labels(meta::labels(&request.object));
    let (old, old_errors) = Policy::of_labels(meta::labels(request.old_object));
    if !errors.is_empty() && (request.operation == Operation::Create || errors != old_errors) {
        return Err(Status::invalid("", "Namespace", request.object_name(), &errors));
    }
    let tightened = new.enforce.version != old.enforce.version || new.enforce.level > old.enforce.level;
    if request.operation == Operation::Update && new.enforce.level != Level::Privileged && tightened {
        let warnings = existing(server, request.object_name(), new.enforce);
        request.warnings.extend(warnings);
    }
    Ok(())
}

/// Which pods that are there would be refused now, grouped by what is wrong with them.
fn existing(server: &Server, namespace: &str, level: LevelVersion) -> Vec<String> {
    let mut by_problem: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let pods = all(server, "", "pods", namespace);
    let total = pods.len();
    for pod in pods.into_iter().take(EXISTING_PODS_MAX) {
        let violations = evaluate(level, &pod);
        if !violations.is_empty() {
            let reasons: Vec<&str> = violations.iter().map(|v| v.reason).collect();
            by_problem.entry(reasons.join(", ")).or_default().push(meta::name(&pod).to_owned());
        }
    }
    if by_problem.is_empty() {
        return Vec::new();
    }
    let mut warnings =
        vec![format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{level}\"")];
    if total > EXISTING_PODS_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {EXISTING_PODS_MAX} of {total} existing pods"
        ));
    }
    for (problem, mut names) in by_problem {
        names.sort();
        let (first, others) = (&names[0], names.len() - 1);
        let who = match others {
            0 => first.clone(),
            1 => format!("{first} (and 1 other pod)"),
            more => format!("{first} (and {more} other pods)"),
        };
        warnings.push(format!("{who}: {problem}"));
    }
    warnings
}

fn evaluate(level: LevelVersion, pod: &Value) -> Vec<checks::Violation> {
    checks::all(level, pod)
}

fn describe(violations: &[checks::Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    texts.join(", ")
}

/// Whether an update touches what the standards look at; the rest of a pod's spec can't change.
fn significant(new: &Value, old: &Value) -> bool {
    const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
    let parts = |pod: &Value| -> Vec<(Value, Value, Value)> {
        let one = |c: &Value| (c["name"].clone(), c["image"].clone(), c["securityContext"].clone());
        containers(pod, &LISTS).map(one).collect()
    };
    let security = |pod: &Value| -> Vec<(String, Value)> {
        let annotations = meta::annotations(pod).into_iter().flatten();
        let ours = annotations.filter(|(k, _)| k.contains("seccomp.security") || k.contains("apparmor.security"));
        ours.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    parts(new) != parts(old) || security(new) != security(old)
}
