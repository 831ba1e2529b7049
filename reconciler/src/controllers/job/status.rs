//! How a job's status comes about: pods are noted as uncounted, their finalizers removed, and only then counted, so
//! that a process may stop at any point and no pod is counted twice or missed. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use serde_json::{Value, json};

use super::indexes::Indexes;
use super::plan::{Sync, is_tracked};
use super::policy::Verdict;
use crate::objects::Pod;

/// Uids noted in a status at a time (`MaxUncountedPods`): 20 kB of text.
const UNCOUNTED_MAX: usize = 500;

/// How an action went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    pub created: i32,
    pub deleted: i32,
    pub deleted_ready: i32,
    /// Something of it failed, and is to be done again.
    pub failed: bool,
}

/// An event on the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

fn event(reason: &str, message: &str) -> Event {
    Event { warning: false, reason: reason.to_owned(), message: message.to_owned() }
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now.into()),
        last_transition_time: Some(now.into()),
    }
}

/// The condition, where it is true.
pub fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

pub fn is_finished(status: Option<&JobStatus>) -> bool {
    status.is_some_and(|s| holds(s, "Complete").is_some() || holds(s, "Failed").is_some())
}

/// Sets a condition; true when that changed it. One that is false and was never there stays away.
fn ensure(status: &mut JobStatus, new: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(c) if c.status == new.status && c.reason == new.reason && c.message == new.message => false,
        Some(c) => {
            *c = new;
            true
        }
        None if new.status == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}

impl Sync<'_> {
    /// Takes in how the action went, and decides on completion and suspension.
    pub fn acted(&mut self, acted: Acted) -> Vec<Event> {
        self.active_count += acted.created - acted.deleted;
        self.terminating += acted.deleted;
        self.ready -= acted.deleted_ready;
        if self.finished.is_some() {
            if acted.failed {
                // Some pods may still run: not ended yet.
                self.finished = None;
            }
            return Vec::new();
        }
        let reached = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if reached && self.active_count == 0 {
            let message = "Reached expected number of succeeded pods";
            self.finished = Some(condition("SuccessCriteriaMet", "True", "CompletionsReached", message, self.now));
            return Vec::new();
        }
        if self.is_deleting() { Vec::new() } else { self.note_suspension() }
    }

    fn note_suspension(&mut self) -> Vec<Event> {
        let now = self.now;
        if self.is_suspended() {
            let suspended = condition("Suspended", "True", "JobSuspended", "Job suspended", now);
            if ensure(&mut self.status, suspended) {
                self.status.start_time = None;
                return vec![event("Suspended", "Job suspended")];
            }
        } else if ensure(&mut self.status, condition("Suspended", "False", "JobResumed", "Job resumed", now)) {
            // The deadline runs from when the job last was resumed.
            self.status.start_time = Some(now.into());
            return vec![event("Resumed", "Job resumed")];
        }
        Vec::new()
    }

    /// Writes into the status what must stand there before finalizers are removed; gives the pods to remove them from.
    pub fn track(&mut self) -> Vec<Arc<Pod>> {
        self.status.active = Some(self.active_count).filter(|n| *n != 0);
        self.status.ready = Some(self.ready);
        self.status.terminating = Some(self.terminating);
        let tracked = self.pods.iter().filter(|p| is_tracked(p)).map(|p| p.metadata.uid.as_str());
        count_released(&mut self.status, &tracked.collect());
        let released = self.note_ended();
        if self.is_indexed() {
            let completed = self.counted_indexes.to_string();
            self.status.succeeded = Some(self.counted_indexes.count()).filter(|n| *n != 0);
            self.status.completed_indexes = Some(completed).filter(|text| !text.is_empty());
            self.status.failed_indexes = self.failed_indexes.as_ref().map(Indexes::to_string);
        }
        self.note_interim();
        released
    }

    fn note_ended(&mut self) -> Vec<Arc<Pod>> {
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let (succeeded, failed) =
            (uncounted.succeeded.get_or_insert_default(), uncounted.failed.get_or_insert_default());
        let mut released = Vec::new();
        let mut indexes: Vec<i32> = Vec::new();
        let mut pods: Vec<Arc<Pod>> = self.pods.iter().filter(|p| self.is_releasable(p)).cloned().collect();
        pods.sort_by_key(|p| self.index(p));
        for pod in pods {
            let uid = &pod.metadata.uid;
            let countable = !self.is_indexed() || self.index(&pod).is_some();
            if pod.status.phase == "Succeeded" && !failed.contains(uid) {
                match self.index(&pod).filter(|_| self.is_indexed()) {
                    Some(index) if !self.counted_indexes.has(index) => indexes.push(index),
                    None if countable && !succeeded.contains(uid) => succeeded.push(uid.clone()),
                    _ => {}
                }
            } else if self.counts_as_failed(&pod) && countable && !failed.contains(uid) {
                failed.push(uid.clone());
            }
            released.push(pod);
            if indexes.len() + succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                break;
            }
        }
        self.counted_indexes = self.counted_indexes.union(&indexes.into_iter().collect());
        uncounted.succeeded = uncounted.succeeded.filter(|list| !list.is_empty());
        uncounted.failed = uncounted.failed.filter(|list| !list.is_empty());
        self.status.uncounted_terminated_pods = Some(uncounted);
        released
    }

    /// `canRemoveFinalizer`.
    fn is_releasable(&self, pod: &Pod) -> bool {
        if !is_tracked(pod) {
            return false;
        }
        if self.is_deleting() || self.finished.is_some() || pod.status.phase == "Succeeded" {
            return true;
        }
        let awaits_replacement = self
            .index(pod)
            .and_then(|index| self.to_replace.get(&index))
            .is_some_and(|p| p.metadata.uid == pod.metadata.uid);
        self.is_failed(pod) && !awaits_replacement
    }

    /// When a job fails, each pod that has not ended counts as failed.
    fn counts_as_failed(&self, pod: &Pod) -> bool {
        let job_fails = self.finished.as_ref().is_some_and(|c| c.type_ != "SuccessCriteriaMet");
        (self.is_failed(pod) || job_fails) && self.verdict(pod) != Verdict::Ignore
    }

    /// The interim condition is written before finalizers go; the final one follows when all pods are counted.
    fn note_interim(&mut self) {
        let Some(interim) = self.finished.clone() else { return };
        let last = match interim.type_.as_str() {
            "FailureTarget" => "Failed",
            "SuccessCriteriaMet" => "Complete",
            _ => return,
        };
        if holds(&self.status, &interim.type_).is_none() {
            self.status.conditions.get_or_insert_default().push(interim.clone());
        }
        let (reason, message) = (interim.reason.unwrap_or_default(), interim.message.unwrap_or_default());
        self.finished = Some(condition(last, "True", &reason, &message, self.now));
    }

    /// Counts the pods whose finalizers are gone, and declares the end where nothing is left to count.
    pub fn settle(&mut self, released: &HashSet<&str>) -> Vec<Event> {
        let tracked = self.pods.iter().filter(|p| is_tracked(p)).map(|p| p.metadata.uid.as_str());
        let still_tracked = tracked.filter(|uid| !released.contains(uid)).collect();
        count_released(&mut self.status, &still_tracked);
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let open = uncounted.is_some_and(|u| u.succeeded.is_some() || u.failed.is_some());
        let untracked = still_tracked_blocks(&self.pods, &still_tracked);
        let Some(last) = self.finished.clone().filter(|_| !open && !untracked && self.terminating == 0) else {
            return Vec::new();
        };
        if last.type_ == "Complete" {
            self.status.completion_time = Some(self.now.into());
        }
        ensure(&mut self.status, last.clone());
        self.ended(&last)
    }

    fn ended(&self, last: &JobCondition) -> Vec<Event> {
        let (reason, message) = (last.reason.clone().unwrap_or_default(), last.message.clone().unwrap_or_default());
        if last.type_ != "Complete" {
            return vec![Event { warning: true, reason, message }];
        }
        let mut events = Vec::new();
        if self.spec.completions.is_some_and(|completions| self.status.succeeded.unwrap_or_default() > completions) {
            let message = "Too many succeeded pods running after completion count reached".to_owned();
            events.push(Event { warning: true, reason: "TooManySucceededPods".into(), message });
        }
        events.push(event("Completed", "Job completed"));
        events
    }
}

/// A finished job is not looked at again, so no pod may be left with its finalizer.
fn still_tracked_blocks(pods: &[Arc<Pod>], tracked: &HashSet<&str>) -> bool {
    pods.iter().any(|p| tracked.contains(p.metadata.uid.as_str()))
}

/// Moves noted pods without a finalizer into the counters (`cleanUncountedPodsWithoutFinalizers`).
fn count_released(status: &mut JobStatus, tracked: &HashSet<&str>) {
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    for (list, counter) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid.as_str()));
        let gone = super::plan::count(before - uids.len());
        if gone > 0 {
            *counter = Some(counter.unwrap_or_default() + gone);
        }
        if uids.is_empty() {
            *list = None;
        }
    }
    status.uncounted_terminated_pods = Some(uncounted);
}

/// The merge patch that makes `old` into `new`, bound to the version it was decided on; `None` if they agree.
pub fn patch(old: &JobStatus, new: &JobStatus, resource_version: &str) -> Option<Value> {
    let (old, mut new) = (json!(old), json!(new));
    if old == new {
        return None;
    }
    // In a merge patch a map only grows: its lists are cleared by name.
    for list in ["succeeded", "failed"] {
        if old["uncountedTerminatedPods"].get(list).is_some() && new["uncountedTerminatedPods"].get(list).is_none() {
            new["uncountedTerminatedPods"][list] = Value::Null;
        }
    }
    for field in old.as_object().into_iter().flatten().map(|(field, _)| field) {
        if new.get(field).is_none() {
            new[field] = Value::Null;
        }
    }
    Some(json!({"metadata": {"resourceVersion": resource_version}, "status": new}))
}
