//! The StatefulSet controller: pods with names, places and claims that last.

mod identity;
pub mod plan;
mod retention;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, DeleteParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use identity::Set;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use plan::{Group, Input, Plan, Revision, Step};

use super::history::{self, plan as revisions};
use super::{claim, pods};
use crate::engine::{Ages, Caches, Clock, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, ORPHANS, Owner, Pod, compile, selects};

pub struct StatefulSets {
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    revisions: Cache<ControllerRevision>,
    /// Since when pods are ready.
    ages: Arc<Ages>,
}

impl StatefulSets {
    pub fn new(caches: &Caches) -> Self {
        Self {
            sets: caches.get(),
            pods: caches.get(),
            claims: caches.get(),
            revisions: caches.get(),
            ages: Arc::default(),
        }
    }
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.sets);
        let selector = |set: &StatefulSet| compile(set.spec.as_ref().map(|s| &s.selector));
        let sets = self.sets.clone();
        let ages = self.ages.clone();
        inputs.watch(&self.pods, move |change, wake| {
            pods::forget(&ages, change);
            claim::wake_owners(&sets, selector, change, wake);
        });
        let sets = self.sets.clone();
        inputs.watch(&self.revisions, move |change, wake| claim::wake_owners(&sets, selector, change, wake));
        let sets = self.sets.clone();
        inputs.watch(&self.claims, move |change, wake| wake_user(&sets, change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::shared("", "pods"),
            Output::shared("", "persistentvolumeclaims"),
            Output::shared("apps", "controllerrevisions"),
            Output::exclusive("apps", "statefulsets/status"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(object) = self.sets.get(key) else { return Ok(Done::Settled) };
        let Some(set) = Set::of(&object) else { return Ok(Done::Settled) };
        let owner = Owner::of(&*object);
        let history = self.claim_revisions(key, work, &set, &owner).await?;
        let pods = self.claim_pods(key, work, &set, &owner).await?;

        let mut subject = revisions::Subject {
            owner,
            namespace: set.namespace(),
            annotations: object.metadata.annotations.as_ref(),
            template: &set.spec.template,
            hash_label: revisions::HASH_LABEL,
            collisions: object.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default(),
        };
        let update = match revisions::update(&subject, &history) {
            revisions::Update::Unchanged(revision) => revision,
            // A set on its way out makes no history.
            _ if subject.owner.deleting => return Ok(Done::Settled),
            _ => history::ensure(work, &mut subject, &history).await?,
        };
        let named = object.status.as_ref().and_then(|s| s.current_revision.as_ref());
        let current = history.iter().find(|r| r.metadata.name.as_ref() == named).unwrap_or(&update);

        let plan = self.plan(&set, &pods, current, &update, subject.collisions, work)?;
        let acted = act(work, &set, &plan).await;
        if let Some(patch) = plan.status {
            work.patch_status::<StatefulSet>(key, &Patch::Merge(patch)).await?;
        }
        let mut live: HashSet<&str> = pods.iter().map(|pod| plan::revision_of(pod)).collect();
        live.extend([current, &update].into_iter().filter_map(|r| r.metadata.name.as_deref()));
        let excess = revisions::excess(&history, &live, set.spec.revision_history_limit, false);
        history::delete(work, &excess).await?;
        acted?;
        Ok(Done::after(plan.check_after))
    }
}

impl StatefulSets {
    /// The set's revisions, oldest first.
    async fn claim_revisions(
        &self,
        key: &ObjectKey,
        work: &Work,
        set: &Set<'_>,
        owner: &Owner,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let snapshot = self.revisions.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let selector = compile(Some(&set.spec.selector));
        let matching = candidates.filter(|revision| selects(&selector, &***revision));
        let mut claimed = claim::claim(owner, &selector, matching);
        claim::enforce::<ControllerRevision, StatefulSet>(work, owner, key, &claimed).await?;
        revisions::sort(&mut claimed.owned);
        Ok(claimed.owned)
    }

    async fn claim_pods(
        &self,
        key: &ObjectKey,
        work: &Work,
        set: &Set<'_>,
        owner: &Owner,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let snapshot = self.pods.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let selector = compile(Some(&set.spec.selector));
        let matches = |pod: &Pod| selects(&selector, pod) && set.is_member(&pod.metadata.name);
        let claimed = claim::claim_where(owner, matches, candidates);
        claim::enforce::<Pod, StatefulSet>(work, owner, key, &claimed).await?;
        Ok(claimed.owned)
    }

    fn plan(
        &self,
        set: &Set<'_>,
        pods: &[Arc<Pod>],
        current: &ControllerRevision,
        update: &ControllerRevision,
        collisions: i32,
        work: &Work,
    ) -> Result<Plan, Error> {
        let claims = self.claims.snapshot();
        let claim = |name: &str| claims.get(&ObjectKey::new(set.namespace(), name)).cloned();
        let (current_template, update_template) = (template(current)?, template(update)?);
        let named = |revision: &'_ ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
        let (current, update) = (named(current), named(update));
        Ok(plan::plan(&Input {
            set: set.object,
            pods,
            claim: &claim,
            current: Revision { name: &current, template: &current_template },
            update: Revision { name: &update, template: &update_template },
            collisions,
            clock: Clock::new(work.now(), &self.ages),
        }))
    }
}

fn template(revision: &ControllerRevision) -> Result<PodTemplateSpec, Error> {
    revisions::template_of(revision).ok_or_else(|| Error::Object {
        object: format!("ControllerRevision {}", revision.key()),
        why: "keeps no pod template".into(),
    })
}

/// Does the stages in order. A failure ends the work after the groups that run beside it.
async fn act(work: &Work, set: &Set<'_>, plan: &Plan) -> Result<(), Error> {
    for stage in &plan.stages {
        if set.is_parallel() {
            pods::in_growing_batches(stage, |group| run(work, set, group)).await?;
        } else {
            for group in stage {
                run(work, set, group).await?;
            }
        }
    }
    Ok(())
}

async fn run(work: &Work, set: &Set<'_>, group: &Group) -> Result<(), Error> {
    for step in group {
        run_step(work, set, step).await?;
    }
    Ok(())
}

async fn run_step(work: &Work, set: &Set<'_>, step: &Step) -> Result<(), Error> {
    let namespace = set.namespace();
    match step {
        Step::CreateClaim { pod, name, object } => {
            let created = work.create::<PersistentVolumeClaim>(namespace, object).await;
            let is_late = |e: &Error| matches!(e, Error::Api(e) if e.is_already_exists());
            if created.as_ref().is_err_and(|e| is_late(e) || e.is_namespace_ending()) {
                // The cache is behind, and the next look takes the claim as it is; or there is no next look.
                return created.map(drop);
            }
            report_claim(work, set, pod, name, created.as_ref().err());
            created.map(drop).inspect_err(|e| report(work, set, "create", pod, Some(e)))
        }
        Step::OwnClaim { pod, key, patch } => {
            let owned = work.patch::<PersistentVolumeClaim>(key, &Patch::Merge(patch.clone())).await;
            owned.map(drop).inspect_err(|e| report(work, set, "update", pod, Some(e)))
        }
        Step::CreatePod { name, object } => match work.create::<Pod>(namespace, object).await {
            Err(Error::Api(e)) if e.is_already_exists() => Err(e.into()),
            Err(e) if e.is_namespace_ending() => Ok(()),
            created => {
                report(work, set, "create", name, created.as_ref().err());
                created.map(drop)
            }
        },
        Step::PatchPod { key, patch } => {
            let patched = work.patch::<Pod>(key, &Patch::Merge(patch.clone())).await;
            report(work, set, "update", &key.name, patched.as_ref().err());
            patched.map(drop)
        }
        Step::DeletePod(pod) => {
            let deleted = work.delete::<Pod>(&pod.key(), &pod.metadata.uid, DeleteParams::default()).await;
            report(work, set, "delete", &pod.metadata.name, deleted.as_ref().err());
            deleted
        }
        Step::Warn { reason, message } => {
            work.recorder().warning(ObjectReference::to(set.object), reason, message.as_str());
            Ok(())
        }
        Step::Fail { verb, pod, why } => {
            let error = Error::Object { object: format!("Pod {namespace}/{pod}"), why: why.clone() };
            report(work, set, verb, pod, Some(&error));
            Err(error)
        }
    }
}

/// The events of `recordPodEvent`.
fn report(work: &Work, set: &Set<'_>, verb: &str, pod: &str, error: Option<&Error>) {
    let regarding = ObjectReference::to(set.object);
    let (verb, name) = (capitalized(verb), set.name());
    match error {
        None => {
            let message = format!("{verb} Pod {pod} in StatefulSet {name} successful");
            work.recorder().normal(regarding, &format!("Successful{verb}"), message);
        }
        Some(error) => {
            let message = format!("{verb} Pod {pod} in StatefulSet {name} failed error: {error}");
            work.recorder().warning(regarding, &format!("Failed{verb}"), message);
        }
    }
}

/// The events of `recordClaimEvent`.
fn report_claim(work: &Work, set: &Set<'_>, pod: &str, claim: &str, error: Option<&Error>) {
    let regarding = ObjectReference::to(set.object);
    let name = set.name();
    match error {
        None => {
            let message = format!("Create Claim {claim} Pod {pod} in StatefulSet {name} success");
            work.recorder().normal(regarding, "SuccessfulCreate", message);
        }
        Some(error) => {
            let message = format!("Create Claim {claim} for Pod {pod} in StatefulSet {name} failed error: {error}");
            work.recorder().warning(regarding, "FailedCreate", message);
        }
    }
}

fn capitalized(verb: &str) -> String {
    let mut letters = verb.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A claim that is gone wakes the set that may need it again.
fn wake_user(sets: &Cache<StatefulSet>, change: &Change<PersistentVolumeClaim>, wake: &dyn Fn(ObjectKey)) {
    if change.new.is_some() {
        return;
    }
    for set in sets.snapshot().namespace(&change.key.namespace) {
        let Some(view) = Set::of(set) else { continue };
        let Some(ordinal) = identity::ordinal(&change.key.name) else { return };
        if view.claim_templates().iter().any(|template| view.claim_name(template, ordinal) == change.key.name) {
            wake(set.key());
        }
    }
}
