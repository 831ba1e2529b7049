//! The persistent volume binder. Keys are those of claims and, without a namespace, of volumes.

mod find;
pub mod plan;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::{Cache, Change, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use plan::{ForClaim, ForVolume};
use steps::Step;

use super::{claim_of, claims_of, key_of};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_VOLUME, Pod, UNBOUND_BY_CLASS, annotation_of, class_value};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub struct Binder {
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    pods: Cache<Pod>,
}

impl Binder {
    pub fn new(caches: &Caches) -> Self {
        Self { claims: caches.get(), volumes: caches.get(), classes: caches.get(), pods: caches.get() }
    }
}

#[async_trait]
impl Controller for Binder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder-controller"
    }

    fn queue(&self) -> &'static str {
        "claims"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.claims);
        inputs.primary(&self.volumes);
        inputs.watch(&self.claims, |change, wake| {
            let volume = |claim: &Arc<PersistentVolumeClaim>| claim.spec.as_ref().and_then(|s| s.volume_name.clone());
            for name in [&change.old, &change.new].into_iter().flatten().filter_map(volume) {
                wake(ObjectKey::new("", name));
            }
        });
        let claims = self.claims.clone();
        inputs.watch(&self.volumes, move |change, wake| wake_claims(&claims, change, wake));
        let claims = self.claims.clone();
        inputs.watch(&self.classes, move |_, wake| {
            claims.snapshot().iter().filter(|claim| !is_bound(claim)).for_each(|claim| wake(claim.key()));
        });
        inputs.watch(&self.pods, |change, wake| {
            // A new pod may be the first consumer of a claim.
            let Some(pod) = change.new.as_ref().filter(|_| change.old.is_none()) else { return };
            claims_of(pod).for_each(|name| wake(ObjectKey::new(change.key.namespace.as_str(), name)));
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::shared("", "persistentvolumeclaims"),
            Output::exclusive("", "persistentvolumeclaims/status"),
            Output::shared("", "persistentvolumes"),
            Output::exclusive("", "persistentvolumes/status"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let steps = if key.namespace.is_empty() { self.volume(key, work).await? } else { self.claim(key) };
        for step in steps {
            act(work, step).await?;
        }
        Ok(Done::Settled)
    }
}

impl Binder {
    fn claim(&self, key: &ObjectKey) -> Vec<Step> {
        let Some(claim) = self.claims.get(key) else { return Vec::new() };
        let volumes = self.volumes.snapshot();
        let classes = self.classes.snapshot();
        let is_default = |class: &&Arc<StorageClass>| {
            DEFAULT_CLASS.iter().any(|name| annotation_of(&class.metadata, name) == Some("true"))
        };
        let newest = |class: &&Arc<StorageClass>| class.metadata.creation_timestamp.clone();
        let default = classes.iter().filter(is_default).max_by_key(newest);
        let pods = self.pods.snapshot();
        let waits =
            |pod: &&Arc<Pod>| pod.spec.node_name.is_empty() && pod.is_active() && claims_of(pod).any(|c| c == key.name);
        let waiting = pods.namespace(&key.namespace).find(waits);
        plan::claim(&ForClaim {
            claim: &claim,
            volumes: &volumes,
            class: &|name| classes.get(&ObjectKey::new("", name)).cloned(),
            default_class: default.and_then(|class| class.metadata.name.as_deref()),
            waiting_pod: waiting.map(|pod| pod.metadata.name.as_str()),
        })
    }

    async fn volume(&self, key: &ObjectKey, work: &Work) -> Result<Vec<Step>, Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Vec::new()) };
        let claim = match claim_of(&volume).filter(|r| r.uid.is_some()) {
            None => None,
            Some(reference) => {
                let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid == reference.uid;
                let claim_key = key_of(reference);
                match self.claims.get(&claim_key).filter(|claim| is_it(claim)) {
                    Some(claim) => Some(claim),
                    // A volume is not released because of a cache that is behind.
                    None => {
                        let live = work.live::<PersistentVolumeClaim>().find(&claim_key).await?;
                        live.filter(|claim| is_it(claim)).map(Arc::new)
                    }
                }
            }
        };
        let (mut steps, half_done) = plan::volume(&ForVolume { volume: &volume, claim: claim.as_deref() });
        if let Some(claim) = half_done {
            steps.extend(self.claim(&claim));
        }
        Ok(steps)
    }
}

async fn act(work: &Work, step: Step) -> Result<(), Error> {
    match step {
        Step::Volume { key, patch } => work.patch::<PersistentVolume>(&key, &Patch::Merge(patch)).await.map(drop),
        Step::VolumeStatus { key, patch } => {
            work.patch_status::<PersistentVolume>(&key, &Patch::Merge(patch)).await.map(drop)
        }
        Step::Claim { key, patch } => work.patch::<PersistentVolumeClaim>(&key, &Patch::Merge(patch)).await.map(drop),
        Step::ClaimStatus { key, patch } => {
            work.patch_status::<PersistentVolumeClaim>(&key, &Patch::Merge(patch)).await.map(drop)
        }
        Step::Event { regarding, warning: true, reason, message } => {
            work.recorder().warning(regarding, reason, message);
            Ok(())
        }
        Step::Event { regarding, warning: false, reason, message } => {
            work.recorder().normal(regarding, reason, message);
            Ok(())
        }
    }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

/// A volume wakes the claim it is bound to or asked for by; a free one, all that might take it.
fn wake_claims(claims: &Cache<PersistentVolumeClaim>, change: &Change<PersistentVolume>, wake: &dyn Fn(ObjectKey)) {
    for volume in [&change.old, &change.new].into_iter().flatten() {
        if let Some(reference) = claim_of(volume) {
            wake(key_of(reference));
        }
    }
    let claims = claims.snapshot();
    claims.indexed(BY_VOLUME, &change.key.name).for_each(|claim| wake(claim.key()));
    if let Some(volume) = change.new.as_ref().filter(|volume| claim_of(volume).is_none()) {
        let class = class_value(super::class_of_volume(volume));
        claims.indexed(UNBOUND_BY_CLASS, class).for_each(|claim| wake(claim.key()));
    }
}
