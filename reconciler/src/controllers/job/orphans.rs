//! Frees pods whose job is gone or has ended from the tracking finalizer: nobody counts them any more, and the
//! finalizer would keep them for ever.

use api_client::{Cache, Object, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;

use super::plan::is_tracked;
use super::{is_foreign, remove_finalizer, status};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, Owned, Pod};

/// Keys are pods.
pub struct OrphanPods {
    jobs: Cache<Job>,
    pods: Cache<Pod>,
}

impl OrphanPods {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.get(), pods: caches.get() }
    }

    fn is_orphan(&self, pod: &Pod) -> bool {
        let Some(owner) = pod.controller() else { return true };
        if !owner.is::<Job>() {
            return false;
        }
        let job = self.jobs.get(&ObjectKey::new(pod.metadata.namespace.as_str(), owner.name));
        let job = job.filter(|job| job.metadata.uid.as_deref() == Some(owner.uid));
        job.is_none_or(|job| !is_foreign(&job) && status::is_finished(job.status.as_ref()))
    }
}

#[async_trait]
impl Controller for OrphanPods {
    fn name(&self) -> &'static str {
        "job-orphan-pod-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.pods, |change, wake| {
            if change.new.as_ref().is_some_and(|pod| is_tracked(pod)) {
                wake(change.key.clone());
            }
        });
        let pods = self.pods.clone();
        inputs.watch(&self.jobs, move |change, wake| {
            if change.new.as_ref().is_some_and(|job| !status::is_finished(job.status.as_ref())) {
                return;
            }
            let job = change.new.as_ref().or(change.old.as_ref());
            let uid = job.and_then(|job| job.metadata.uid.as_deref()).unwrap_or_default();
            let snapshot = pods.snapshot();
            snapshot.indexed(BY_CONTROLLER, uid).filter(|p| is_tracked(p)).for_each(|p| wake(p.key()));
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        if let Some(pod) = self.pods.get(key).filter(|pod| is_tracked(pod) && self.is_orphan(pod)) {
            remove_finalizer(&pod, work).await?;
        }
        Ok(Done::Settled)
    }
}
