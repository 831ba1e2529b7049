//! Rollouts: moving pods from old replica sets to the new one within the bounds the user set, and replacing them at one
//! stroke. Pure.

use super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, Step};
use crate::controllers::int_or_percent::scaled;

impl Rollout<'_> {
    /// `ResolveFenceposts`: surge rounds up, unavailability down, and both can't be zero.
    pub(super) fn fenceposts(&self) -> (i32, i32) {
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

    /// `rolloutRolling`.
    pub(super) fn roll(&mut self) {
        let new = self.ensure_new();
        if self.grow_new(new) || self.shrink_old(new) {
            return;
        }
        if self.status.is_complete(self.input.deployment) {
            self.clean_up();
        }
    }

    /// `reconcileNewReplicaSet`.
    pub(super) fn grow_new(&mut self, new: usize) -> bool {
        let size = self.sets[new].replicas;
        if size > self.replicas {
            return self.resize(new, self.replicas, false);
        }
        let size = self.new_size(size);
        self.resize(new, size, false)
    }

    /// How large the new set may be now (`NewRSNewReplicas`).
    pub(super) fn new_size(&self, size: i32) -> i32 {
        if !self.is_rolling() {
            return self.replicas;
        }
        let room = self.replicas + self.max_surge() - self.total();
        if room <= 0 { size } else { size + room.min(self.replicas - size) }
    }

    /// `reconcileOldReplicaSets`: unhealthy pods first, then as many as stay above the minimum available.
    pub(super) fn shrink_old(&mut self, new: usize) -> bool {
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
        // A set that was told to shrink still counts the pods it is about to delete.
        let available: i32 = self.sets.iter().map(|set| set.available().min(set.replicas)).sum();
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
    pub(super) fn recreate(&mut self) {
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
}
