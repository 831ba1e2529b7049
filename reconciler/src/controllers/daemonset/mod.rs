//! The DaemonSet controller: a pod on every node that is meant to have one.

mod backoff;
mod place;
pub mod plan;
mod roll;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use api_client::events::ObjectReference;
use api_client::{Cache, Change, Object, ObjectKey, Patch};
use async_trait::async_trait;
use backoff::Backoff;
use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use place::Place;
use plan::{Input, Plan};
use serde_json::json;

use super::history::{self, plan as revisions};
use super::{claim, pods};
use crate::engine::{Ages, Caches, Clock, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, Node, ORPHANS, Owned, Owner, Pod, compile, label_of};

pub struct DaemonSets {
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    revisions: Cache<ControllerRevision>,
    failed: Mutex<Backoff>,
    /// Since when pods are ready.
    ages: Arc<Ages>,
}

impl DaemonSets {
    pub fn new(caches: &Caches) -> Self {
        Self {
            sets: caches.get(),
            pods: caches.get(),
            nodes: caches.get(),
            revisions: caches.get(),
            failed: Mutex::default(),
            ages: Arc::default(),
        }
    }
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.sets);
        let selector = |set: &DaemonSet| compile(set.spec.as_ref().map(|s| &s.selector));
        let sets = self.sets.clone();
        let ages = self.ages.clone();
        inputs.watch(&self.pods, move |change, wake| {
            pods::forget(&ages, change);
            claim::wake_owners(&sets, selector, change, wake);
        });
        let sets = self.sets.clone();
        inputs.watch(&self.revisions, move |change, wake| {
            if !is_new_of_owner(change) {
                claim::wake_owners(&sets, selector, change, wake);
            }
        });
        let sets = self.sets.clone();
        inputs.watch(&self.nodes, move |change, wake| wake_all(&sets, change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::shared("", "pods"),
            Output::shared("apps", "controllerrevisions"),
            Output::exclusive("apps", "daemonsets/status"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(set) = self.sets.get(key) else { return Ok(Done::Settled) };
        let Some(spec) = &set.spec else { return Ok(Done::Settled) };
        if spec.selector == LabelSelector::default() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            work.recorder().warning(ObjectReference::to(&*set), "SelectingAll", message);
            return Ok(Done::Settled);
        }
        if set.metadata.deletion_timestamp.is_some() {
            // Its history may be gone before it; nothing true can be said about its pods any more.
            return Ok(Done::Settled);
        }
        let owner = Owner::of(&*set);
        let history = self.claim_revisions(key, work, spec, &owner).await?;
        let pods = self.claim_pods(key, work, spec, &owner).await?;
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let mut subject = revisions::Subject {
            owner,
            namespace: &key.namespace,
            annotations: set.metadata.annotations.as_ref(),
            template: &spec.template,
            hash_label: revisions::REVISION_LABEL,
            collisions: collisions.unwrap_or_default(),
        };
        let history = deduplicate(work, &subject, history, &pods).await?;
        let current = history::ensure(work, &mut subject, &history).await?;
        let collisions = collisions.or(Some(subject.collisions).filter(|c| *c > 0)).map(|_| subject.collisions);

        let plan = self.plan(&set, &pods, &current, collisions, work);
        let acted = self.act(work, &set, &current, &plan).await;
        if let Some(patch) = &plan.status {
            work.patch_status::<DaemonSet>(key, &Patch::Merge(patch.clone())).await?;
        }
        acted?;
        let old: Vec<_> = history.into_iter().filter(|r| r.metadata.name != current.metadata.name).collect();
        let live: HashSet<&str> = pods.iter().filter_map(|pod| hash_of(pod)).collect();
        let excess = revisions::excess(&old, &live, spec.revision_history_limit, true);
        history::delete(work, &excess).await?;
        Ok(Done::after(plan.check_after))
    }
}

/// A new revision that has its owner wakes nobody (`addHistory`): mostly this controller made it, and somebody else's copy
/// of the current one may live until there is another reason to look.
fn is_new_of_owner(change: &Change<ControllerRevision>) -> bool {
    change.old.is_none() && change.new.as_ref().is_some_and(|revision| revision.controller().is_some())
}

impl DaemonSets {
    /// The set's revisions, oldest first, each with its hash as label.
    async fn claim_revisions(
        &self,
        key: &ObjectKey,
        work: &Work,
        spec: &DaemonSetSpec,
        owner: &Owner,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let snapshot = self.revisions.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let mut claimed = claim::claim(owner, &compile(Some(&spec.selector)), candidates);
        claim::enforce::<ControllerRevision, DaemonSet>(work, owner, key, &claimed).await?;
        for revision in &mut claimed.owned {
            if label_of(&revision.metadata, revisions::REVISION_LABEL).is_none() {
                // The name does as well as a hash, and can't collide.
                let labels = json!({revisions::REVISION_LABEL: revision.metadata.name});
                let patch = json!({"metadata": {"labels": labels}});
                *revision = Arc::new(work.patch(&revision.key(), &Patch::Merge(patch)).await?);
            }
        }
        revisions::sort(&mut claimed.owned);
        Ok(claimed.owned)
    }

    async fn claim_pods(
        &self,
        key: &ObjectKey,
        work: &Work,
        spec: &DaemonSetSpec,
        owner: &Owner,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let snapshot = self.pods.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let claimed = claim::claim(owner, &compile(Some(&spec.selector)), candidates);
        claim::enforce::<Pod, DaemonSet>(work, owner, key, &claimed).await?;
        Ok(claimed.owned)
    }

    fn plan(
        &self,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        current: &ControllerRevision,
        collisions: Option<i32>,
        work: &Work,
    ) -> Plan {
        let now = work.now();
        let nodes: Vec<Arc<Node>> = self.nodes.snapshot().iter().cloned().collect();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        plan::plan(&Input {
            set,
            place: &Place::of(set),
            nodes: &nodes,
            pods,
            hash: label_of(&current.metadata, revisions::REVISION_LABEL).unwrap_or_default(),
            generation: place::generation(set),
            collisions,
            failed_pause: &|node| failed.left(&failed_key(set, node), now),
            clock: Clock::new(now, &self.ages),
        })
    }

    async fn act(&self, work: &Work, set: &DaemonSet, current: &ControllerRevision, plan: &Plan) -> Result<(), Error> {
        let regarding = ObjectReference::to(set);
        for event in &plan.events {
            let (regarding, message) = (regarding.clone(), event.message.as_str());
            if event.warning {
                work.recorder().warning(regarding, event.reason, message);
            } else {
                work.recorder().normal(regarding, event.reason, message);
            }
        }
        for node in &plan.failed {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.note(failed_key(set, node), work.now());
        }
        let (place, owner) = (Place::of(set), Owner::of(set));
        let hash = label_of(&current.metadata, revisions::REVISION_LABEL).unwrap_or_default();
        let generation = place::generation(set);
        let nodes = &plan.create[..plan.create.len().min(pods::BURST_PODS)];
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let made = pods::in_growing_batches(nodes, |node| {
            let pod = place.pod(&owner, node, hash, generation);
            let regarding = &regarding;
            async move { pods::create_one(work, regarding, namespace, &pod).await }
        });
        // Both go on though the other fails.
        let (made, deleted) = futures_util::join!(made, pods::delete(work, &regarding, &plan.delete));
        made.and(deleted)
    }
}

fn failed_key(set: &DaemonSet, node: &str) -> backoff::Key {
    backoff::Key {
        uid: set.metadata.uid.clone().unwrap_or_default(),
        generation: set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or_default(),
        node: node.to_owned(),
    }
}

fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.get(revisions::REVISION_LABEL).map(String::as_str)
}

/// Of several revisions with the present template only the newest stays; pods of the others become its own
/// (`dedupCurHistories`).
async fn deduplicate(
    work: &Work,
    subject: &revisions::Subject<'_>,
    mut history: Vec<Arc<ControllerRevision>>,
    pods: &[Arc<Pod>],
) -> Result<Vec<Arc<ControllerRevision>>, Error> {
    let mut same: Vec<_> = history.iter().filter(|r| revisions::keeps(r, subject.template)).cloned().collect();
    let Some(kept) = same.pop().filter(|_| !same.is_empty()) else { return Ok(history) };
    let hash = label_of(&kept.metadata, revisions::REVISION_LABEL).unwrap_or_default();
    let is_duplicate = |hash: &str| same.iter().any(|r| label_of(&r.metadata, revisions::REVISION_LABEL) == Some(hash));
    let patch = Patch::Merge(json!({"metadata": {"labels": {revisions::REVISION_LABEL: hash}}}));
    let stray = pods.iter().filter(|pod| hash_of(pod).is_some_and(is_duplicate));
    let keys: Vec<ObjectKey> = stray.map(|pod| pod.key()).collect();
    for patched in join_all(keys.iter().map(|key| work.patch::<Pod>(key, &patch))).await {
        patched?;
    }
    history::delete(work, &same).await?;
    history.retain(|r| !same.iter().any(|s| s.metadata.uid == r.metadata.uid));
    Ok(history)
}

/// A node that comes, goes, or changes what it takes wakes all daemon sets.
fn wake_all(sets: &Cache<DaemonSet>, change: &Change<Node>, wake: &dyn Fn(ObjectKey)) {
    let takes = |node: &Option<Arc<Node>>| node.as_ref().map(|n| (n.metadata.labels.clone(), n.spec.taints.clone()));
    if takes(&change.old) != takes(&change.new) {
        sets.snapshot().keys().for_each(|key| wake(key.clone()));
    }
}
