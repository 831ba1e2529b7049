//! How many pods a budget lets go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::int_or_percent::scaled;
use crate::objects::{Pod, selects};

/// An evicted pod that is not being deleted by then will not be (`DeletionTimeout`).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
/// A pod that was to be disrupted and is still here by then was not (`stalePodDisruptionTimeout`).
const STALE_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// The pods that should be there, by what the workloads behind them ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub pods: i32,
    /// Pods that no workload stands behind.
    pub unmanaged: Vec<String>,
}

/// Whether the budget is in terms of what workloads ask for; otherwise it counts the pods there are.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.clone().unwrap_or_default();
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub status: PodDisruptionBudgetStatus,
    /// Pods that were to be deleted and were not.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When an eviction that was noted is to be looked at again.
    pub again: Option<Duration>,
}

pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], expected: &Expected, now: Timestamp) -> Plan {
    let spec = budget.spec.clone().unwrap_or_default();
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (expected.pods, (expected.pods - scaled(Some(max), expected.pods, true)).max(0)),
        (None, Some(IntOrString::Int(min))) => (i32::try_from(pods.len()).unwrap_or(i32::MAX), *min),
        (None, min @ Some(_)) => (expected.pods, scaled(min.as_ref(), expected.pods, true)),
        (None, None) => (0, 0),
    };
    let old = budget.status.clone().unwrap_or_default();
    let (disrupted, not_deleted, again) = disrupted(&old, pods, now);
    let is_healthy =
        |pod: &&Arc<Pod>| !pod.metadata.is_deleting() && !disrupted.contains_key(&pod.metadata.name) && pod.is_ready();
    let healthy = i32::try_from(pods.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    // A budget without pods allows nothing: its first pods may just be coming.
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|map| !map.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, state, reason, "", now);
    Plan { status, not_deleted, again }
}

/// The evictions that the API server has noted and that have not come about yet (`buildDisruptedPodMap`).
fn disrupted(
    old: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Vec<Arc<Pod>>, Option<Duration>) {
    let (mut waiting, mut late, mut again) = (BTreeMap::new(), Vec::new(), None);
    for pod in pods.iter().filter(|pod| !pod.metadata.is_deleting()) {
        let name = &pod.metadata.name;
        let Some(since) = old.disrupted_pods.as_ref().and_then(|map| map.get(name)) else { continue };
        let left = (since.0 + DELETION_TIMEOUT).duration_since(now);
        match Duration::try_from(left) {
            Ok(left) => {
                waiting.insert(name.clone(), since.clone());
                again = Some(again.map_or(left, |a: Duration| a.min(left)));
            }
            Err(_) => late.push(pod.clone()),
        }
    }
    (waiting, late, again)
}

/// Sets `DisruptionAllowed` (`meta.SetStatusCondition`).
fn set_condition(status: &mut PodDisruptionBudgetStatus, state: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter_mut().find(|c| c.type_ == "DisruptionAllowed");
    let since = old.as_ref().filter(|c| c.status == state).map_or(now, |c| c.last_transition_time.0);
    let new = Condition {
        type_: "DisruptionAllowed".into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: status.observed_generation,
        last_transition_time: Time(since),
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// The status when the budget can't be computed: nothing may go until it can (`failSafe`).
pub fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

/// The pods that are under other budgets, too, where this budget is the first of them by name.
pub fn under_several<'p>(name: &str, pods: &'p [Arc<Pod>], budgets: &[(String, LabelSelector)]) -> Vec<&'p Arc<Pod>> {
    if budgets.len() < 2 {
        return Vec::new();
    }
    let is_told_here = |pod: &&Arc<Pod>| {
        let mut names: Vec<&str> =
            budgets.iter().filter(|(_, selector)| selects(selector, &***pod)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.len() > 1 && names.first() == Some(&name)
    };
    pods.iter().filter(is_told_here).collect()
}

/// How long until the announced disruption of a pod is taken back; `None` where none is, or where it stands.
pub fn stale_after(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let announced = pod.condition("DisruptionTarget").filter(|c| c.status == "True")?;
    // The kubelet may take as long as it needs.
    if pod.metadata.is_deleting() || pod.is_terminal() || announced.reason == "TerminationByKubelet" {
        return None;
    }
    let left = STALE_TIMEOUT - now.duration_since(announced.last_transition_time?);
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// `NAME [ready] [deleting]`
    fn pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ready = if words.contains(&"ready") { "True" } else { "False" };
        let deleting = words.contains(&"deleting").then_some("2026-01-01T12:00:00Z");
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        let object = json!({"metadata": {"name": words[0], "deletionTimestamp": deleting}, "status": status});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn check(spec: Value, status: Value, expected: i32, pods: &[&str], told: &str) {
        let budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status});
        let budget = serde_json::from_value(budget).unwrap();
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let plan = plan(&budget, &pods, &Expected { pods: expected, unmanaged: vec![] }, now());
        let s = &plan.status;
        let condition = &s.conditions.as_ref().unwrap()[0];
        let disrupted: Vec<&String> = s.disrupted_pods.iter().flatten().map(|(name, _)| name).collect();
        let counts = [s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed];
        let [expected, desired, healthy, allowed] = counts.map(Option::unwrap);
        let mut text =
            format!("expected {expected} desired {desired} healthy {healthy} allowed {allowed} {}", condition.reason);
        if !disrupted.is_empty() || !plan.not_deleted.is_empty() {
            text += &format!(" disrupted {disrupted:?} late {} again {:?}", plan.not_deleted.len(), plan.again);
        }
        assert_eq!(text, told);
    }

    #[test]
    fn numbers_and_shares() {
        let pods = ["a ready", "b ready", "c ready", "d"];
        let none = json!({});
        check(
            json!({"minAvailable": 2}),
            none.clone(),
            0,
            &pods,
            "expected 4 desired 2 healthy 3 allowed 1 SufficientPods",
        );
        check(
            json!({"minAvailable": 3}),
            none.clone(),
            0,
            &pods,
            "expected 4 desired 3 healthy 3 allowed 0 InsufficientPods",
        );
        check(
            json!({"minAvailable": "50%"}),
            none.clone(),
            5,
            &pods,
            "expected 5 desired 3 healthy 3 allowed 0 InsufficientPods",
        );
        check(
            json!({"minAvailable": "30%"}),
            none.clone(),
            4,
            &pods,
            "expected 4 desired 2 healthy 3 allowed 1 SufficientPods",
        );
        check(
            json!({"maxUnavailable": 1}),
            none.clone(),
            3,
            &pods,
            "expected 3 desired 2 healthy 3 allowed 1 SufficientPods",
        );
        check(
            json!({"maxUnavailable": "50%"}),
            none.clone(),
            5,
            &pods,
            "expected 5 desired 2 healthy 3 allowed 1 SufficientPods",
        );
        check(
            json!({"maxUnavailable": 9}),
            none.clone(),
            3,
            &pods,
            "expected 3 desired 0 healthy 3 allowed 3 SufficientPods",
        );
        check(json!({"minAvailable": 0}), none, 0, &[], "expected 0 desired 0 healthy 0 allowed 0 InsufficientPods");
    }

    #[test]
    fn pods_on_their_way_out_are_not_healthy() {
        let pods = ["a ready", "b ready deleting", "c ready", "d ready"];
        let status = json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
            "disruptedPods": {
                "a": "2026-01-01T11:59:00Z", "b": "2026-01-01T11:59:00Z", "c": "2026-01-01T11:57:00Z",
                "gone": "2026-01-01T11:59:00Z",
            },
        });
        check(
            json!({"minAvailable": 1}),
            status,
            0,
            &pods,
            "expected 4 desired 1 healthy 2 allowed 1 SufficientPods disrupted [\"a\"] late 1 again Some(60s)",
        );
    }

    #[test]
    fn a_failure_allows_nothing_and_keeps_the_rest() {
        let status = json!({"currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3});
        let budget = serde_json::from_value(json!({"status": status})).unwrap();
        let failed = failed(&budget, "found no controllers", now());
        assert_eq!((failed.disruptions_allowed, failed.current_healthy), (Some(0), Some(3)));
        let condition = &failed.conditions.unwrap()[0];
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "found no controllers"));
    }

    #[test]
    fn announced_disruptions_go_stale() {
        let check = |reason: &str, phase: &str, since: &str, expected: Option<u64>| {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason,
                "lastTransitionTime": format!("2026-01-01T{since}Z")});
            let pod = json!({"status": {"phase": phase, "conditions": [condition]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(stale_after(&pod, now()), expected.map(Duration::from_secs));
        };
        check("EvictionByEvictionAPI", "Running", "11:59:00", Some(60));
        check("EvictionByEvictionAPI", "Running", "11:00:00", Some(0));
        check("EvictionByEvictionAPI", "Failed", "11:00:00", None);
        check("TerminationByKubelet", "Running", "11:00:00", None);
    }
}
