//! MutatingAdmissionPolicies on one request: each changes what those before it made. When a later one changes the object,
//! those that ask for it (`reinvocationPolicy: IfNeeded`) run once more.

use std::sync::Arc;

use api::apply;
use api::catalogue::Resource;
use api::meta;
use api::schema::{ListType, Schema, Shape};
use api::status::{Cause, Status};
use cel::{Budget, OBJECT_COST_MAX, Value};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::compiled::{Expression, Mutation, Policy};
use super::input::Input;
use super::matching::{self, Matched};
use super::validating::conditions_hold;
use super::{Hook, params};
use crate::admission::AdmissionRequest;
use crate::server::Server;

/// One policy in one binding with one of its params.
struct Invocation<'a> {
    policy: &'a Policy,
    binding: &'a str,
    params: Option<Json>,
    matched: Matched,
}

/// The row that the object is read by.
struct Subject(Arc<Resource>);

pub fn run(server: &Server, request: &mut AdmissionRequest<'_>, hooks: &[Hook]) -> Result<(), Status> {
    let mut refusals = Vec::new();
    let invocations = invocations(server, request, hooks, &mut refusals);
    let mut changed_after: Vec<usize> = Vec::new();
    for (index, invocation) in invocations.iter().enumerate() {
        if invoke(server, request, invocation, &mut refusals) {
            // Those before it may want to look again.
            changed_after.extend((0..index).filter(|earlier| !changed_after.contains(earlier)).collect::<Vec<_>>());
        }
    }
    changed_after.sort_unstable();
    for index in changed_after {
        if invocations[index].policy.spec["reinvocationPolicy"] == "IfNeeded" {
            invoke(server, request, &invocations[index], &mut refusals);
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(refused(request, refusals)) }
}

fn invocations<'a>(
    server: &Server,
    request: &AdmissionRequest<'_>,
    hooks: &'a [Hook],
    refusals: &mut Vec<String>,
) -> Vec<Invocation<'a>> {
    let mut out = Vec::new();
    for hook in hooks {
        let policy = &*hook.policy;
        let mut fail = |binding: Option<&str>, why: String| {
            if policy.ignores_failures {
                return;
            }
            let name = &policy.name;
            refusals.push(match binding {
                None => format!("policy '{name}' denied request: failed to configure policy: {why}"),
                Some(binding) => {
                    format!(
                        "policy '{name}' with binding '{binding}' denied request: failed to configure binding: {why}"
                    )
                }
            });
        };
        let matched = match matching::matches(server, request, &policy.spec["matchConstraints"], "resourceRules") {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(why) => {
                fail(None, why);
                continue;
            }
        };
        for binding in &hook.bindings {
            let name = meta::name(binding);
            let resources = &binding["spec"]["matchResources"];
            let matches = || matching::matches(server, request, resources, "resourceRules");
            let bound = if resources.is_null() { Ok(true) } else { matches().map(|bound| bound.is_some()) };
            let found = match bound {
                Ok(true) => params::collect(server, &policy.spec, binding, request.namespace),
                Ok(false) => continue,
                Err(why) => Err(why),
            };
            match found {
                Err(why) => fail(Some(name), why),
                Ok(all) => out.extend(all.into_iter().map(|params| Invocation {
                    policy,
                    binding: name,
                    params,
                    matched: matched.clone(),
                })),
            }
        }
    }
    out
}

/// Returns whether the object changed.
fn invoke(
    server: &Server,
    request: &mut AdmissionRequest<'_>,
    invocation: &Invocation<'_>,
    refusals: &mut Vec<String>,
) -> bool {
    if request.object.is_null() {
        return false;
    }
    let policy = invocation.policy;
    let mut fail = |why: String| {
        if !policy.ignores_failures {
            let (name, binding) = (&policy.name, invocation.binding);
            refusals.push(format!("policy '{name}' with binding '{binding}' denied request: {why}"));
        }
        false
    };
    let matched = &invocation.matched;
    let before = matched.convert(server, request, &request.object);
    let catalogue = server.catalogue.load();
    let Some(row) = catalogue.find(&matched.group, &matched.version, &matched.resource).cloned() else { return false };
    let subject = Subject(row);
    let input = |object: &Json| Input::new(server, request, matched, object).with(policy, invocation.params.as_ref());
    match conditions_hold(policy, &input(&before)) {
        Ok(true) => {}
        Ok(false) => return false,
        Err(why) => return fail(why),
    }
    let mut object = before.clone();
    for mutation in &policy.mutations {
        match subject.mutate(&object, mutation, &input(&object)) {
            Ok(next) => object = next,
            Err(why) => return fail(why),
        }
    }
    if object == before {
        return false;
    }
    request.object = matched.convert_back(server, request, object);
    true
}

impl Subject {
    fn mutate(&self, object: &Json, mutation: &Mutation, input: &Input) -> Result<Json, String> {
        let mut next = match mutation {
            Mutation::Apply(expression) => self.apply(object, &evaluate(expression, input)?)?,
            Mutation::Patch(expression) => patch(object, &evaluate(expression, input)?)?,
        };
        if self.0.custom {
            api::decode::apply_defaults(self.0.schema(), &mut next);
        } else {
            api::strategy::of(&self.0.group, &self.0.plural).default(&mut next);
        }
        Ok(next)
    }

    /// Merges as an applied configuration is merged; nobody comes to own anything by it.
    fn apply(&self, object: &Json, made: &Value) -> Result<Json, String> {
        check_names(made, "Object").map_err(|why| format!("type mismatch: {why}"))?;
        let mut config = made.to_json().map_err(|error| error.to_string())?;
        let schema = self.0.schema();
        let mut atomic = Vec::new();
        atomics(schema, &config, String::new(), &mut atomic);
        if !atomic.is_empty() {
            let list = atomic.join(", ");
            return Err(format!(
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
            ));
        }
        config["apiVersion"] = self.0.api_version().into();
        config["kind"] = self.0.kind.as_str().into();
        let mut live = object.clone();
        let managed = meta::metadata_mut(&mut live).remove("managedFields");
        let merged = apply::apply(apply::Request {
            schema,
            live: Some(&live),
            config: &config,
            manager: "admission",
            force: true,
            api_version: &self.0.api_version(),
            kind: &self.0.kind,
            subresource: "",
            now: Timestamp::UNIX_EPOCH,
            reset_fields: &[],
            only_fields: &[],
            versions: None,
        });
        let mut merged = merged.map_err(|error| format!("error applying patch: {error}"))?;
        let metadata = meta::metadata_mut(&mut merged);
        metadata.remove("managedFields");
        if let Some(managed) = managed {
            metadata.insert("managedFields".to_owned(), managed);
        }
        Ok(merged)
    }
}

fn evaluate(expression: &Expression, input: &Input) -> Result<Value, String> {
    let mut budget = Budget::new(OBJECT_COST_MAX);
    input.scope(|scope| expression.evaluate(scope, &mut budget)).and_then(|result| result)
}

/// `Object.spec{selector: Object.spec.wrong{}}` names another field than it stands for.
fn check_names(value: &Value, path: &str) -> Result<(), String> {
    match value {
        Value::Map(map) => {
            let Some(name) = &map.type_name else { return Ok(()) };
            if **name != *path {
                return Err(format!(
                    "unexpected type name \"{name}\", expected \"{path}\", which matches field name path from root Object type"
                ));
            }
            map.entries.iter().try_for_each(|(key, value)| check_names(value, &format!("{path}.{key}")))
        }
        Value::List(list) => list.items.iter().try_for_each(|item| check_names(item, path)),
        _ => Ok(()),
    }
}

/// Paths of values that could only be replaced as a whole.
fn atomics(schema: Schema<'_>, value: &Json, path: String, out: &mut Vec<String>) {
    match value {
        Json::Object(fields) => {
            if !path.is_empty() && schema.map_is_atomic() {
                out.push(path);
                return;
            }
            for (name, value) in fields {
                if let Some(member) = schema.member(name) {
                    atomics(member, value, format!("{path}.{name}"), out);
                }
            }
        }
        Json::Array(items) => {
            if schema.shape() == Shape::List && schema.list_type() == ListType::Atomic {
                out.push(path);
                return;
            }
            for item in items {
                if let Some(schema) = schema.items() {
                    atomics(schema, item, format!("{path}[]"), out);
                }
            }
        }
        _ => {}
    }
}

fn patch(object: &Json, operations: &Value) -> Result<Json, String> {
    let operations = operations.to_json().map_err(|error| {
        format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
    })?;
    api::patch::json(object, &operations).map_err(|error| format!("JSON Patch: {error}"))
}

/// The first failure is the answer's message; all are its causes (`policyDispatcher.Dispatch`).
fn refused(request: &AdmissionRequest<'_>, refusals: Vec<String>) -> Status {
    let mut status = request.forbidden("admission request denied by policy");
    status.reason = "Invalid".to_owned();
    status.message = refusals.first().cloned().unwrap_or_default();
    let causes = refusals.into_iter().map(|message| Cause { message, ..Cause::default() });
    status.details.get_or_insert_default().causes.extend(causes);
    status
}
