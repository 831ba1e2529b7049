//! Revisions of a deployment, kept as annotations of its replica sets; `kubectl rollout history` and `undo` read them.
//! Pure.

use std::collections::BTreeMap;

use super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY};

/// Longest history annotation, in bytes (`maxRevHistoryLengthInChars`); the oldest revisions are forgotten first.
const HISTORY_BYTES_MAX: usize = 2000;

/// Annotations of a deployment that its replica sets don't inherit (`annotationsToSkip`).
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// A replica set's revision; 0 where it has none or it can't be read.
pub fn of(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or_default()
}

pub fn max<'a>(sets: impl Iterator<Item = &'a BTreeMap<String, String>>) -> i64 {
    sets.map(of).max().unwrap_or_default()
}

/// Gives the new replica set the deployment's annotations and, if its own is lower, revision `next`; the old revision
/// goes into the history (`SetNewReplicaSetAnnotations`).
pub fn annotate(deployment: &BTreeMap<String, String>, set: &mut BTreeMap<String, String>, next: i64) {
    let inherited = deployment.iter().filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str()));
    set.extend(inherited.map(|(key, value)| (key.clone(), value.clone())));
    let old = set.get(REVISION).cloned();
    let number = match &old {
        None => 0,
        Some(text) if text.is_empty() => 0,
        // Somebody else's scheme is left alone.
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return,
        },
    };
    if number >= next {
        return;
    }
    set.insert(REVISION.into(), next.to_string());
    if let Some(old) = old {
        let history = remember(set.get(REVISION_HISTORY).map_or("", String::as_str), &old);
        set.insert(REVISION_HISTORY.into(), history);
    }
}

fn remember(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(revision);
    let mut start = 0;
    while start + 1 < revisions.len() && revisions[start..].join(",").len() > HISTORY_BYTES_MAX {
        start += 1;
    }
    revisions[start..].join(",")
}
