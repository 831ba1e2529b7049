//! Revisions of a deployment, kept as annotations of its replica sets; `kubectl rollout history` and `undo` read them.
//! Pure.

use std::collections::BTreeMap;

use api_client::Object;

use super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, Rollout, Step};
use super::replica_set::Set;
use super::status::{self, PROGRESSING, condition};

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

/// Whether a deployment and its replica sets share the annotation.
pub fn is_inherited(key: &str) -> bool {
    !NOT_INHERITED.contains(&key)
}

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
    let inherited = deployment.iter().filter(|(key, _)| is_inherited(key));
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

impl Rollout<'_> {
    /// Brings the new set's annotations and revision up to date, and the deployment's revision after it
    /// (`getNewReplicaSet` where it exists).
    pub(super) fn sync_revision(&mut self) {
        let Some(new) = self.new else { return };
        let old = (0..self.sets.len()).filter(|i| *i != new).map(|i| &self.sets[i]);
        let next = max(old.map(|s| &s.annotations)) + 1;
        let own = self.input.deployment.metadata.annotations.clone().unwrap_or_default();
        let set = &mut self.sets[new];
        annotate(&own, &mut set.annotations, next);
        let spec = self.input.deployment.spec.as_ref();
        set.min_ready_seconds = spec.and_then(|s| s.min_ready_seconds).unwrap_or_default();
        self.revision = set.annotations.get(REVISION).cloned();
        if status::progress_deadline(self.input.deployment).is_some() && self.status.condition(PROGRESSING).is_none() {
            let message = format!("Found new replica set {:?}", set.name());
            self.status.set(condition(PROGRESSING, "True", "FoundNewReplicaSet", message, self.input.clock.now));
        }
    }

    /// Deletes the oldest empty sets beyond the history limit (`cleanupDeployment`).
    pub(super) fn clean_up(&mut self) {
        let limit = self.input.deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
        let Some(limit) = limit.filter(|l| *l != i32::MAX).and_then(|l| usize::try_from(l).ok()) else { return };
        let mut old: Vec<&Set> = self.old_indexes().into_iter().map(|i| &self.sets[i]).collect();
        old.retain(|set| set.object.metadata.deletion_timestamp.is_none());
        let excess = old.len().saturating_sub(limit);
        old.sort_by_key(|set| of(&set.annotations));
        let is_idle = |set: &&&Set| {
            let observed = set.object.status.as_ref().and_then(|s| s.observed_generation).unwrap_or_default();
            let current = set.object.metadata.generation.unwrap_or_default() <= observed;
            set.actual() == 0 && set.replicas == 0 && current
        };
        let doomed = old.iter().take(excess).filter(is_idle);
        let delete = |set: &&Set| Step::Delete { key: set.object.key(), uid: set.uid().to_owned() };
        self.steps.extend(doomed.map(delete).collect::<Vec<_>>());
    }
}
