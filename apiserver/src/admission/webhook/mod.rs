//! Admission webhooks: who else may change or refuse a write. Configurations are read from the watch cache at each
//! request. Mutating ones are asked one after the other, each seeing what those before it made; validating ones at once.

mod call;
mod review;

use api::meta;
use api::status::Status;
use serde_json::Value;

use super::AdmissionRequest;
use super::matching::{self, Matched};
use super::policy;
use crate::server::Server;

const GROUP: &str = "admissionregistration.k8s.io";

/// A webhook that concerns a request, with what it sees the request as.
struct Hook {
    spec: Value,
    matched: Matched,
}

impl Hook {
    fn name(&self) -> &str {
        self.spec["name"].as_str().unwrap_or_default()
    }

    fn ignores_failures(&self) -> bool {
        self.spec["failurePolicy"] == "Ignore"
    }

    /// Whether it can be called: a dry run must not have effects.
    fn check_dry_run(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let harmless = matches!(self.spec["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"));
        if !request.dry_run || harmless {
            return Ok(());
        }
        Err(Status::bad_request(format!("admission webhook {:?} does not support dry run", self.name())))
    }
}

/// Why a webhook has no verdict.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// `failurePolicy` decides what that means.
    #[error("{0}")]
    Call(String),
    #[error("{0}")]
    Refused(Status),
}

pub async fn mutate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let mut asked: Vec<Value> = Vec::new();
    for spec in configured(server, request, "mutatingwebhookconfigurations") {
        let changed = ask_to_change(server, request, &spec).await?;
        if changed {
            // Those before it that want to see every change are asked once more.
            for earlier in asked.iter().filter(|earlier| earlier["reinvocationPolicy"] == "IfNeeded") {
                ask_to_change(server, request, earlier).await?;
            }
        }
        asked.push(spec);
    }
    Ok(())
}

async fn ask_to_change(server: &Server, request: &mut AdmissionRequest<'_>, spec: &Value) -> Result<bool, Status> {
    let Some(hook) = concerned(server, request, spec)? else { return Ok(false) };
    hook.check_dry_run(request)?;
    match change(server, request, &hook).await {
        Ok(changed) => Ok(changed),
        Err(failure) => answer(&hook, failure).map(|()| false),
    }
}

pub async fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let mut hooks = Vec::new();
    for spec in configured(server, request, "validatingwebhookconfigurations") {
        if let Some(hook) = concerned(server, request, &spec)? {
            hook.check_dry_run(request)?;
            hooks.push(hook);
        }
    }
    let seen = &*request;
    let calls = hooks.iter().map(|hook| async move {
        let object = hook.matched.convert(server, seen, &seen.object);
        ask(server, seen, hook, &object, false).await
    });
    let verdicts = futures_util::future::join_all(calls).await;
    let mut refusal = Ok(());
    for (hook, verdict) in hooks.iter().zip(verdicts) {
        match verdict {
            Ok(verdict) => request.warnings.extend(verdict.warnings),
            Err(failure) => refusal = refusal.and(answer(hook, failure)),
        }
    }
    refusal
}

/// All webhooks of all configurations, in the order of their configurations' names.
fn configured(server: &Server, request: &AdmissionRequest<'_>, plural: &str) -> Vec<Value> {
    if matching::is_configuration(request) {
        return Vec::new();
    }
    let Some((_, cache)) = server.resource(GROUP, plural) else { return Vec::new() };
    let snapshot = cache.snapshot();
    let hooks = |configuration: Value| configuration["webhooks"].as_array().cloned().unwrap_or_default();
    snapshot.iter().flat_map(|(_, item)| hooks(item.value())).collect()
}

/// The webhook if rules, selectors and conditions match.
fn concerned(server: &Server, request: &AdmissionRequest<'_>, spec: &Value) -> Result<Option<Hook>, Status> {
    let matched = match matching::matches(server, request, spec, "rules") {
        Ok(Some(matched)) => matched,
        Ok(None) => return Ok(None),
        Err(why) => return Err(Status::internal(why)),
    };
    match policy::hook_conditions(server, request, &matched, &spec["matchConditions"]) {
        Ok(true) => Ok(Some(Hook { spec: spec.clone(), matched })),
        Ok(false) => Ok(None),
        Err(_) if spec["failurePolicy"] == "Ignore" => Ok(None),
        Err(why) => Err(request.forbidden(why)),
    }
}

async fn ask(
    server: &Server,
    request: &AdmissionRequest<'_>,
    hook: &Hook,
    object: &Value,
    mutating: bool,
) -> Result<review::Verdict, Failure> {
    let old = hook.matched.convert(server, request, request.old_object);
    let version = review::version(&hook.spec);
    let (uid, review) = review::make(version, matching::described(request, &hook.matched), object, &old);
    let answer = call::post(server, &hook.spec, &review)
        .await
        .map_err(|why| Failure::Call(format!("failed to call webhook: {why}")))?;
    let verdict = review::judge(version, &uid, &answer, mutating);
    let verdict = verdict.map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))?;
    match verdict.refusal(hook.name()) {
        Some(refusal) => Err(Failure::Refused(refusal)),
        None => Ok(verdict),
    }
}

/// Returns whether the object changed.
async fn change(server: &Server, request: &mut AdmissionRequest<'_>, hook: &Hook) -> Result<bool, Failure> {
    let object = hook.matched.convert(server, request, &request.object);
    let verdict = ask(server, request, hook, &object, true).await?;
    request.warnings.extend(verdict.warnings);
    let Some(patch) = verdict.patch.filter(|patch| patch.as_array().is_none_or(|list| !list.is_empty())) else {
        return Ok(false);
    };
    if object.is_null() {
        let name = hook.name();
        return Err(Failure::Refused(Status::internal(format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        ))));
    }
    let mut next = api::patch::json(&object, &patch).map_err(|error| Failure::Refused(Status::internal(error)))?;
    let row = hook.matched.row(server);
    if let Some(row) = row.filter(|_| request.info.subresource.is_empty()) {
        if row.custom {
            api::decode::prune(row.schema(), &mut next);
            api::decode::apply_defaults(row.schema(), &mut next);
        } else {
            api::strategy::of(&row.group, &row.plural).default(&mut next);
        }
    }
    let changed = next != object;
    request.object = hook.matched.convert_back(server, request, next);
    // What a webhook cannot know it cannot take away.
    if meta::name(&request.object).is_empty() && !request.name.is_empty() {
        meta::metadata_mut(&mut request.object).insert("name".to_owned(), request.name.into());
    }
    Ok(changed)
}

/// What a failure means for the request.
fn answer(hook: &Hook, failure: Failure) -> Result<(), Status> {
    let name = hook.name();
    match failure {
        Failure::Refused(status) => Err(status),
        Failure::Call(why) if hook.ignores_failures() => {
            tracing::warn!(webhook = name, why, "calling an admission webhook failed; its policy is to go on");
            Ok(())
        }
        Failure::Call(why) => Err(Status::internal(format!("failed calling webhook {name:?}: {why}"))),
    }
}
