//! What a replica set needs: pods to create or delete, and its status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::rank;
use crate::engine::Clock;
use crate::objects::{Pod, has_labels};

/// What a ReplicaSet or a ReplicationController asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub template_labels: BTreeMap<String, String>,
    pub generation: i64,
    pub deleting: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// The difference between pods wanted and pods there. `related` is asked for only where pods have to go.
pub fn replicas(
    wanted: &Wanted,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Change {
    let target = usize::try_from(wanted.replicas).unwrap_or_default();
    if wanted.deleting || active.len() == target {
        Change::Nothing
    } else if active.len() < target {
        Change::Create(target - active.len())
    } else {
        Change::Delete(rank::to_delete(active, &related(), active.len() - target, now))
    }
}

/// Counts and conditions as they stand in the object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    /// Not kept by replication controllers.
    pub terminating_replicas: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Option<Timestamp>,
}

/// Why pods could not be made or deleted.
pub struct Failure {
    pub message: String,
}

/// The status after a reconcile (`replicaset.calculateStatus`).
pub fn status(
    wanted: &Wanted,
    old: &Status,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    clock: Clock<'_>,
) -> Status {
    let count = |test: &dyn Fn(&Pod) -> bool| clamp(active.iter().filter(|pod| test(pod)).count());
    let replicas = clamp(active.len());
    Status {
        replicas,
        fully_labeled_replicas: count(&|pod| has_labels(pod, &wanted.template_labels)),
        ready_replicas: count(&Pod::is_ready),
        available_replicas: count(&|pod| pod.is_available(wanted.min_ready_seconds, clock)),
        terminating_replicas: old.terminating_replicas.map(|_| clamp(terminating)),
        observed_generation: wanted.generation,
        conditions: conditions(wanted, old, replicas, failure, clock.now),
    }
}

fn clamp(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

const REPLICA_FAILURE: &str = "ReplicaFailure";

fn conditions(
    wanted: &Wanted,
    old: &Status,
    replicas: i32,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = old.conditions.clone();
    let failing = conditions.iter().any(|c| c.kind == REPLICA_FAILURE);
    match failure {
        None => conditions.retain(|c| c.kind != REPLICA_FAILURE),
        Some(failure) if !failing => conditions.push(Condition {
            kind: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: if replicas < wanted.replicas { "FailedCreate" } else { "FailedDelete" }.into(),
            message: failure.message.clone(),
            last_transition_time: Some(now),
        }),
        Some(_) => {}
    }
    conditions
}

impl Status {
    /// The status as a merge patch.
    pub fn patch(&self) -> Value {
        let conditions: Vec<Value> = self
            .conditions
            .iter()
            .map(|c| {
                json!({
                    "type": c.kind, "status": c.status, "reason": c.reason, "message": c.message,
                    "lastTransitionTime": c.last_transition_time.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                })
            })
            .collect();
        // The API leaves out zeros of all but the first.
        let count = |n: i32| if n == 0 { Value::Null } else { n.into() };
        let mut status = json!({
            "replicas": self.replicas,
            "fullyLabeledReplicas": count(self.fully_labeled_replicas),
            "readyReplicas": count(self.ready_replicas),
            "availableReplicas": count(self.available_replicas),
            "observedGeneration": self.observed_generation,
            "conditions": if conditions.is_empty() { Value::Null } else { Value::Array(conditions) },
        });
        if let Some(terminating) = self.terminating_replicas {
            status["terminatingReplicas"] = terminating.into();
        }
        json!({"status": status})
    }
}

/// When the next ready pod becomes available, if one is on its way (`FindMinNextPodAvailabilityCheck`).
pub fn next_check(wanted: &Wanted, active: &[Arc<Pod>], clock: Clock<'_>) -> Option<Duration> {
    let seconds = i64::from(wanted.min_ready_seconds);
    let left = |pod: &Arc<Pod>| {
        let left = jiff::SignedDuration::from_secs(seconds) - pod.ready_for(clock)?;
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    };
    active.iter().filter_map(left).min()
}
