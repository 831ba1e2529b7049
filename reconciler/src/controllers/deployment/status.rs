//! A deployment's status: counts over its replica sets, and the conditions that tell how the rollout goes. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::engine::Clock;

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const PAUSED: &str = "DeploymentPaused";
pub const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// Counts, as numbers where the API leaves out zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated: i32,
    pub ready: i32,
    pub available: i32,
    pub unavailable: i32,
    pub terminating: Option<i32>,
    pub collision_count: Option<i32>,
    pub conditions: Vec<DeploymentCondition>,
}

impl Status {
    pub fn of(status: Option<&DeploymentStatus>) -> Self {
        let status = status.cloned().unwrap_or_default();
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            replicas: status.replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            unavailable: status.unavailable_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas,
            collision_count: status.collision_count,
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    pub fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.conditions.iter().find(|c| c.type_ == kind)
    }

    pub fn remove(&mut self, kind: &str) {
        self.conditions.retain(|c| c.type_ != kind);
    }

    /// `SetDeploymentCondition`: one that says the same is left alone; the transition time moves with the status only.
    pub fn set(&mut self, mut condition: DeploymentCondition) {
        if let Some(current) = self.condition(&condition.type_) {
            if current.status == condition.status && current.reason == condition.reason {
                return;
            }
            if current.status == condition.status {
                condition.last_transition_time.clone_from(&current.last_transition_time);
            }
        }
        self.remove(&condition.type_);
        self.conditions.push(condition);
    }

    /// Rolled out completely (`DeploymentComplete`).
    pub fn is_complete(&self, deployment: &Deployment) -> bool {
        let wanted = replicas(deployment);
        self.updated == wanted
            && self.replicas == wanted
            && self.available == wanted
            && self.observed_generation >= deployment.metadata.generation.unwrap_or_default()
    }

    /// Closer to the goal than `old` (`DeploymentProgressing`).
    pub fn has_progressed(&self, old: &Self) -> bool {
        self.updated > old.updated
            || self.replicas - self.updated < old.replicas - old.updated
            || self.ready > old.ready
            || self.available > old.available
    }

    /// As a merge patch; the API leaves out zeros.
    pub fn patch(&self) -> Value {
        let count = |n: i32| if n == 0 { Value::Null } else { n.into() };
        json!({
            "observedGeneration": self.observed_generation,
            "replicas": count(self.replicas),
            "updatedReplicas": count(self.updated),
            "readyReplicas": count(self.ready),
            "availableReplicas": count(self.available),
            "unavailableReplicas": count(self.unavailable),
            "terminatingReplicas": self.terminating,
            "collisionCount": self.collision_count,
            "conditions": if self.conditions.is_empty() { Value::Null } else { json!(self.conditions) },
        })
    }
}

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// `spec.progressDeadlineSeconds`, where one counts (`HasProgressDeadline`).
pub fn progress_deadline(deployment: &Deployment) -> Option<i64> {
    deployment.spec.as_ref()?.progress_deadline_seconds.filter(|s| *s != i32::MAX).map(i64::from)
}

pub fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The Progressing condition, judged from the step from `old` to `new` (`syncRolloutStatus`). `subject` is the new
/// replica set, or the deployment where there is none yet.
pub fn judge_progress(deployment: &Deployment, old: &Status, new: &mut Status, subject: &str, clock: Clock<'_>) {
    let now = clock.now;
    let Some(deadline) = progress_deadline(deployment) else {
        new.remove(PROGRESSING);
        return;
    };
    let current = old.condition(PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or_default();
    if new.replicas == new.updated && reason == NEW_AVAILABLE {
        return;
    }
    if new.is_complete(deployment) {
        let message = format!("{subject} has successfully progressed.");
        new.set(condition(PROGRESSING, "True", NEW_AVAILABLE, message, now));
    } else if new.has_progressed(old) {
        let message = format!("{subject} is progressing.");
        let mut progressing = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        // Progress counts even if the reason stays: the update time is what the deadline runs from.
        if let Some(current) = current {
            if current.status == "True" {
                progressing.last_transition_time = current.last_transition_time;
            }
            new.remove(PROGRESSING);
        }
        new.set(progressing);
    } else if is_timed_out(deployment, new, deadline, clock) {
        let message = format!("{subject} has timed out progressing.");
        new.set(condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
}

/// Seconds since the rollout last got on, by the Progressing condition.
pub fn stood_for(deployment: &Deployment, progressing: &DeploymentCondition, clock: Clock<'_>) -> i64 {
    let id = deployment.metadata.uid.as_deref().unwrap_or_default();
    let since = progressing.last_update_time.as_ref().map(|time| clock.since(id, time.0));
    since.unwrap_or_default().as_secs()
}

fn is_timed_out(deployment: &Deployment, status: &Status, deadline: i64, clock: Clock<'_>) -> bool {
    let Some(condition) = status.condition(PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => stood_for(deployment, condition, clock) > deadline,
    }
}
