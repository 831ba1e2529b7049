//! Why a budget allows no disruption, and what a quota has left.

use api::quantity::Quantity;
use api::selector::LabelSelector;
use serde_json::Value;

use super::set;
use crate::chain::Cause;
use crate::look::{Look, condition_is, count, counted, kubectl, text};

pub fn budget(look: &Look, budget: &Value) -> Vec<Cause> {
    let status = &budget["status"];
    if let Some(c) = condition_is(budget, "DisruptionAllowed", "False").filter(|c| c["reason"] == "SyncFailed") {
        return vec![Cause::new("SyncFailed", format!("it cannot be computed: {}", text(&c["message"]))).about(budget)];
    }
    let mut causes: Vec<Cause> = set::unseen(budget).into_iter().collect();
    if count(&status["disruptionsAllowed"]) > 0 {
        return causes;
    }
    let (namespace, name) = (api::meta::namespace(budget), api::meta::name(budget));
    let (healthy, wanted, expected) =
        (count(&status["currentHealthy"]), count(&status["desiredHealthy"]), count(&status["expectedPods"]));
    if expected == 0 {
        causes.push(
            Cause::new("NoPodsSelected", "it selects no pods, so there is nothing to evict")
                .about(budget)
                .fix("shows what labels there are", kubectl(namespace, "get pods --show-labels")),
        );
        return causes;
    }
    let selector = LabelSelector::from_object(budget["spec"].get("selector"));
    let selects = |pod: &&Value| selector.as_ref().is_ok_and(|s| s.matches(api::meta::labels(pod)));
    let pods: Vec<&Value> = look.world.list("pods", namespace).iter().filter(selects).collect();
    let of = counted(usize::try_from(expected).unwrap_or_default(), "pod");
    if wanted >= expected {
        let message = format!("it wants {wanted} of {of} to be healthy at all times, so no eviction is ever allowed");
        let (field, value) = match budget["spec"]["maxUnavailable"] {
            Value::Null => ("minAvailable", (expected - 1).max(0)),
            _ => ("maxUnavailable", 1),
        };
        let patch = format!("patch pdb {name} --type=merge -p '{{\"spec\":{{\"{field}\":{value}}}}}'");
        causes.push(
            Cause::new("NeverAllows", message)
                .about(budget)
                .fix("or scale up what it protects", kubectl(namespace, &patch)),
        );
        return causes;
    }
    let message =
        format!("it wants {wanted} of {of} to be healthy, and {healthy} {}", if healthy == 1 { "is" } else { "are" });
    causes.push(Cause::new("InsufficientPods", message).about(budget).because(set::pods(look, budget, &pods)));
    causes
}

/// The resources of which nothing is left.
pub fn quota(quota: &Value) -> Vec<Cause> {
    let hard = quota["status"]["hard"].as_object();
    let parse = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|t| Quantity::parse(t).ok());
    let full = hard.into_iter().flatten().filter_map(|(resource, limit)| {
        let used = &quota["status"]["used"][resource.as_str()];
        (parse(Some(used))? >= parse(Some(limit))?).then(|| (resource, text(used), text(limit)))
    });
    full.map(|(resource, used, limit)| {
        let (namespace, name) = (api::meta::namespace(quota), api::meta::name(quota));
        let patch = format!(
            "patch resourcequota {name} --type=merge -p '{{\"spec\":{{\"hard\":{{\"{resource}\":\"MORE\"}}}}}}'"
        );
        Cause::new("QuotaFull", format!("all of {resource} is used: {used} of {limit}"))
            .about(quota)
            .fix("or delete what is not needed", kubectl(namespace, &patch))
    })
    .collect()
}
