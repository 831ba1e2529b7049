//! What a deployment needs next: replica sets to create, scale, annotate or delete, and its status. Pure. The rules
//! are those of upstream's `pkg/controller/deployment` (rolling, recreate, scale, pause, revisions, clean-up); the
//! plan works on counts as they will be once its steps are done.
//!
//! The parts: `rolling` moves sizes from old sets to the new one, `scale` spreads a new total over them, `revision`
//! numbers and forgets sets, `replica_set` makes and writes them, `report` says how it went.

use std::sync::Arc;
use std::time::Duration;

use api_client::ObjectKey;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::Value;

use super::replica_set::Set;
use super::scale;
use super::status::{self, PAUSED, PROGRESSING, Status, TIMED_OUT, condition};
use crate::controllers::template;
use crate::engine::Clock;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// What is known.
pub struct Input<'a> {
    pub deployment: &'a Deployment,
    /// The replica sets it owns, in any order.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// Uids of replica sets with pods that have not ended.
    pub running: &'a dyn Fn(&str) -> bool,
    pub clock: Clock<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the new replica set.
    Create {
        name: String,
        object: Value,
    },
    /// Patch a replica set (merge).
    Patch {
        key: ObjectKey,
        patch: Value,
    },
    Delete {
        key: ObjectKey,
        uid: String,
    },
    /// Tell the user.
    Event {
        reason: &'static str,
        message: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Merge patch of the status subresource.
    pub status: Option<Value>,
    /// When to look again though nothing changes (progress deadline).
    pub check_after: Option<Duration>,
}
/// The plan under construction.
pub struct Rollout<'a> {
    pub input: &'a Input<'a>,
    pub replicas: i32,
    /// Oldest first.
    pub sets: Vec<Set>,
    /// Index of the set with the deployment's template.
    pub new: Option<usize>,
    pub status: Status,
    pub revision: Option<String>,
    pub(super) steps: Vec<Step>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut rollout = Rollout::new(input);
    let deployment = input.deployment;
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.sync_revision();
        return rollout.finish(false);
    }
    rollout.note_pause();
    if rollout.is_paused() {
        rollout.sync_revision();
        scale::scale(&mut rollout);
        rollout.clean_up();
        return rollout.finish(false);
    }
    rollout.sync_revision();
    if rollout.is_scaling() {
        scale::scale(&mut rollout);
        return rollout.finish(false);
    }
    if rollout.is_rolling() {
        rollout.roll()
    } else {
        rollout.recreate()
    }
    rollout.finish(true)
}

impl<'a> Rollout<'a> {
    pub(super) fn new(input: &'a Input<'a>) -> Self {
        let mut sets: Vec<Set> = input.replica_sets.iter().map(Set::of).collect();
        sets.sort_by(|a, b| {
            let created = |s: &Set| s.object.metadata.creation_timestamp.clone();
            created(a).cmp(&created(b)).then_with(|| a.name().cmp(b.name()))
        });
        let wanted = input.deployment.spec.as_ref().map(|s| &s.template);
        let new = sets.iter().position(|set| {
            let template = set.object.spec.as_ref().and_then(|s| s.template.as_ref());
            matches!((template, wanted), (Some(a), Some(b)) if template::equal(a, b))
        });
        Self {
            input,
            replicas: status::replicas(input.deployment),
            sets,
            new,
            status: Status::of(input.deployment.status.as_ref()),
            revision: None,
            steps: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.input.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.input.deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default()
    }

    pub fn is_rolling(&self) -> bool {
        let strategy = self.input.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    /// Pausing and resuming are noted, so that the time in between doesn't count as lack of progress
    /// (`checkPausedConditions`).
    pub(super) fn note_pause(&mut self) {
        if status::progress_deadline(self.input.deployment).is_none() {
            return;
        }
        let reason = self.status.condition(PROGRESSING).and_then(|c| c.reason.as_deref()).unwrap_or_default();
        if reason == TIMED_OUT {
            return;
        }
        let (paused, noted) = (self.is_paused(), reason == PAUSED);
        if paused && !noted {
            let message = "Deployment is paused".to_owned();
            self.status.set(condition(PROGRESSING, "Unknown", PAUSED, message, self.input.clock.now));
        } else if !paused && noted {
            let message = "Deployment is resumed".to_owned();
            self.status.set(condition(PROGRESSING, "Unknown", "DeploymentResumed", message, self.input.clock.now));
        }
    }

    /// Someone changed the deployment's size: the sets still carry the old one.
    pub(super) fn is_scaling(&self) -> bool {
        let desired = |set: &Set| set.annotations.get(DESIRED_REPLICAS).and_then(|d| d.parse::<i32>().ok());
        self.sets.iter().filter(|s| s.replicas > 0).filter_map(desired).any(|desired| desired != self.replicas)
    }

    pub fn total(&self) -> i32 {
        self.sets.iter().map(|s| s.replicas).sum()
    }

    pub fn old_indexes(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.new).collect()
    }
}
