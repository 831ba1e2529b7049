//! What a deployment needs next: replica sets to create, scale, annotate or delete, and its status. Pure. The rules
//! are those of upstream's `pkg/controller/deployment` (rolling, recreate, scale, pause, revisions, clean-up); the
//! plan works on counts as they will be once its steps are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_client::{Object, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::status::{self, PAUSED, PROGRESSING, Status, TIMED_OUT, condition};
use super::{revision, scale};
use crate::controllers::int_or_percent::scaled;
use crate::controllers::template;
use crate::objects::Owner;

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
    pub now: Timestamp,
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

/// A replica set as it will be.
#[derive(Clone, Debug)]
pub struct Set {
    pub object: Arc<ReplicaSet>,
    pub replicas: i32,
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: i32,
    /// Not there yet.
    pub created: bool,
}

impl Set {
    pub fn of(object: &Arc<ReplicaSet>) -> Self {
        let spec = object.spec.as_ref();
        Self {
            replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
            annotations: object.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds).unwrap_or_default(),
            object: object.clone(),
            created: false,
        }
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }
    pub fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
    }
    fn ready(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default()
    }
    /// Pods there are, as its own controller counted them.
    pub fn actual(&self) -> i32 {
        self.object.status.as_ref().map(|s| s.replicas).unwrap_or_default()
    }
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
    steps: Vec<Step>,
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
        rollout.scale();
        rollout.clean_up();
        return rollout.finish(false);
    }
    rollout.sync_revision();
    if rollout.is_scaling() {
        rollout.scale();
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
    fn new(input: &'a Input<'a>) -> Self {
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

    fn name(&self) -> &str {
        self.input.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    fn is_paused(&self) -> bool {
        self.input.deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default()
    }

    pub fn is_rolling(&self) -> bool {
        let strategy = self.input.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    /// Pausing and resuming are noted, so that the time in between doesn't count as lack of progress
    /// (`checkPausedConditions`).
    fn note_pause(&mut self) {
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
            self.status.set(condition(PROGRESSING, "Unknown", PAUSED, message, self.input.now));
        } else if !paused && noted {
            let message = "Deployment is resumed".to_owned();
            self.status.set(condition(PROGRESSING, "Unknown", "DeploymentResumed", message, self.input.now));
        }
    }

    /// Brings the new set's annotations and revision up to date, and the deployment's revision after it
    /// (`getNewReplicaSet` where it exists).
    fn sync_revision(&mut self) {
        let Some(new) = self.new else { return };
        let old = (0..self.sets.len()).filter(|i| *i != new).map(|i| &self.sets[i]);
        let next = revision::max(old.map(|s| &s.annotations)) + 1;
        let own = self.input.deployment.metadata.annotations.clone().unwrap_or_default();
        let set = &mut self.sets[new];
        revision::annotate(&own, &mut set.annotations, next);
        let spec = self.input.deployment.spec.as_ref();
        set.min_ready_seconds = spec.and_then(|s| s.min_ready_seconds).unwrap_or_default();
        self.revision = set.annotations.get(REVISION).cloned();
        if status::progress_deadline(self.input.deployment).is_some() && self.status.condition(PROGRESSING).is_none() {
            let message = format!("Found new replica set {:?}", set.name());
            self.status.set(condition(PROGRESSING, "True", "FoundNewReplicaSet", message, self.input.now));
        }
    }

    /// Someone changed the deployment's size: the sets still carry the old one.
    fn is_scaling(&self) -> bool {
        let desired = |set: &Set| set.annotations.get(DESIRED_REPLICAS).and_then(|d| d.parse::<i32>().ok());
        self.sets.iter().filter(|s| s.replicas > 0).filter_map(desired).any(|desired| desired != self.replicas)
    }

    pub fn total(&self) -> i32 {
        self.sets.iter().map(|s| s.replicas).sum()
    }

    pub fn old_indexes(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.new).collect()
    }

    /// `ResolveFenceposts`: surge rounds up, unavailability down, and both can't be zero.
    fn fenceposts(&self) -> (i32, i32) {
        let strategy = self.input.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), self.replicas, true);
        let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), self.replicas, false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub fn max_surge(&self) -> i32 {
        if self.is_rolling() { self.fenceposts().0 } else { 0 }
    }

    pub fn max_unavailable(&self) -> i32 {
        if self.is_rolling() && self.replicas > 0 { self.fenceposts().1.min(self.replicas) } else { 0 }
    }

    /// Sets a set's size and, with it, the annotations that later tell a scaling from a rollout. With `force` the
    /// annotations are renewed even if the size stays (`scaleReplicaSet`).
    pub fn resize(&mut self, index: usize, size: i32, force: bool) -> bool {
        let (desired, most) = (self.replicas.to_string(), (self.replicas + self.max_surge()).to_string());
        let set = &mut self.sets[index];
        if !force && set.replicas == size {
            return false;
        }
        set.annotations.insert(DESIRED_REPLICAS.into(), desired);
        set.annotations.insert(MAX_REPLICAS.into(), most);
        let old = std::mem::replace(&mut set.replicas, size);
        if old == size {
            return false;
        }
        let direction = if old < size { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {old} to {size}", set.name());
        self.steps.push(Step::Event { reason: "ScalingReplicaSet", message });
        true
    }

    fn scale(&mut self) {
        scale::scale(self);
    }

    /// `rolloutRolling`.
    fn roll(&mut self) {
        let new = self.ensure_new();
        if self.grow_new(new) || self.shrink_old(new) {
            return;
        }
        if self.status.is_complete(self.input.deployment) {
            self.clean_up();
        }
    }

    /// `reconcileNewReplicaSet`.
    fn grow_new(&mut self, new: usize) -> bool {
        let size = self.sets[new].replicas;
        if size > self.replicas {
            return self.resize(new, self.replicas, false);
        }
        let size = self.new_size(size);
        self.resize(new, size, false)
    }

    /// How large the new set may be now (`NewRSNewReplicas`).
    fn new_size(&self, size: i32) -> i32 {
        if !self.is_rolling() {
            return self.replicas;
        }
        let room = self.replicas + self.max_surge() - self.total();
        if room <= 0 { size } else { size + room.min(self.replicas - size) }
    }

    /// `reconcileOldReplicaSets`: unhealthy pods first, then as many as stay above the minimum available.
    fn shrink_old(&mut self, new: usize) -> bool {
        let old: Vec<usize> = self.old_indexes().into_iter().filter(|i| self.sets[*i].replicas > 0).collect();
        if old.is_empty() {
            return false;
        }
        let min_available = self.replicas - self.max_unavailable();
        let new_unavailable = self.sets[new].replicas - self.sets[new].available();
        let mut unhealthy_budget = self.total() - min_available - new_unavailable;
        if unhealthy_budget <= 0 {
            return false;
        }
        let mut shrunk = false;
        for index in &old {
            let set = &self.sets[*index];
            let unhealthy = (set.replicas - set.available()).clamp(0, unhealthy_budget);
            unhealthy_budget -= unhealthy;
            let size = set.replicas - unhealthy;
            shrunk |= self.resize(*index, size, false);
        }
        let available: i32 = self.sets.iter().map(Set::available).sum();
        let mut budget = (available - min_available).max(0);
        for index in old {
            let size = self.sets[index].replicas;
            let fewer = size.min(budget);
            budget -= fewer;
            shrunk |= self.resize(index, size - fewer, false);
        }
        shrunk
    }

    /// `rolloutRecreate`: nothing new before all old pods have ended.
    fn recreate(&mut self) {
        let old = self.old_indexes();
        let mut shrunk = false;
        for index in &old {
            shrunk |= self.resize(*index, 0, false);
        }
        let running = |index: &usize| self.sets[*index].actual() > 0 || (self.input.running)(self.sets[*index].uid());
        if shrunk || old.iter().any(running) {
            return;
        }
        let new = self.ensure_new();
        self.resize(new, self.replicas, false);
        if self.status.is_complete(self.input.deployment) {
            self.clean_up();
        }
    }

    /// The index of the new set, made if it isn't there.
    fn ensure_new(&mut self) -> usize {
        if let Some(new) = self.new {
            return new;
        }
        let deployment = self.input.deployment;
        let next = revision::max(self.sets.iter().map(|s| &s.annotations)) + 1;
        let own = deployment.metadata.annotations.clone().unwrap_or_default();
        let (name, object) = new_replica_set(deployment, self.status.collision_count);
        let mut annotations = BTreeMap::new();
        revision::annotate(&own, &mut annotations, next);
        annotations.insert(DESIRED_REPLICAS.into(), self.replicas.to_string());
        annotations.insert(MAX_REPLICAS.into(), (self.replicas + self.max_surge()).to_string());
        let size = self.new_size(0);
        let object = Arc::new(object);
        self.sets.push(Set { replicas: size, annotations, created: true, ..Set::of(&object) });
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.steps.push(Step::Event { reason: "ScalingReplicaSet", message });
        }
        if status::progress_deadline(deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            self.status.set(condition(PROGRESSING, "True", "NewReplicaSetCreated", message, self.input.now));
        }
        self.revision = Some(next.to_string());
        self.new = Some(self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// Deletes the oldest empty sets beyond the history limit (`cleanupDeployment`).
    fn clean_up(&mut self) {
        let limit = self.input.deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
        let Some(limit) = limit.filter(|l| *l != i32::MAX).and_then(|l| usize::try_from(l).ok()) else { return };
        let mut old: Vec<&Set> = self.old_indexes().into_iter().map(|i| &self.sets[i]).collect();
        old.retain(|set| set.object.metadata.deletion_timestamp.is_none());
        let excess = old.len().saturating_sub(limit);
        old.sort_by_key(|set| revision::of(&set.annotations));
        let is_idle = |set: &&&Set| {
            let observed = set.object.status.as_ref().and_then(|s| s.observed_generation).unwrap_or_default();
            let current = set.object.metadata.generation.unwrap_or_default() <= observed;
            set.actual() == 0 && set.replicas == 0 && current
        };
        let doomed = old.iter().take(excess).filter(is_idle);
        let delete = |set: &&Set| Step::Delete { key: set.object.key(), uid: set.uid().to_owned() };
        self.steps.extend(doomed.map(delete).collect::<Vec<_>>());
    }

    /// Turns the state reached into steps and status. `judge`: whether progress is judged (not while paused, scaling
    /// or being deleted).
    fn finish(mut self, judge: bool) -> Plan {
        let deployment = self.input.deployment;
        let old = Status::of(deployment.status.as_ref());
        let before = self.status.clone();
        let mut status = self.count(before.clone());
        if judge {
            let subject = match self.new {
                Some(new) => format!("ReplicaSet {:?}", self.sets[new].name()),
                None => format!("Deployment {:?}", self.name()),
            };
            status::judge_progress(deployment, &before, &mut status, &subject, self.input.now);
            self.copy_failure(&mut status);
        }
        let check_after = judge.then(|| check_after(deployment, &before, &status, self.input.now)).flatten();
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
    fn count(&self, before: Status) -> Status {
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
        status.set(condition(status::AVAILABLE, value, reason, message.to_owned(), self.input.now));
        status
    }

    /// Unknown as soon as one observed set doesn't say.
    fn terminating(&self) -> Option<i32> {
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
    fn copy_failure(&self, status: &mut Status) {
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

    /// One write for each set that differs from what is stored.
    fn writes(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for set in &self.sets {
            if set.created {
                let object = created_object(set);
                steps.push(Step::Create { name: set.name().to_owned(), object });
                continue;
            }
            let stored = Set::of(&set.object);
            let mut patch = json!({});
            if stored.replicas != set.replicas {
                patch["spec"]["replicas"] = set.replicas.into();
            }
            if stored.min_ready_seconds != set.min_ready_seconds {
                patch["spec"]["minReadySeconds"] = set.min_ready_seconds.into();
            }
            let changed = set.annotations.iter().filter(|(key, value)| stored.annotations.get(*key) != Some(value));
            for (key, value) in changed {
                patch["metadata"]["annotations"][key] = value.as_str().into();
            }
            if patch.as_object().is_some_and(|p| !p.is_empty()) {
                // On condition that nobody scaled it meanwhile.
                patch["metadata"]["resourceVersion"] = json!(set.object.metadata.resource_version);
                steps.push(Step::Patch { key: set.object.key(), patch });
            }
        }
        steps
    }
}

/// When a rollout that stands still must be judged again (`requeueStuckDeployment`).
fn check_after(deployment: &Deployment, before: &Status, status: &Status, now: Timestamp) -> Option<Duration> {
    let deadline = status::progress_deadline(deployment)?;
    let condition = before.condition(PROGRESSING)?;
    if status.is_complete(deployment) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let from = condition.last_update_time.as_ref().map_or(now, |t| t.0);
    let left = deadline - now.duration_since(from).as_secs();
    // A second more, because times are kept in whole seconds.
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default() + 1))
}

/// The replica set for the deployment's template, without size and annotations.
fn new_replica_set(deployment: &Deployment, collisions: Option<i32>) -> (String, ReplicaSet) {
    let spec = deployment.spec.clone().unwrap_or_default();
    let mut template = spec.template;
    let hash = template::hash(&template, collisions);
    let name = template::replica_set_name(deployment.metadata.name.as_deref().unwrap_or_default(), &hash);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(template::HASH_LABEL.into(), hash.clone());
    let mut object = ReplicaSet::default();
    object.metadata.name = Some(name.clone());
    object.metadata.namespace.clone_from(&deployment.metadata.namespace);
    object.metadata.labels = Some(labels.clone());
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash);
    object.spec = Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
        ..Default::default()
    });
    let owner = Owner::of(deployment).reference();
    object.metadata.owner_references = serde_json::from_value(json!([owner])).ok();
    (name, object)
}

fn created_object(set: &Set) -> Value {
    let mut object = json!(*set.object);
    object["spec"]["replicas"] = set.replicas.into();
    object["metadata"]["annotations"] = json!(set.annotations);
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}
