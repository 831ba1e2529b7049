//! What a namespace that is being deleted says of itself, from what is left in it. Pure; texts are those of upstream's
//! `namespaceConditionUpdater`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one round of deletion found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Group versions that could not be discovered.
    pub undiscovered: Vec<String>,
    /// Objects left, by `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    /// Objects left, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    pub errors: Vec<String>,
}

/// Pause between rounds while something else (a finalizer's owner, a kubelet) has to act. Pods that end wake the
/// namespace at once; this is for the rest.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(500);

impl Found {
    pub fn is_empty(&self) -> bool {
        self.remaining.values().all(|n| *n == 0) && self.errors.is_empty() && self.undiscovered.is_empty()
    }

    /// When to look again; `age` is how long the namespace has been going.
    pub fn pause(&self, age: Duration) -> Duration {
        (age / 4).clamp(PAUSE_MIN, PAUSE_MAX)
    }
}

/// Type, and reason and message when there is nothing to say.
const TYPES: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// The conditions after a round; those that say the same keep their times.
pub fn conditions(old: &[NamespaceCondition], found: &Found, now: Timestamp) -> Vec<NamespaceCondition> {
    let mut conditions = old.to_vec();
    for (kind, ok_reason, ok_message) in TYPES {
        let (status, reason, message) = match trouble(kind, found) {
            Some((reason, message)) => ("True", reason.to_owned(), message),
            None => ("False", ok_reason.to_owned(), ok_message.to_owned()),
        };
        let transition = Some(Time(now));
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(c) => {
                if c.status != status {
                    c.last_transition_time = transition;
                }
                c.status = status.to_owned();
                c.reason = Some(reason);
                c.message = Some(message);
            }
            None => conditions.push(NamespaceCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_transition_time: transition,
            }),
        }
    }
    conditions
}

fn trouble(kind: &str, found: &Found) -> Option<(&'static str, String)> {
    let listed = |counts: &BTreeMap<String, usize>, word: &str| {
        let items: Vec<String> = counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(what, n)| format!("{what} {word} {n} resource instances"))
            .collect();
        Some(items.join(", ")).filter(|text| !text.is_empty())
    };
    match kind {
        "NamespaceDeletionDiscoveryFailure" if !found.undiscovered.is_empty() => {
            let (count, groups) = (found.undiscovered.len(), found.undiscovered.join(", "));
            let message = format!(
                "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {groups}"
            );
            Some(("DiscoveryFailed", message))
        }
        "NamespaceDeletionContentFailure" if !found.errors.is_empty() => {
            let (count, errors) = (found.errors.len(), found.errors.join(", "));
            Some(("ContentDeletionFailed", format!("Failed to delete all resource types, {count} remaining: {errors}")))
        }
        "NamespaceContentRemaining" => {
            let items = listed(&found.remaining, "has")?;
            Some(("SomeResourcesRemain", format!("Some resources are remaining: {items}")))
        }
        "NamespaceFinalizersRemaining" => {
            let items = listed(&found.finalizers, "in")?;
            let message = format!("Some content in the namespace has finalizers remaining: {items}");
            Some(("SomeFinalizersRemain", message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn shown(conditions: &[NamespaceCondition]) -> String {
        let line = |c: &NamespaceCondition| {
            format!("{}={} {} {}", c.type_, c.status, c.reason.as_deref().unwrap(), c.message.as_deref().unwrap())
        };
        conditions.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn conditions_tell_what_is_left_and_clear_up() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let found = Found {
            remaining: [("pods.".to_owned(), 2), ("things.example.com".to_owned(), 1)].into(),
            finalizers: [("example.com/keep".to_owned(), 1)].into(),
            errors: vec!["deletion refused".into()],
            ..Found::default()
        };
        assert!(!found.is_empty());
        let first = conditions(&[], &found, now);
        expect![[r#"
            NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered All resources successfully discovered
            NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions All legacy kube types successfully parsed
            NamespaceDeletionContentFailure=True ContentDeletionFailed Failed to delete all resource types, 1 remaining: deletion refused
            NamespaceContentRemaining=True SomeResourcesRemain Some resources are remaining: pods. has 2 resource instances, things.example.com has 1 resource instances
            NamespaceFinalizersRemaining=True SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"#]]
        .assert_eq(&shown(&first));
        let later = now + Duration::from_secs(60);
        let cleared = conditions(&first, &Found::default(), later);
        assert!(cleared.iter().all(|c| c.status == "False"));
        let moved: Vec<bool> = cleared.iter().map(|c| c.last_transition_time == Some(Time(later))).collect();
        assert_eq!(moved, [false, false, true, true, true]);
    }
}
