//! ValidatingAdmissionPolicies on one request: every binding's verdict, then the answer (`validating.dispatcher`).

use api::status::{Cause, Status};
use cel::{Budget, OBJECT_COST_MAX, Value};
use serde_json::Value as Json;

use super::compiled::{Expression, Policy, Validation};
use super::input::Input;
use super::{Hook, matching, params};
use crate::admission::AdmissionRequest;
use crate::server::Server;

/// Bytes of a message that an expression makes (`MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

struct Denial {
    message: String,
    reason: String,
}

/// A validation that does not hold, or could not be evaluated.
struct Failed {
    message: String,
    /// Empty for what could not be evaluated.
    reason: String,
}

pub fn run(server: &Server, request: &mut AdmissionRequest<'_>, hooks: &[Hook]) -> Result<(), Status> {
    let mut denials = Vec::new();
    for hook in hooks {
        one(server, request, hook, &mut denials);
    }
    match denials.into_iter().next() {
        Some(denial) => Err(refusal(request, denial)),
        None => Ok(()),
    }
}

fn one(server: &Server, request: &mut AdmissionRequest<'_>, hook: &Hook, denials: &mut Vec<Denial>) {
    let policy = &hook.policy;
    let name = &policy.name;
    let mut misconfigured = |binding: Option<&str>, why: String| {
        if policy.ignores_failures {
            return;
        }
        let message = match binding {
            None => format!("ValidatingAdmissionPolicy '{name}' denied request: failed to configure policy: {why}"),
            Some(binding) => format!(
                "ValidatingAdmissionPolicy '{name}' with binding '{binding}' denied request: failed to configure binding: {why}"
            ),
        };
        denials.push(Denial { message, reason: String::new() });
    };
    let matched = match matching::matches(server, request, &policy.spec["matchConstraints"], "resourceRules") {
        Ok(Some(matched)) => matched,
        Ok(None) => return,
        Err(why) => return misconfigured(None, why),
    };
    let mut failures: Vec<(&Json, Failed)> = Vec::new();
    let mut input = None;
    for binding in &hook.bindings {
        let of = api::meta::name(binding);
        let resources = &binding["spec"]["matchResources"];
        let bound = resources.is_null()
            || match matching::matches(server, request, resources, "resourceRules") {
                Ok(bound) => bound.is_some(),
                Err(why) => {
                    misconfigured(Some(of), why);
                    continue;
                }
            };
        if !bound {
            continue;
        }
        let all = match params::collect(server, &policy.spec, binding, request.namespace) {
            Ok(all) => all,
            Err(why) => {
                misconfigured(Some(of), why);
                continue;
            }
        };
        for param in all {
            let input = input.get_or_insert_with(|| {
                let object = matched.convert(server, request, &request.object);
                Input::new(server, request, &matched, &object)
            });
            let failed = evaluate(policy, &input.clone().with(policy, param.as_ref()));
            failures.extend(failed.into_iter().map(|failed| (binding, failed)));
        }
    }
    for (binding, failed) in failures {
        act(request, policy, binding, failed, denials);
    }
}

fn act(request: &mut AdmissionRequest<'_>, policy: &Policy, binding: &Json, failed: Failed, denials: &mut Vec<Denial>) {
    let (name, of) = (&policy.name, api::meta::name(binding));
    for action in binding["spec"]["validationActions"].as_array().into_iter().flatten() {
        let message = &failed.message;
        match action.as_str() {
            Some("Deny") => denials.push(Denial {
                message: format!("ValidatingAdmissionPolicy '{name}' with binding '{of}' denied request: {message}"),
                reason: failed.reason.clone(),
            }),
            Some("Warn") => request.warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{of}': {message}"
            )),
            // This server keeps no audit log.
            _ => {}
        }
    }
}

/// Validations that fail.
fn evaluate(policy: &Policy, input: &Input) -> Vec<Failed> {
    let ignore = policy.ignores_failures;
    let error = |message: String| if ignore { Vec::new() } else { vec![Failed { message, reason: String::new() }] };
    match conditions_hold(policy, input) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(message) => return error(message),
    }
    let mut budget = Budget::new(OBJECT_COST_MAX);
    let mut out = Vec::new();
    for validation in &policy.validations {
        let result = input.scope(|scope| validation.expression.evaluate(scope, &mut budget));
        match result {
            Err(exhausted) => return error(exhausted),
            Ok(Ok(Value::Bool(true))) => {}
            Ok(Ok(_)) => out.push(Failed {
                message: message(validation, input, &mut budget),
                reason: if validation.reason.is_empty() { "Invalid".to_owned() } else { validation.reason.clone() },
            }),
            Ok(Err(problem)) => out.extend(error(problem)),
        }
    }
    // Their values would go to the audit log; that they can be had counts.
    let mut budget = Budget::new(OBJECT_COST_MAX);
    for (_, expression) in &policy.annotations {
        match input.scope(|scope| expression.evaluate(scope, &mut budget)) {
            Ok(Ok(_)) => {}
            Ok(Err(problem)) | Err(problem) => out.extend(error(problem)),
        }
    }
    out
}

/// Whether all conditions of the policy hold; one that does not, decides before errors of others.
pub fn conditions_hold(policy: &Policy, input: &Input) -> Result<bool, String> {
    hold(&policy.conditions, input)
}

pub fn hold(conditions: &[(String, Expression)], input: &Input) -> Result<bool, String> {
    let mut budget = Budget::new(OBJECT_COST_MAX / 4);
    let mut problems = Vec::new();
    for (_, condition) in conditions {
        match input.scope(|scope| condition.evaluate(scope, &mut budget)) {
            Ok(Ok(Value::Bool(false))) => return Ok(false),
            Ok(Ok(_)) => {}
            Ok(Err(problem)) | Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(true) } else { Err(problems.join(", ")) }
}

fn message(validation: &Validation, input: &Input, budget: &mut Budget) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| {
        match input.scope(|scope| expression.evaluate(scope, budget)) {
            Ok(Ok(Value::String(text))) => Some(text.trim().to_owned()),
            _ => None,
        }
    });
    let fits = |text: &String| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
    made.filter(fits).unwrap_or_else(|| match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.source.trim()),
        message => message.to_owned(),
    })
}

fn refusal(request: &AdmissionRequest<'_>, denial: Denial) -> Status {
    let mut status = request.forbidden(&denial.message);
    let reason = if denial.reason.is_empty() { "Invalid" } else { &denial.reason };
    status.reason = reason.to_owned();
    status.code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let cause = Cause { message: denial.message, ..Cause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}
