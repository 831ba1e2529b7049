//! The Job controller: runs pods to their end and counts each of them once. What counts is written before a pod's
//! finalizer is removed (see `status.rs`), so no pod is lost between its end and its count.

pub mod backoff;
pub mod indexes;
mod orphans;
pub mod plan;
pub mod policy;
pub mod status;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_client::events::ObjectReference;
use api_client::{Cache, Object, ObjectKey, Patch};
use async_trait::async_trait;
use futures_util::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use plan::{Action, FINALIZER, Sync};
use serde_json::json;
use status::{Acted, Event};

use super::{claim, pods};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, ORPHANS, Owner, Pod, compile};

pub use orphans::OrphanPods;

/// The value of `spec.managedBy` that means this controller.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

pub struct Jobs {
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    records: Mutex<HashMap<ObjectKey, backoff::Record>>,
}

impl Jobs {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.get(), pods: caches.get(), records: Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<ObjectKey, backoff::Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.jobs);
        let jobs = self.jobs.clone();
        let selector = |job: &Job| compile(job.spec.as_ref().and_then(|s| s.selector.as_ref()));
        inputs.watch(&self.pods, move |change, wake| claim::wake_owners(&jobs, selector, change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods"), Output::exclusive("batch", "jobs/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(job) = self.jobs.get(key).filter(|job| !is_foreign(job)) else {
            self.records().remove(key);
            return Ok(Done::Settled);
        };
        if status::is_finished(job.status.as_ref()) {
            self.records().remove(key);
            return Ok(Done::Settled);
        }
        let regarding = ObjectReference::to(&*job);
        if let Some(mode) = job.spec.as_ref().and_then(|s| s.completion_mode.as_deref())
            && !matches!(mode, "Indexed" | "NonIndexed")
        {
            let message = "Skipped Job sync because completion mode is unknown";
            work.recorder().warning(regarding, "UnknownCompletionMode", message);
            return Ok(Done::Settled);
        }
        let Some(pods) = self.claim(&job, key, work).await? else {
            // Adopted pods are looked at as they are after their adoption.
            return Ok(Done::Later);
        };
        self.sync(&job, pods, key, work).await
    }
}

impl Jobs {
    /// The job's pods; `None` when some were adopted just now.
    async fn claim(&self, job: &Job, key: &ObjectKey, work: &Work) -> Result<Option<Vec<Arc<Pod>>>, Error> {
        let owner = Owner::of(job).with_finalizer(FINALIZER);
        let selector = compile(job.spec.as_ref().and_then(|s| s.selector.as_ref()));
        let snapshot = self.pods.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let claimed = claim::claim(&owner, &selector, candidates);
        claim::enforce::<Pod, Job>(work, &owner, key, &claimed).await?;
        Ok(claimed.adopt.is_empty().then_some(claimed.owned))
    }

    async fn sync(&self, job: &Job, pods: Vec<Arc<Pod>>, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let record = self.records().get(key).copied().unwrap_or_default();
        let Some(mut sync) = Sync::new(job, pods, record, work.now()) else { return Ok(Done::Settled) };
        let action = sync.action();
        let (acted, result) = act(job, &action, key, work).await;
        let events = sync.acted(acted);
        emit(job, events, work);
        let record = sync.record;
        // Once noted in the status, failures are not seen as new again: only now may they be remembered.
        let noted = || {
            self.records().insert(key.clone(), record);
        };
        track(job, &mut sync, key, work, noted).await?;
        result?;
        let wait = match action {
            Action::Wait(left) => Some(left),
            _ => None,
        };
        let deadline = sync.finished.is_none().then(|| sync.deadline_left()).flatten();
        Ok(Done::after(wait.into_iter().chain(deadline).min()))
    }
}

/// Writes what was decided, removes finalizers, and counts. Each write is bound to the version it was decided on.
async fn track(
    job: &Job,
    sync: &mut Sync<'_>,
    key: &ObjectKey,
    work: &Work,
    noted: impl FnOnce(),
) -> Result<(), Error> {
    let mut stored = job.status.clone().unwrap_or_default();
    let mut version = job.metadata.resource_version.clone().unwrap_or_default();
    let released = sync.track();
    if let Some(patch) = status::patch(&stored, &sync.status, &version) {
        let written = work.patch_status::<Job>(key, &Patch::Merge(patch)).await?;
        version = written.metadata.resource_version.unwrap_or_default();
        stored = sync.status.clone();
        noted();
    }
    let (freed, result) = release(&released, work).await;
    let events = sync.settle(&freed.iter().map(|p| p.metadata.uid.as_str()).collect::<HashSet<&str>>());
    if let Some(patch) = status::patch(&stored, &sync.status, &version) {
        work.patch_status::<Job>(key, &Patch::Merge(patch)).await?;
    }
    emit(job, events, work);
    result
}

/// Removes the finalizers; gives the pods that are without.
async fn release(pods: &[Arc<Pod>], work: &Work) -> (Vec<Arc<Pod>>, Result<(), Error>) {
    let results = join_all(pods.iter().map(|pod| remove_finalizer(pod, work))).await;
    let mut freed = Vec::new();
    let mut failure = Ok(());
    for (pod, result) in pods.iter().zip(results) {
        match result {
            Ok(()) => freed.push(pod.clone()),
            Err(error) => failure = Err(error),
        }
    }
    (freed, failure)
}

/// A pod that is gone has no finalizer either.
async fn remove_finalizer(pod: &Pod, work: &Work) -> Result<(), Error> {
    if !plan::is_tracked(pod) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    match work.patch::<Pod>(&pod.key(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(e)) if e.is_not_found() || e.is_conflict() && is_replaced(pod, work).await => Ok(()),
        Err(e) => Err(e),
    }
}

/// The name belongs to another pod by now.
async fn is_replaced(pod: &Pod, work: &Work) -> bool {
    let live = work.live::<Pod>().find(&pod.key()).await;
    live.is_ok_and(|live| live.is_none_or(|live| live.metadata.uid != pod.metadata.uid))
}

async fn act(job: &Job, action: &Action, key: &ObjectKey, work: &Work) -> (Acted, Result<(), Error>) {
    let regarding = ObjectReference::to(job);
    match action {
        Action::Nothing | Action::Wait(_) => (Acted::default(), Ok(())),
        Action::Create(new) => {
            let pods = template::pods(job, new);
            let (created, result) = pods::create_all(work, &regarding, &key.namespace, &pods).await;
            (Acted { created: plan::count(created), failed: result.is_err(), ..Acted::default() }, result)
        }
        Action::End(doomed) => delete(doomed, false, &regarding, work).await,
        Action::Remove(doomed) => delete(doomed, true, &regarding, work).await,
    }
}

async fn delete(
    doomed: &[Arc<Pod>],
    uncounted: bool,
    regarding: &ObjectReference,
    work: &Work,
) -> (Acted, Result<(), Error>) {
    let one = |pod: Arc<Pod>| async move {
        if uncounted {
            remove_finalizer(&pod, work).await?;
        }
        pods::delete_one(work, regarding, &pod).await
    };
    let results = join_all(doomed.iter().map(|pod| one(pod.clone()))).await;
    let mut acted = Acted::default();
    let mut failure = Ok(());
    for (pod, result) in doomed.iter().zip(results) {
        match result {
            Ok(()) => {
                acted.deleted += 1;
                acted.deleted_ready += i32::from(pod.is_ready());
            }
            Err(error) => {
                acted.failed = true;
                failure = Err(error);
            }
        }
    }
    (acted, failure)
}

fn emit(job: &Job, events: Vec<Event>, work: &Work) {
    for event in events {
        let kind =
            if event.warning { api_client::events::EventType::Warning } else { api_client::events::EventType::Normal };
        work.recorder().record(ObjectReference::to(job), kind, &event.reason, event.message);
    }
}

/// Another controller looks after the job.
fn is_foreign(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGED_BY)
}
