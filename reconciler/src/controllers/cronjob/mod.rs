//! The CronJob controller: starts a job whenever its schedule is due. A job's name is made from the time it is for, so
//! that no time is run twice, whatever is lost or repeated.

pub mod next;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_client::events::{EventType, ObjectReference};
use api_client::{Cache, Change, DeleteParams, Object, ObjectKey, Patch, Propagation};
use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1;
use plan::{Plan, Start};
use serde_json::{Value, json};

use super::claim;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, Owned, compile};

pub struct CronJobs {
    cron_jobs: Cache<CronJob>,
    jobs: Cache<Job>,
    /// When schedules were seen to change: a new schedule counts from then on.
    changed: Arc<Mutex<HashMap<ObjectKey, Timestamp>>>,
}

impl CronJobs {
    pub fn new(caches: &Caches) -> Self {
        Self { cron_jobs: caches.get(), jobs: caches.get(), changed: Arc::default() }
    }

    fn changed(&self) -> MutexGuard<'_, HashMap<ObjectKey, Timestamp>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        let changed = self.changed.clone();
        // Before the key is woken, so that the reconcile knows.
        inputs.watch(&self.cron_jobs, move |change, _| {
            if schedule_changed(change) {
                let mut changed = changed.lock().unwrap_or_else(PoisonError::into_inner);
                changed.insert(change.key.clone(), Timestamp::now());
            }
        });
        inputs.primary(&self.cron_jobs);
        let cron_jobs = self.cron_jobs.clone();
        // Jobs are not adopted by their labels.
        inputs.watch(&self.jobs, move |change, wake| claim::wake_owners(&cron_jobs, |_| compile(None), change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("batch", "jobs"), Output::exclusive("batch", "cronjobs/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(cron_job) = self.cron_jobs.get(key) else {
            self.changed().remove(key);
            return Ok(Done::Settled);
        };
        let uid = cron_job.metadata.uid.clone().unwrap_or_default();
        let snapshot = self.jobs.snapshot();
        let jobs: Vec<Arc<Job>> = snapshot.indexed(BY_CONTROLLER, &uid).cloned().collect();
        let missing = missing(&cron_job, &jobs, work).await?;
        let not_before = self.changed().get(key).copied();
        let plan = plan::plan(&plan::Input {
            cron_job: &cron_job,
            jobs: &jobs,
            missing: &missing,
            not_before,
            local: &TimeZone::system(),
            now: work.now(),
        });
        let again = plan.again;
        act(&cron_job, key, plan, work).await?;
        Ok(Done::after(again))
    }
}

fn schedule_changed(change: &Change<CronJob>) -> bool {
    let schedule = |c: &Option<Arc<CronJob>>| c.as_ref().map(|c| (c.spec.schedule.clone(), c.spec.time_zone.clone()));
    change.old.is_some() && change.new.is_some() && schedule(&change.old) != schedule(&change.new)
}

/// Active jobs that are not there; asked of the server, should the cache be behind.
async fn missing(cron_job: &CronJob, jobs: &[Arc<Job>], work: &Work) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    let active = cron_job.status.as_ref().and_then(|s| s.active.as_ref());
    for reference in active.into_iter().flatten() {
        if jobs.iter().any(|job| job.metadata.uid == reference.uid) {
            continue;
        }
        if work.live::<Job>().find(&key_of(reference)).await?.is_none() {
            missing.extend(reference.uid.clone());
        }
    }
    Ok(missing)
}

fn key_of(reference: &v1::ObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or_default(), reference.name.as_deref().unwrap_or_default())
}

async fn act(cron_job: &CronJob, key: &ObjectKey, plan: Plan, work: &Work) -> Result<(), Error> {
    let regarding = ObjectReference::to(cron_job);
    let mut status = plan.status;
    for job in &plan.remove {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        if delete(&regarding, &job.key(), uid, work).await.is_ok() {
            plan::drop_active(&mut status, Some(uid));
        }
    }
    for event in plan.events {
        let kind = if event.warning { EventType::Warning } else { EventType::Normal };
        work.recorder().record(regarding.clone(), kind, event.reason, event.message);
    }
    let started = start(cron_job, plan.start, &plan.replace, &mut status, work).await;
    // What is known by now is written also when the start failed.
    let old = cron_job.status.clone().unwrap_or_default();
    if status != old {
        let version = cron_job.metadata.resource_version.clone();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": merge_form(&status)});
        work.patch_status::<CronJob>(key, &Patch::Merge(patch)).await?;
    }
    started
}

fn merge_form(status: &CronJobStatus) -> Value {
    json!({
        "active": status.active, "lastScheduleTime": status.last_schedule_time,
        "lastSuccessfulTime": status.last_successful_time,
    })
}

async fn delete(regarding: &ObjectReference, key: &ObjectKey, uid: &str, work: &Work) -> Result<(), Error> {
    let params = DeleteParams::default().propagation(Propagation::Background);
    let deleted = work.delete::<Job>(key, uid, params).await;
    match &deleted {
        Ok(()) => work.recorder().normal(regarding.clone(), "SuccessfulDelete", format!("Deleted job {}", key.name)),
        Err(e) => work.recorder().warning(regarding.clone(), "FailedDelete", format!("Deleted job: {e}")),
    }
    deleted
}

async fn start(
    cron_job: &CronJob,
    start: Option<Start>,
    replace: &[v1::ObjectReference],
    status: &mut CronJobStatus,
    work: &Work,
) -> Result<(), Error> {
    let Some(start) = start else { return Ok(()) };
    let regarding = ObjectReference::to(cron_job);
    for reference in replace {
        let uid = reference.uid.as_deref().unwrap_or_default();
        delete(&regarding, &key_of(reference), uid, work).await?;
        plan::drop_active(status, Some(uid));
    }
    let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
    let job = match work.create::<Job>(namespace, &start.job).await {
        Ok(job) => {
            work.recorder().normal(regarding, "SuccessfulCreate", format!("Created job {}", start.name));
            job
        }
        Err(e) if e.is_namespace_ending() => return Ok(()),
        Err(Error::Api(e)) if e.is_already_exists() => {
            // Ours from a run that did not come to write its status, or somebody else's who will.
            let key = ObjectKey::new(namespace, start.name.as_str());
            let job = work.live::<Job>().get(&key).await?;
            if job.controller_uid() != cron_job.metadata.uid.as_deref() {
                return Ok(());
            }
            job
        }
        Err(e) => {
            work.recorder().warning(regarding, "FailedCreate", format!("Error creating job: {e}"));
            return Err(e);
        }
    };
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|r| r.uid == job.metadata.uid) {
        active.push(v1::ObjectReference {
            api_version: Some(Job::api_version()),
            kind: Some(Job::KIND.to_owned()),
            namespace: job.metadata.namespace,
            name: job.metadata.name,
            uid: job.metadata.uid,
            resource_version: job.metadata.resource_version,
            ..v1::ObjectReference::default()
        });
    }
    status.last_schedule_time = Some(start.at.into());
    Ok(())
}
