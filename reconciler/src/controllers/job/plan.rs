//! What a job needs now: what its pods say of it, whether that ends it, and which pods to make or remove. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};

use super::backoff::{self, Record};
use super::indexes::Indexes;
use super::policy::{self, Verdict};
use super::status::{condition, holds};
use crate::controllers::replicaset::rank;
use crate::objects::Pod;

/// Keeps an ended pod until it was counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods made or removed in one reconcile (`MaxPodCreateDeletePerSync`).
const PODS_MAX: usize = 500;

/// A job and its pods at one moment.
pub struct Sync<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub now: Timestamp,
    /// All pods of the job, also ended ones.
    pub pods: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    /// The status as it is to become; starts as the stored one.
    pub status: JobStatus,
    pub succeeded: i32,
    pub failed: i32,
    /// Indexes that the stored status has as completed.
    pub counted_indexes: Indexes,
    pub succeeded_indexes: Indexes,
    /// With a backoff limit per index only.
    pub failed_indexes: Option<Indexes>,
    /// Failed pods that wait for their replacement, which takes over their count of failures.
    pub to_replace: BTreeMap<i32, Arc<Pod>>,
    pub record: Record,
    /// How the job ends, once it does.
    pub finished: Option<JobCondition>,
    pub active_count: i32,
    pub ready: i32,
    pub terminating: i32,
}

/// The pods to make or remove.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Nothing,
    /// The job has ended: delete these, to be counted once they are gone.
    End(Vec<Arc<Pod>>),
    /// Too many, or suspended: delete these without counting them.
    Remove(Vec<Arc<Pod>>),
    Create(Vec<NewPod>),
    /// Pods are missing, but failures make them wait.
    Wait(Duration),
}

/// What tells the new pods of a job apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewPod {
    pub index: Option<i32>,
    /// Failures of the index so far, and those of them that the failure policy ignores.
    pub failures: Option<(i32, i32)>,
}

impl<'a> Sync<'a> {
    /// `None` for a job without a spec.
    pub fn new(job: &'a Job, pods: Vec<Arc<Pod>>, record: Record, now: Timestamp) -> Option<Self> {
        let spec = job.spec.as_ref()?;
        let active: Vec<Arc<Pod>> = pods.iter().filter(|p| p.is_active()).cloned().collect();
        let mut status = job.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        let mut sync = Self {
            job,
            spec,
            now,
            active_count: count(active.len()),
            ready: count(active.iter().filter(|p| p.is_ready()).count()),
            terminating: count(pods.iter().filter(|p| p.is_terminating()).count()),
            pods,
            active,
            status,
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            to_replace: BTreeMap::new(),
            record,
            finished: None,
        };
        sync.count_ended();
        if sync.status.start_time.is_none() && !sync.is_suspended() {
            sync.status.start_time = Some(now.into());
        }
        sync.judge();
        Some(sync)
    }

    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn is_deleting(&self) -> bool {
        self.job.metadata.deletion_timestamp.is_some()
    }

    pub fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or_default()
    }

    /// Pods are replaced when they have ended, not already when they are being deleted (`onlyReplaceFailedPods`).
    fn replaces_only_ended(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// A pod on its way out counts as failed, since it may never get to say so (`isPodFailed`).
    pub fn is_failed(&self, pod: &Pod) -> bool {
        let leaving = pod.metadata.is_deleting() && pod.status.phase != "Succeeded";
        pod.status.phase == "Failed" || (leaving && !self.replaces_only_ended())
    }

    pub fn verdict(&self, pod: &Pod) -> Verdict {
        policy::judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// The pod's index, where it is one of the job's.
    pub fn index(&self, pod: &Pod) -> Option<i32> {
        completion_index(pod).filter(|index| *index < self.completions())
    }

    /// Not counted yet, and countable: the finalizer is there, and the index is valid.
    fn is_uncounted(&self, pod: &Pod, noted: Option<&Vec<String>>) -> bool {
        let noted = noted.is_some_and(|uids| uids.contains(&pod.metadata.uid));
        is_tracked(pod) && !noted && (!self.is_indexed() || self.index(pod).is_some())
    }

    fn count_ended(&mut self) {
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let noted = |uids: &Option<Vec<String>>| count(uids.as_ref().map_or(0, Vec::len));
        let ended = |test: &dyn Fn(&Pod) -> bool, noted: &Option<Vec<String>>| -> Vec<Arc<Pod>> {
            let pods = self.pods.iter().filter(|p| test(p) && self.is_uncounted(p, noted.as_ref()));
            pods.cloned().collect()
        };
        let succeeded = ended(&|p| p.status.phase == "Succeeded", &uncounted.succeeded);
        let failed = ended(&|p| self.is_failed(p), &uncounted.failed);
        let counting = failed.iter().filter(|p| self.verdict(p) != Verdict::Ignore).count();
        self.record = self.record.after(&succeeded, &failed);
        self.succeeded =
            self.status.succeeded.unwrap_or_default() + count(succeeded.len()) + noted(&uncounted.succeeded);
        self.failed = self.status.failed.unwrap_or_default() + count(counting) + noted(&uncounted.failed);
        if self.is_indexed() {
            self.count_indexes();
        }
    }

    fn count_indexes(&mut self) {
        let completions = self.completions();
        self.counted_indexes =
            Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let indexes = |test: &dyn Fn(&Pod) -> bool| -> Indexes {
            self.pods.iter().filter(|p| is_tracked(p) && test(p)).filter_map(|p| self.index(p)).collect()
        };
        let succeeded = self.counted_indexes.union(&indexes(&|p| p.status.phase == "Succeeded"));
        let failed = self.spec.backoff_limit_per_index.map(|limit| {
            let known = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            known.union(&indexes(&|p| self.fails_index(p, limit)))
        });
        self.succeeded = succeeded.count();
        (self.succeeded_indexes, self.failed_indexes) = (succeeded, failed);
        if self.failed_indexes.is_some() {
            self.to_replace = self.waiting_for_replacement();
        }
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        self.is_failed(pod)
            && match self.verdict(pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => failures(pod).0 >= limit,
            }
    }

    /// The latest failed pod of each index that is to run again (`getPodsWithDelayedDeletionPerIndex`).
    fn waiting_for_replacement(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active = self.active_indexes();
        let done = |index| {
            let failed = self.failed_indexes.as_ref().is_some_and(|f| f.has(index));
            failed || self.succeeded_indexes.has(index) || active.has(index)
        };
        let age = |pod: &Pod| (failures(pod).0 + failures(pod).1, backoff::finished_at(pod));
        let mut latest: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| is_tracked(p) && self.is_failed(p)) {
            let Some(index) = self.index(pod).filter(|index| !done(*index)) else { continue };
            if latest.get(&index).is_none_or(|known| age(known) <= age(pod)) {
                latest.insert(index, pod.clone());
            }
        }
        latest
    }

    fn active_indexes(&self) -> Indexes {
        self.active.iter().filter_map(|p| completion_index(p)).collect()
    }

    /// Whether and how the job ends. What was decided before stands; failure comes before success.
    fn judge(&mut self) {
        let (now, spec) = (self.now, self.spec);
        let fails = |reason: &str, message: &str| Some(condition("FailureTarget", "True", reason, message, now));
        let before = |kind: &str| holds(&self.status, kind).cloned();
        let decided = before("SuccessCriteriaMet").or_else(|| {
            let failure = before("FailureTarget")?;
            let (reason, message) = (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
            Some(condition("Failed", "True", &reason, &message, now))
        });
        self.finished = decided
            .or_else(|| self.failed_by_policy().and_then(|message| fails("PodFailurePolicy", &message)))
            .or_else(|| {
                let limit = spec.backoff_limit.unwrap_or(i32::MAX);
                let exceeded = self.failed > limit || self.restarts_exceed(limit);
                let past = self.deadline_left().is_some_and(|left| left.is_zero());
                match () {
                    () if exceeded => fails("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
                    () if past => fails("DeadlineExceeded", "Job was active longer than specified deadline"),
                    () => None,
                }
            })
            .or_else(|| {
                let (reason, message) = self.failed_by_indexes()?;
                fails(reason, message)
            })
            .or_else(|| {
                let indexes = self.is_indexed().then_some(&self.succeeded_indexes)?;
                let message = policy::success(spec.success_policy.as_ref(), self.completions(), indexes)?;
                Some(condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, now))
            });
    }

    fn failed_by_policy(&self) -> Option<String> {
        self.spec.pod_failure_policy.as_ref()?;
        self.pods.iter().filter(|p| self.is_failed(p)).find_map(|p| match self.verdict(p) {
            Verdict::FailJob(message) => Some(message),
            _ => None,
        })
    }

    fn failed_by_indexes(&self) -> Option<(&'static str, &'static str)> {
        let failed = self.failed_indexes.as_ref()?.count();
        if self.spec.max_failed_indexes.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message));
        }
        let all_ended = failed + self.succeeded_indexes.count() >= self.completions();
        (failed > 0 && all_ended).then_some(("FailedIndexes", "Job has failed indexes"))
    }

    /// Containers that restart in their pods count as failures, too (`pastBackoffLimitOnFailure`).
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let living = self.pods.iter().filter(|p| matches!(p.status.phase.as_str(), "Running" | "Pending"));
        let containers =
            living.flat_map(|p| p.status.init_container_statuses.iter().chain(&p.status.container_statuses));
        let restarts: i32 = containers.map(|c| c.restart_count).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// What is left of the job's time, where it has a deadline and runs.
    pub fn deadline_left(&self) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let left = SignedDuration::from_secs(seconds).saturating_sub(self.now.duration_since(start));
        (!self.is_suspended()).then(|| Duration::try_from(left).unwrap_or_default())
    }

    /// The pods to make or remove (`manageJob`).
    pub fn action(&self) -> Action {
        if self.finished.is_some() {
            return if self.active.is_empty() { Action::Nothing } else { Action::End(self.active.clone()) };
        }
        if self.is_deleting() {
            return Action::Nothing;
        }
        let active = self.active.len();
        let wanted = self.wanted_active();
        let at_least = if self.is_suspended() { active } else { active.saturating_sub(wanted) };
        let mut surplus = self.surplus(at_least);
        if !surplus.is_empty() {
            surplus.truncate(PODS_MAX);
            return Action::Remove(surplus);
        }
        let leaving =
            if self.replaces_only_ended() { usize::try_from(self.terminating).unwrap_or_default() } else { 0 };
        let missing = wanted.saturating_sub(leaving + active).min(PODS_MAX);
        if self.is_suspended() || missing == 0 { Action::Nothing } else { self.create(missing) }
    }

    fn wanted_active(&self) -> usize {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            // Once a pod has succeeded, no more are made: the others are left to end by themselves.
            None if self.succeeded > 0 => count(self.active.len()),
            None => parallelism,
            Some(completions) => parallelism.min(completions - self.succeeded),
        };
        usize::try_from(wanted).unwrap_or_default()
    }

    /// At least so many active pods to remove: those without a valid index and doubles first
    /// (`activePodsForRemoval`).
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let (mut surplus, mut rest) = (Vec::new(), self.active.clone());
        if self.is_indexed() {
            let mut by_index: BTreeMap<Option<i32>, Vec<Arc<Pod>>> = BTreeMap::new();
            rest.drain(..).for_each(|pod| by_index.entry(self.index(&pod)).or_default().push(pod));
            surplus = by_index.remove(&None).unwrap_or_default();
            for pods in by_index.into_values() {
                let doubles = rank::to_delete(&pods, &[], pods.len() - 1, self.now);
                rest.extend(pods.into_iter().filter(|p| !doubles.iter().any(|d| Arc::ptr_eq(d, p))));
                surplus.extend(doubles);
            }
        }
        let more = at_least.saturating_sub(surplus.len());
        if more > 0 {
            surplus.extend(rank::to_delete(&rest, &[], more, self.now));
        }
        surplus
    }

    fn create(&self, missing: usize) -> Action {
        let per_index = self.failed_indexes.is_some();
        if !per_index && let Some(left) = self.record.remaining(self.now) {
            return Action::Wait(left);
        }
        if !self.is_indexed() {
            return Action::Create(vec![NewPod::default(); missing]);
        }
        let mut taken = self.succeeded_indexes.union(&self.active_indexes());
        if self.replaces_only_ended() {
            let leaving = self.pods.iter().filter(|p| p.is_terminating());
            taken = taken.union(&leaving.filter_map(|p| completion_index(p)).collect());
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        let indexes = taken.gaps(missing, self.completions());
        let new = |index: &i32| NewPod { index: Some(*index), failures: per_index.then(|| self.inherited(*index)) };
        let wait = |index: &i32| {
            let pod = self.to_replace.get(index)?;
            let (counted, ignored) = failures(pod);
            backoff::remaining(counted + ignored + 1, backoff::finished_at(pod), self.now)
        };
        let now: Vec<NewPod> = indexes.iter().filter(|index| wait(index).is_none()).map(new).collect();
        match indexes.iter().filter_map(wait).min() {
            Some(left) if now.is_empty() => Action::Wait(left),
            _ if now.is_empty() => Action::Nothing,
            _ => Action::Create(now),
        }
    }

    /// The failures that the next pod of an index starts with.
    fn inherited(&self, index: i32) -> (i32, i32) {
        let Some(pod) = self.to_replace.get(&index) else { return (0, 0) };
        let (counted, ignored) = failures(pod);
        if self.verdict(pod) == Verdict::Ignore { (counted, ignored + 1) } else { (counted + 1, ignored) }
    }
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

fn completion_index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.completion_index.as_ref()?.parse().ok().filter(|index| *index >= 0)
}

/// How often the pod's index had failed before: counted and ignored.
fn failures(pod: &Pod) -> (i32, i32) {
    let read = |text: &Option<String>| text.as_ref().and_then(|t| t.parse().ok()).filter(|n: &i32| *n >= 0);
    let annotations = &pod.metadata.annotations;
    (
        read(&annotations.index_failures).unwrap_or_default(),
        read(&annotations.index_ignored_failures).unwrap_or_default(),
    )
}

pub fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
