//! The ReplicaSet controller: keeps as many pods as asked for.

pub mod plan;
pub mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, Object, ObjectKey, Patch, Snapshot};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use super::{claim, pods};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_CONTROLLER, ORPHANS, Owner, Pod, compile, controller_of, selects};

pub struct ReplicaSets {
    replica_sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

impl ReplicaSets {
    pub fn new(caches: &Caches) -> Self {
        Self { replica_sets: caches.get(), pods: caches.get() }
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.replica_sets);
        let replica_sets = self.replica_sets.clone();
        inputs.watch(&self.pods, move |change, wake| wake_owners(&replica_sets, change, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods"), Output::exclusive("apps", "replicasets/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(replica_set) = self.replica_sets.get(key) else { return Ok(Done::Settled) };
        let owner = Owner::of(&*replica_set);
        let wanted = wanted(&replica_set);
        let selector = compile(replica_set.spec.as_ref().map(|s| &s.selector));
        let snapshot = self.pods.snapshot();
        let candidates = snapshot.indexed(BY_CONTROLLER, &owner.uid).chain(snapshot.indexed(ORPHANS, &key.namespace));
        let candidates: Vec<Arc<Pod>> = candidates.filter(|p| !p.is_terminal()).cloned().collect();
        let active = claim::claim(&owner, &selector, candidates.iter().filter(|p| p.is_active()));
        let terminating = candidates.iter().filter(|p| p.is_terminating() && selects(&selector, &***p));
        let terminating = terminating.filter(|p| p.metadata.controller().is_some()).count();
        claim::enforce::<Pod, ReplicaSet>(work, &owner, key, &active).await?;

        let now = work.now();
        let regarding = ObjectReference::to(&*replica_set);
        let change = plan::replicas(&wanted, &active.owned, &self.related(&replica_set, &snapshot), now);
        let acted = match &change {
            plan::Change::Nothing => Ok(()),
            plan::Change::Create(count) => {
                let template = replica_set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
                let pod = pods::from_template(&template, &owner);
                pods::create(work, &regarding, &key.namespace, &pod, *count).await
            }
            plan::Change::Delete(doomed) => pods::delete(work, &regarding, doomed).await,
        };
        let failure = acted.as_ref().err().map(|e| plan::Failure { message: e.to_string() });
        let old = status_of(replica_set.status.as_ref());
        let new = plan::status(&wanted, &old, &active.owned, terminating, failure.as_ref(), now);
        if new != old {
            work.patch_status::<ReplicaSet>(key, &Patch::Merge(new.patch())).await?;
        }
        acted?;
        Ok(Done::after(plan::next_check(&wanted, &active.owned, now)))
    }
}

impl ReplicaSets {
    /// The pods of all replica sets with the same controlling owner (`getIndirectlyRelatedPods`).
    fn related(&self, replica_set: &ReplicaSet, pods: &Snapshot<Pod>) -> Vec<Arc<Pod>> {
        let own_uid = replica_set.metadata.uid.as_deref().unwrap_or_default();
        let Some(parent) = controller_of(&replica_set.metadata) else {
            return pods.indexed(BY_CONTROLLER, own_uid).cloned().collect();
        };
        let siblings = self.replica_sets.snapshot();
        let siblings = siblings.indexed(BY_CONTROLLER, &parent.uid);
        siblings
            .flat_map(|sibling| {
                let uid = sibling.metadata.uid.as_deref().unwrap_or_default();
                pods.indexed(BY_CONTROLLER, uid).cloned().collect::<Vec<_>>()
            })
            .collect()
    }
}

fn wanted(replica_set: &ReplicaSet) -> plan::Wanted {
    let spec = replica_set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels);
    plan::Wanted {
        replicas: spec.replicas.unwrap_or(1),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
        template_labels: labels.unwrap_or_default(),
        generation: replica_set.metadata.generation.unwrap_or_default(),
        deleting: replica_set.metadata.deletion_timestamp.is_some(),
    }
}

fn status_of(status: Option<&ReplicaSetStatus>) -> plan::Status {
    let status = status.cloned().unwrap_or_default();
    let condition = |c: k8s_openapi::api::apps::v1::ReplicaSetCondition| plan::Condition {
        kind: c.type_,
        status: c.status,
        reason: c.reason.unwrap_or_default(),
        message: c.message.unwrap_or_default(),
        last_transition_time: c.last_transition_time.map(|t| t.0),
    };
    plan::Status {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas.unwrap_or_default(),
        ready_replicas: status.ready_replicas.unwrap_or_default(),
        available_replicas: status.available_replicas.unwrap_or_default(),
        terminating_replicas: Some(status.terminating_replicas.unwrap_or_default()),
        observed_generation: status.observed_generation.unwrap_or_default(),
        conditions: status.conditions.unwrap_or_default().into_iter().map(condition).collect(),
    }
}

/// A pod wakes its controller; one without, all replica sets that might adopt it.
fn wake_owners(replica_sets: &Cache<ReplicaSet>, change: &Change<Pod>, wake: &dyn Fn(ObjectKey)) {
    let namespace = &change.key.namespace;
    let states = [&change.old, &change.new];
    let controllers = states.into_iter().flatten().filter_map(|pod| pod.metadata.controller());
    for owner in controllers.filter(|o| o.kind == ReplicaSet::KIND && o.api_version.starts_with("apps/")) {
        wake(ObjectKey::new(namespace.as_str(), owner.name.as_str()));
    }
    let orphan = change.new.as_ref().filter(|pod| pod.metadata.controller().is_none() && pod.is_active());
    if let Some(pod) = orphan {
        for candidate in replica_sets.snapshot().namespace(namespace) {
            if selects(&compile(candidate.spec.as_ref().map(|s| &s.selector)), &**pod) {
                wake(candidate.key());
            }
        }
    }
}
