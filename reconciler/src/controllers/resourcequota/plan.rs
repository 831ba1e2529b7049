//! What a quota has been used of, by counting what is there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::quantity::{Format, Quantity};
use api::quota::{self, Amounts};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A resource whose objects a quota counts: group and name.
pub type Counted = (String, String);

/// The objects that were found of each resource: whole where their content counts, else by their number.
pub enum Found {
    Objects(Vec<Value>),
    Number(usize),
}

/// The resources whose objects a quota's limits count.
pub fn counted(hard: &Value) -> BTreeSet<Counted> {
    let limits = hard.as_object().into_iter().flatten().filter_map(|(limit, _)| quota::counted(limit));
    limits.map(|(group, resource)| (group.to_owned(), resource.to_owned())).collect()
}

/// Whether what an object of this resource uses depends on more than its being there.
pub fn needs_content(group: &str, resource: &str) -> bool {
    group.is_empty() && matches!(resource, "pods" | "services" | "persistentvolumeclaims")
}

/// What is used of each limit (`quota.CalculateUsage`). A limit on something that nobody can count keeps the count it
/// has in the status, if any.
pub fn used(spec: &Value, old: &Value, found: &BTreeMap<Counted, Found>, now: Timestamp) -> Amounts {
    let hard = spec["hard"].as_object();
    let mut used = Amounts::new();
    let old = quota::amounts(old);
    for limit in hard.into_iter().flatten().map(|(limit, _)| limit) {
        let counter = quota::counted(limit).map(|(group, resource)| (group.to_owned(), resource.to_owned()));
        if counter.is_some_and(|counter| found.contains_key(&counter)) {
            used.insert(limit.clone(), Quantity::new(0, Format::DecimalSi));
        } else if let Some(amount) = old.get(limit) {
            used.insert(limit.clone(), *amount);
        }
    }
    let has_scopes = !quota::fits(spec, "", &Value::Null);
    for ((group, resource), found) in found {
        match found {
            Found::Number(_) if has_scopes => {}
            Found::Number(number) => {
                let one = quota::of(group, resource, &Value::Null, now);
                let number = i64::try_from(*number).unwrap_or(i64::MAX);
                add(&mut used, one.into_iter().map(|(name, amount)| (name, amount.times(number))));
            }
            Found::Objects(objects) => {
                for object in objects.iter().filter(|object| quota::fits(spec, resource, object)) {
                    add(&mut used, quota::of(group, resource, object, now));
                }
            }
        }
    }
    used
}

fn add(used: &mut Amounts, more: impl IntoIterator<Item = (String, Quantity)>) {
    for (name, amount) in more {
        if let Some(sum) = used.get_mut(&name) {
            // The first amount lends its format to the sum.
            *sum = if sum.is_zero() { amount } else { sum.plus(amount) };
        }
    }
}

/// The status as a merge patch bound to the version it was decided on; `None` if it stands already.
pub fn patch(spec: &Value, old: &Value, used: &Amounts, resource_version: &str) -> Option<Value> {
    let hard = spec["hard"].as_object().cloned().unwrap_or_default();
    let same_hard = quota::amounts(&old["hard"]) == quota::amounts(&spec["hard"]);
    if same_hard && quota::amounts(&old["used"]) == *used && old["used"].is_object() {
        return None;
    }
    let used: serde_json::Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    let mut status = json!({"hard": hard, "used": used});
    for list in ["hard", "used"] {
        for stale in old[list].as_object().into_iter().flatten().map(|(name, _)| name) {
            if status[list].get(stale).is_none() {
                status[list][stale] = Value::Null;
            }
        }
    }
    Some(json!({"metadata": {"resourceVersion": resource_version}, "status": status}))
}

/// When the next pod that is being deleted stops to count, if one will.
pub fn next_change(found: &BTreeMap<Counted, Found>, now: Timestamp) -> Option<Duration> {
    let objects = found.values().filter_map(|found| match found {
        Found::Objects(objects) => Some(objects),
        Found::Number(_) => None,
    });
    let ends = objects.flatten().filter_map(quota::overdue_at).filter(|end| *end >= now);
    let left = ends.min()?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, objects: &[(&str, Value)], expected: &str) {
        let mut found: BTreeMap<Counted, Found> = BTreeMap::new();
        for (group, resource) in counted(&spec["hard"]) {
            let of_it = objects.iter().filter(|(name, _)| *name == resource).map(|(_, object)| object.clone());
            let of_it: Vec<Value> = of_it.collect();
            let what =
                if needs_content(&group, &resource) { Found::Objects(of_it) } else { Found::Number(of_it.len()) };
            found.insert((group, resource), what);
        }
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let used = used(&spec, &json!({"example.com/strange": "7"}), &found, now);
        let told: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(told.join(" "), expected);
    }

    fn pod(cpu: &str, class: &str) -> (&'static str, Value) {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        (
            "pods",
            json!({"spec": {"containers": [container], "priorityClassName": class}, "status": {"phase": "Running"}}),
        )
    }

    #[test]
    fn what_is_there_is_counted() {
        let objects = [pod("100m", "low"), pod("1500m", "high"), ("secrets", json!({})), ("jobs", json!({}))];
        let hard = json!({"pods": "5", "requests.cpu": "2", "secrets": "3", "count/jobs.batch": "1", "memory": "1Gi"});
        check(json!({"hard": hard}), &objects, "count/jobs.batch=1 memory=0 pods=2 requests.cpu=1600m secrets=1");
        check(json!({"hard": {"example.com/strange": "9", "other": "1"}}), &objects, "example.com/strange=7");
        let expression = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]});
        let scoped =
            json!({"hard": {"pods": "5", "secrets": "3"}, "scopeSelector": {"matchExpressions": [expression]}});
        check(scoped, &objects, "pods=1 secrets=0");
        check(json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}), &objects, "pods=0");
    }

    #[test]
    fn a_standing_status_is_not_written() {
        let spec = json!({"hard": {"pods": "5"}});
        let used: Amounts = [("pods".to_owned(), Quantity::new(2, Format::DecimalSi))].into();
        let old = json!({"hard": {"pods": "5"}, "used": {"pods": "2"}});
        assert_eq!(patch(&spec, &old, &used, "1"), None);
        let old = json!({"hard": {"cpu": "1"}, "used": {"cpu": "1"}});
        let expected = json!({"hard": {"pods": "5", "cpu": null}, "used": {"pods": "2", "cpu": null}});
        assert_eq!(patch(&spec, &old, &used, "1").unwrap()["status"], expected);
    }
}
