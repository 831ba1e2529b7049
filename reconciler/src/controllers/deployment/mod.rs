//! The Deployment controller: rolls a deployment's template out through replica sets.

pub mod plan;
mod replica_set;
mod report;
mod revision;
mod rollback;
mod rolling;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, DeleteParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use plan::Step;
use serde_json::{Value, json};

use super::{claim, template};
use crate::engine::{Ages, Caches, Clock, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, ORPHANS, Owned, Owner, Pod, compile, controller_of};

pub struct Deployments {
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    /// Since when rollouts have stood.
    ages: Arc<Ages>,
}

impl Deployments {
    pub fn new(caches: &Caches) -> Self {
        Self { deployments: caches.get(), replica_sets: caches.get(), pods: caches.get(), ages: Arc::default() }
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        let ages = self.ages.clone();
        inputs.watch(&self.deployments, move |change, _| {
            if let (Some(gone), None) = (&change.old, &change.new) {
                ages.forget(gone.metadata.uid.as_deref().unwrap_or_default());
            }
        });
        inputs.primary(&self.deployments);
        let deployments = self.deployments.clone();
        let selector = |d: &Deployment| compile(d.spec.as_ref().map(|s| &s.selector));
        inputs.watch(&self.replica_sets, move |change, wake| claim::wake_owners(&deployments, selector, change, wake));
        let replica_sets = self.replica_sets.clone();
        inputs.watch(&self.pods, move |change, wake| wake_recreating(&replica_sets, change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::exclusive("apps", "replicasets"),
            Output::exclusive("apps", "deployments/status"),
            // Rollbacks.
            Output::exclusive("apps", "deployments"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Done::Settled) };
        let regarding = ObjectReference::to(&*deployment);
        let selector = deployment.spec.as_ref().map(|s| &s.selector);
        if selector == Some(&LabelSelector::default()) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            work.recorder().warning(regarding, "SelectingAll", message);
            let observed = deployment.status.as_ref().and_then(|s| s.observed_generation);
            if observed < deployment.metadata.generation {
                let patch = json!({"status": {"observedGeneration": deployment.metadata.generation}});
                work.patch_status::<Deployment>(key, &Patch::Merge(patch)).await?;
            }
            return Ok(Done::Settled);
        }
        let owner = Owner::of(&*deployment);
        let snapshot = self.replica_sets.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let claimed = claim::claim(&owner, &compile(selector), candidates);
        claim::enforce::<ReplicaSet, Deployment>(work, &owner, key, &claimed).await?;

        if let Some(rollback) = rolls_back(&deployment).then(|| rollback::plan(&deployment, &claimed.owned)).flatten() {
            roll_back(work, key, regarding, rollback).await?;
            return Ok(Done::Settled);
        }
        let plan = self.plan(&deployment, claimed.owned, work.now());
        for step in plan.steps {
            act(work, &deployment, key, &regarding, step).await?;
        }
        if let Some(patch) = plan.status {
            work.patch_status::<Deployment>(key, &Patch::Merge(patch)).await?;
        }
        Ok(Done::after(plan.check_after))
    }
}

/// A paused deployment keeps the wish until it goes on.
fn rolls_back(deployment: &Deployment) -> bool {
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default();
    !paused && deployment.metadata.deletion_timestamp.is_none()
}

async fn roll_back(
    work: &Work,
    key: &ObjectKey,
    regarding: ObjectReference,
    rollback: rollback::Rollback,
) -> Result<(), Error> {
    work.patch::<Deployment>(key, &Patch::Json(rollback.patch)).await?;
    match rollback.done {
        true => work.recorder().normal(regarding, rollback.reason, rollback.message),
        false => work.recorder().warning(regarding, rollback.reason, rollback.message),
    }
    Ok(())
}

impl Deployments {
    fn plan(&self, deployment: &Deployment, replica_sets: Vec<Arc<ReplicaSet>>, now: Timestamp) -> plan::Plan {
        let pods = self.pods.snapshot();
        let running = |uid: &str| pods.indexed(BY_CONTROLLER, uid).any(|pod| !pod.is_terminal());
        let clock = Clock::new(now, &self.ages);
        plan::plan(&plan::Input { deployment, replica_sets, running: &running, clock })
    }
}

async fn act(
    work: &Work,
    deployment: &Deployment,
    key: &ObjectKey,
    regarding: &ObjectReference,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::Create { name, object } => create(work, deployment, key, regarding, &name, &object).await,
        Step::Patch { key, patch } => work.patch::<ReplicaSet>(&key, &Patch::Merge(patch)).await.map(drop),
        Step::Delete { key, uid } => work.delete::<ReplicaSet>(&key, &uid, DeleteParams::default()).await,
        Step::Event { reason, message } => {
            work.recorder().normal(regarding.clone(), reason, message);
            Ok(())
        }
    }
}

/// Creates the new replica set. If its name is taken by one of another template, the collision count is raised, which
/// gives another name at the next try.
async fn create(
    work: &Work,
    deployment: &Deployment,
    key: &ObjectKey,
    regarding: &ObjectReference,
    name: &str,
    object: &Value,
) -> Result<(), Error> {
    let error = match work.create::<ReplicaSet>(&key.namespace, object).await {
        Ok(_) => return Ok(()),
        Err(Error::Api(e)) if !e.is_namespace_terminating() => e,
        Err(e) => return Err(e),
    };
    if error.is_already_exists() {
        let taken = work.live::<ReplicaSet>().get(&ObjectKey::new(key.namespace.as_str(), name)).await?;
        if is_ours(deployment, &taken) {
            return Ok(());
        }
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default() + 1;
        let patch = json!({"status": {"collisionCount": collisions}});
        work.patch_status::<Deployment>(key, &Patch::Merge(patch)).await?;
    } else {
        let message = format!("Failed to create new replica set {name:?}: {error}");
        work.recorder().warning(regarding.clone(), status::CREATE_ERROR, message.clone());
        if status::progress_deadline(deployment).is_some() {
            let mut current = status::Status::of(deployment.status.as_ref());
            current.set(status::condition(status::PROGRESSING, "False", status::CREATE_ERROR, message, work.now()));
            let patch = json!({"status": {"conditions": current.conditions}});
            work.patch_status::<Deployment>(key, &Patch::Merge(patch)).await?;
        }
    }
    Err(error.into())
}

fn is_ours(deployment: &Deployment, taken: &ReplicaSet) -> bool {
    let templates = (taken.spec.as_ref().and_then(|s| s.template.as_ref()), deployment.spec.as_ref());
    let same = matches!(templates, (Some(a), Some(spec)) if template::equal(a, &spec.template));
    same && taken.controller_uid() == deployment.metadata.uid.as_deref()
}

/// The end of a pod wakes its deployment: one with strategy Recreate may be waiting for it.
fn wake_recreating(replica_sets: &Cache<ReplicaSet>, change: &Change<Pod>, wake: &dyn Fn(ObjectKey)) {
    let ended = change.new.as_ref().is_none_or(|pod| pod.is_terminal());
    let Some(pod) = change.old.as_ref().filter(|_| ended) else { return };
    let Some(owner) = pod.metadata.controller().filter(|o| o.kind == ReplicaSet::KIND) else { return };
    let set: Option<Arc<ReplicaSet>> = replica_sets.get(&ObjectKey::new(change.key.namespace.as_str(), &*owner.name));
    if let Some(deployment) = set.as_ref().and_then(|set| controller_of(&set.metadata)) {
        wake(ObjectKey::new(change.key.namespace.as_str(), deployment.name.as_str()));
    }
}
