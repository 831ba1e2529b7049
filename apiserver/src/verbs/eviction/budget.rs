//! A PodDisruptionBudget's answer to one eviction (`EvictionREST.checkAndDecrement`).

use serde_json::{Value, json};

use api::meta;
use api::status::{Cause, Status};

/// Evictions the controller has not confirmed yet; beyond it something is wrong (`MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Suggested pause for clients while the controller catches up.
const RETRY_AFTER_SECONDS: i32 = 10;

fn number(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

/// An unready pod may go without counting: the policy says so, or the application is healthy without it.
pub(super) fn lets_unhealthy_go(budget: &Value) -> bool {
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    let desired = number(budget, "desiredHealthy");
    always || (number(budget, "currentHealthy") >= desired && desired > 0)
}

/// 429: the controller has not looked at the budget's present form yet.
pub(super) fn busy(name: &str) -> Status {
    let why = format!("The disruption budget {name} is still being processed by the server.");
    refused(RETRY_AFTER_SECONDS, why)
}

fn refused(retry_after_seconds: i32, why: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after_seconds);
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// Takes one disruption for `pod`, or says why there is none.
pub(super) fn take_one(budget: &mut Value, pod: &str, now: &str) -> Result<(), Status> {
    let name = meta::name(budget).to_owned();
    let forbidden = |why: &str| Status::forbidden("policy", "poddisruptionbudget", &name, why);
    if number(budget, "observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(busy(&name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        return Err(refused(0, exhausted(budget, &name)));
    }
    let status = meta::child_mut(budget, "status");
    status["disruptionsAllowed"] = (allowed - 1).into();
    meta::object_mut(meta::child_mut(status, "disruptedPods")).insert(pod.to_owned(), now.into());
    if allowed == 1 {
        disallow(budget, now);
    }
    Ok(())
}

fn exhausted(budget: &Value, name: &str) -> String {
    let conditions = budget["status"]["conditions"].as_array();
    let condition = conditions.into_iter().flatten().find(|c| c["type"] == "DisruptionAllowed");
    let said = condition.filter(|c| c["status"] == "False").and_then(|c| {
        let message = c["message"].as_str().filter(|message| !message.is_empty())?;
        Some((c["reason"].as_str().unwrap_or_default(), message))
    });
    let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
    match said {
        Some(("SyncFailed", message)) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        ),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, message)) => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The condition that goes with the last disruption (`UpdateDisruptionAllowedCondition`).
fn disallow(budget: &mut Value, now: &str) {
    let generation = budget["status"]["observedGeneration"].clone();
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": now, "observedGeneration": generation,
    });
    let conditions = meta::child_mut(meta::child_mut(budget, "status"), "conditions");
    match conditions.as_array_mut() {
        Some(list) => match list.iter_mut().find(|c| c["type"] == "DisruptionAllowed") {
            Some(existing) if existing["status"] == "False" => {}
            Some(existing) => *existing = condition,
            None => list.push(condition),
        },
        None => *conditions = json!([condition]),
    }
}
