//! A job's policies on failure and success: what a failed pod means, and when enough indexes have succeeded. Pure.

use k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};

use super::indexes::Indexes;
use crate::objects::{Condition, ContainerStatus, Pod};

/// What the failure policy says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the backoff limits: also when no rule matches.
    Count,
    /// As if it had not failed.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The whole job has failed; with the condition's message.
    FailJob(String),
}

/// The first rule that matches decides (`matchPodFailurePolicy`).
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    for (index, rule) in policy.into_iter().flat_map(|policy| policy.rules.iter().enumerate()) {
        let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(wanted), _) => by_exit_code(wanted, pod),
            (None, Some(patterns)) => {
                let matches = |c: &&Condition| patterns.iter().any(|p| p.type_ == c.kind && p_status(p) == c.status);
                pod.status.conditions.iter().find(matches).map(|c| format!("has condition {}", c.kind)).map(Why::Pod)
            }
            (None, None) => None,
        };
        let Some(why) = why else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(why.message(pod, index)),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn p_status(pattern: &k8s_openapi::api::batch::v1::PodFailurePolicyOnPodConditionsPattern) -> &str {
    pattern.status.as_deref().unwrap_or("True")
}

/// What a rule matched on.
enum Why {
    Container(String, i32),
    Pod(String),
}

impl Why {
    fn message(&self, pod: &Pod, rule: usize) -> String {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let head = match self {
            Self::Container(container, code) => {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
            }
            Self::Pod(what) => format!("Pod {namespace}/{name} {what}"),
        };
        format!("{head} matching FailJob rule at index {rule}")
    }
}

fn by_exit_code(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<Why> {
    let matching = |status: &ContainerStatus| {
        let code = status.state.terminated.as_ref()?.exit_code;
        let named = wanted.container_name.as_ref().is_none_or(|name| *name == status.name);
        let fits = match wanted.operator.as_str() {
            "In" => wanted.values.contains(&code),
            "NotIn" => !wanted.values.contains(&code),
            _ => false,
        };
        (named && code != 0 && fits).then(|| Why::Container(status.name.clone(), code))
    };
    pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).find_map(matching)
}

/// The message of the rule by which the job has succeeded, if one is met (`matchSuccessPolicy`).
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.count() == 0 {
        return None;
    }
    let rules = policy?.rules.iter();
    let met = rules.enumerate().find(|(_, rule)| match &rule.succeeded_indexes {
        Some(required) => {
            let required = Indexes::parse(required, completions);
            let common = required.common(succeeded);
            let all = required.count();
            all > 0 && (common == all || rule.succeeded_count.is_some_and(|count| common >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.count() >= count),
    });
    met.map(|(index, _)| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn failed_pod() -> Pod {
        let code = |code: i32| json!({"terminated": {"exitCode": code}});
        let containers = json!([{"name": "side", "state": code(0)}, {"name": "main", "state": code(42)}]);
        let conditions = json!([{"type": "DisruptionTarget", "status": "True"}]);
        let status = json!({"phase": "Failed", "containerStatuses": containers, "conditions": conditions});
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "a"}, "status": status})).unwrap()
    }

    fn check(rules: Value, expected: Verdict) {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
        assert_eq!(judge(Some(&policy), &failed_pod()), expected);
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let codes = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(judge(None, &failed_pod()), Verdict::Count);
        check(json!([]), Verdict::Count);
        check(json!([codes("FailIndex", "In", &[1, 42])]), Verdict::FailIndex);
        check(json!([codes("FailIndex", "In", &[1]), disrupted.clone()]), Verdict::Ignore);
        check(json!([codes("Count", "NotIn", &[1]), disrupted.clone()]), Verdict::Count);
        let message = "Container main for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        check(json!([codes("Ignore", "In", &[7]), codes("FailJob", "In", &[42])]), Verdict::FailJob(message.into()));
        let mut by_condition = disrupted;
        by_condition["action"] = "FailJob".into();
        let message = "Pod a/p has condition DisruptionTarget matching FailJob rule at index 0";
        check(json!([by_condition]), Verdict::FailJob(message.into()));
        let other = json!({"action": "FailJob",
            "onExitCodes": {"containerName": "side", "operator": "NotIn", "values": [1]}});
        // An exit code of zero is no failure to match.
        check(json!([other]), Verdict::Count);
    }

    #[test]
    fn success_rules() {
        let check = |rules: Value, succeeded: &str, expected: Option<&str>| {
            let policy: SuccessPolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
            let message = success(Some(&policy), 10, &Indexes::parse(succeeded, 10));
            assert_eq!(message.as_deref(), expected);
        };
        let first = Some("Matched rules at index 0");
        check(json!([{"succeededIndexes": "0,2-3"}]), "0,2", None);
        check(json!([{"succeededIndexes": "0,2-3"}]), "0,2-5", first);
        check(json!([{"succeededIndexes": "0,2-3", "succeededCount": 1}]), "3", first);
        check(json!([{"succeededCount": 2}]), "3", None);
        check(json!([{"succeededCount": 9}, {"succeededCount": 2}]), "3,7", Some("Matched rules at index 1"));
        check(json!([{"succeededCount": 1}]), "", None);
    }
}
