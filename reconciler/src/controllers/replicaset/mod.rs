//! The ReplicaSet and ReplicationController controllers: keep as many pods as asked for. One controller, over either
//! kind.

mod kind;
pub mod plan;
pub mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, ObjectKey, Patch, Snapshot};
use async_trait::async_trait;
pub use kind::Replicated;

use super::{claim, pods};
use crate::engine::{Ages, Caches, Clock, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, ORPHANS, Owner, Pod, controller_of, selects};

/// The controller of kind `K`.
pub struct Replicas<K> {
    owners: Cache<K>,
    pods: Cache<Pod>,
    /// Since when pods are ready.
    ages: Arc<Ages>,
}

impl<K: Replicated> Replicas<K> {
    pub fn new(caches: &Caches) -> Self {
        Self { owners: caches.get(), pods: caches.get(), ages: Arc::default() }
    }
}

#[async_trait]
impl<K: Replicated> Controller for Replicas<K> {
    fn name(&self) -> &'static str {
        K::CONTROLLER
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.owners);
        let owners = self.owners.clone();
        let ages = self.ages.clone();
        inputs.watch(&self.pods, move |change, wake| {
            pods::forget(&ages, change);
            claim::wake_owners(&owners, K::selector, change, wake);
        });
    }

    fn outputs(&self) -> &'static [Output] {
        K::OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(object) = self.owners.get(key) else { return Ok(Done::Settled) };
        let owner = Owner::of(&*object);
        let wanted = object.wanted();
        let selector = object.selector();
        let snapshot = self.pods.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let candidates: Vec<Arc<Pod>> = candidates.filter(|p| !p.is_terminal()).cloned().collect();
        let active = claim::claim(&owner, &selector, candidates.iter().filter(|p| p.is_active()));
        let terminating = candidates.iter().filter(|p| p.is_terminating() && selects(&selector, &***p));
        let terminating = terminating.filter(|p| p.metadata.controller().is_some()).count();
        claim::enforce::<Pod, K>(work, &owner, key, &active).await?;

        let now = work.now();
        let regarding = ObjectReference::to(&*object);
        let change = plan::replicas(&wanted, &active.owned, || self.related(&object, &snapshot), now);
        let acted = match &change {
            plan::Change::Nothing => Ok(()),
            plan::Change::Create(count) => {
                let pod = pods::from_template(&object.template().cloned().unwrap_or_default(), &owner);
                pods::create(work, &regarding, &key.namespace, &pod, *count).await
            }
            plan::Change::Delete(doomed) => pods::delete(work, &regarding, doomed).await,
        };
        let failure = acted.as_ref().err().map(|e| plan::Failure { message: e.to_string() });
        let old = object.status();
        let clock = Clock::new(now, &self.ages);
        let new = plan::status(&wanted, &old, &active.owned, terminating, failure.as_ref(), clock);
        if new != old {
            work.patch_status::<K>(key, &Patch::Merge(new.patch())).await?;
        }
        acted?;
        Ok(Done::after(plan::next_check(&wanted, &active.owned, clock)))
    }
}

impl<K: Replicated> Replicas<K> {
    /// The pods of all objects with the same controlling owner (`getIndirectlyRelatedPods`).
    fn related(&self, object: &K, pods: &Snapshot<Pod>) -> Vec<Arc<Pod>> {
        let uid = |object: &K| object.metadata().uid.clone().unwrap_or_default();
        let pods_of = |object: &K| pods.indexed(BY_CONTROLLER, &uid(object)).cloned().collect::<Vec<_>>();
        let Some(parent) = controller_of(object.metadata()) else { return pods_of(object) };
        let siblings = self.owners.snapshot();
        siblings.indexed(BY_CONTROLLER, &parent.uid).flat_map(|sibling| pods_of(sibling)).collect()
    }
}
