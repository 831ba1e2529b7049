//! Priority: the number and the preemption policy of a pod come from its priority class. Also: one default class, and
//! the system's classes stay.

use serde_json::Value;

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, Operation, all, find};
use crate::server::Server;

const GROUP: &str = "scheduling.k8s.io";
const SYSTEM_PREFIX: &str = "system-";
const PREEMPT: &str = "PreemptLowerPriority";

pub fn mutate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if request.updates("", "pods") {
        // What was computed once stays with a writer that leaves it out; other changes validation refuses.
        for field in ["priority", "preemptionPolicy"] {
            let old = request.old_object["spec"].get(field).filter(|v| !v.is_null()).cloned();
            let spec = meta::child_mut(&mut request.object, "spec");
            if let (Some(old), None) = (old, spec.get(field).filter(|v| !v.is_null())) {
                spec[field] = old;
            }
        }
        return Ok(());
    }
    if !request.creates("", "pods") {
        return Ok(());
    }
    let asked = request.object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if asked.is_empty() {
        default_class(server)
    } else {
        let found = find(server, GROUP, "priorityclasses", "", &asked);
        Some(found.ok_or_else(|| request.forbidden(format!("no PriorityClass with name {asked} was found")))?)
    };
    let value = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    let policy = class.as_ref().map_or(Some(PREEMPT), |c| c["preemptionPolicy"].as_str()).map(str::to_owned);
    let spec = &request.object["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != value) {
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    let given = spec["preemptionPolicy"].as_str();
    if let (Some(given), Some(policy)) = (given, &policy)
        && given != policy
    {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let spec = meta::child_mut(&mut request.object, "spec");
    spec["priority"] = value.into();
    if let Some(policy) = policy {
        spec["preemptionPolicy"] = policy.into();
    }
    if let Some(class) = class {
        spec["priorityClassName"] = meta::name(&class).into();
    }
    Ok(())
}

/// The class marked as default; of several, by a race, that of the lowest value.
fn default_class(server: &Server) -> Option<Value> {
    let marked = all(server, GROUP, "priorityclasses", "").into_iter().filter(|c| c["globalDefault"] == true);
    marked.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.is(GROUP, "priorityclasses", "") {
        return Ok(());
    }
    if request.operation == Operation::Delete && request.name.starts_with(SYSTEM_PREFIX) {
        return Err(request.forbidden("this is a system priority class and cannot be deleted"));
    }
    if request.object["globalDefault"] == true
        && let Some(other) = default_class(server)
        && (request.operation == Operation::Create || meta::name(&other) != request.object_name())
    {
        return Err(request.forbidden(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            meta::name(&other)
        )));
    }
    Ok(())
}
