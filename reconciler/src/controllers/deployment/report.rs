//! What a deployment says about itself once a plan is made: counts, conditions, and when to judge again. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::plan::{Plan, REVISION, Rollout};
use super::replica_set::Set;
use super::status::{self, PROGRESSING, Status, TIMED_OUT, condition};
use crate::engine::Clock;

impl Rollout<'_> {
    /// Turns the state reached into steps and status. `judge`: whether progress is judged (not while paused, scaling
    /// or being deleted).
    pub(super) fn finish(mut self, judge: bool) -> Plan {
        let deployment = self.input.deployment;
        let old = Status::of(deployment.status.as_ref());
        let before = self.status.clone();
        let mut status = self.count(before.clone());
        if judge {
            let subject = match self.new {
                Some(new) => format!("ReplicaSet {:?}", self.sets[new].name()),
                None => format!("Deployment {:?}", self.name()),
            };
            status::judge_progress(deployment, &before, &mut status, &subject, self.input.clock);
            self.copy_failure(&mut status);
        }
        let check_after = judge.then(|| check_after(deployment, &before, &status, self.input.clock)).flatten();
        let mut steps = self.writes();
        steps.append(&mut self.steps);
        let current = deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
        let revision = self.revision.filter(|revision| current != Some(revision));
        let mut patch = json!({});
        if let Some(revision) = revision {
            patch["metadata"] = json!({"annotations": {REVISION: revision}});
        }
        if status != old {
            patch["status"] = status.patch();
        }
        let status = Some(patch).filter(|p| p.as_object().is_some_and(|p| !p.is_empty()));
        Plan { steps, status, check_after }
    }

    /// `calculateStatus`.
    pub(super) fn count(&self, before: Status) -> Status {
        let sum = |of: &dyn Fn(&Set) -> i32| self.sets.iter().map(of).sum::<i32>();
        let available = sum(&Set::available);
        let mut status = Status {
            observed_generation: self.input.deployment.metadata.generation.unwrap_or_default(),
            replicas: sum(&Set::actual),
            updated: self.new.map_or(0, |new| self.sets[new].actual()),
            ready: sum(&Set::ready),
            available,
            unavailable: (self.total() - available).max(0),
            terminating: self.terminating(),
            ..before
        };
        let (value, reason, message) = if available >= self.replicas - self.max_unavailable() {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        status.set(condition(status::AVAILABLE, value, reason, message.to_owned(), self.input.clock.now));
        status
    }

    /// Unknown as soon as one observed set doesn't say.
    pub(super) fn terminating(&self) -> Option<i32> {
        let mut sum = 0;
        for set in &self.sets {
            let status = set.object.status.as_ref();
            match status.and_then(|s| s.terminating_replicas) {
                Some(count) => sum += count,
                None if status.and_then(|s| s.observed_generation).unwrap_or_default() == 0 => {}
                None => return None,
            }
        }
        Some(sum)
    }

    /// The failure of the new set, else of any (`getReplicaFailures`).
    pub(super) fn copy_failure(&self, status: &mut Status) {
        let failure = |set: &Set| {
            let conditions = set.object.status.as_ref()?.conditions.clone()?;
            conditions.into_iter().find(|c| c.type_ == status::REPLICA_FAILURE)
        };
        let new = self.new.and_then(|new| failure(&self.sets[new]));
        match new.or_else(|| self.sets.iter().find_map(failure)) {
            None => status.remove(status::REPLICA_FAILURE),
            Some(c) => status.set(k8s_openapi::api::apps::v1::DeploymentCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_update_time: c.last_transition_time.clone(),
                last_transition_time: c.last_transition_time,
            }),
        }
    }
}

/// When a rollout that stands still must be judged again (`requeueStuckDeployment`).
fn check_after(deployment: &Deployment, before: &Status, status: &Status, clock: Clock<'_>) -> Option<Duration> {
    let deadline = status::progress_deadline(deployment)?;
    let condition = before.condition(PROGRESSING)?;
    if status.is_complete(deployment) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let left = deadline - status::stood_for(deployment, condition, clock);
    // A second more, because times are kept in whole seconds.
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default() + 1))
}
