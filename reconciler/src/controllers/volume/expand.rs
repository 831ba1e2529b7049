//! Claims that ask for more than they have. Volumes are resized by their drivers' own controllers; what is left to do
//! here is to tell the user whom the claim waits for.

use api_client::events::ObjectReference;
use api_client::{Cache, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{annotations, claim_of, requested, storage};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::annotation_of;

pub struct Expansion {
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
}

impl Expansion {
    pub fn new(caches: &Caches) -> Self {
        Self { claims: caches.get(), volumes: caches.get() }
    }
}

#[async_trait]
impl Controller for Expansion {
    fn name(&self) -> &'static str {
        "persistentvolume-expander-controller"
    }

    fn queue(&self) -> &'static str {
        "volume_expand"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.claims, |change, wake| {
            let Some(new) = &change.new else { return };
            let before = change.old.as_ref().map(|old| requested(old)).unwrap_or_default();
            let bound = new.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            if bound && requested(new) > before {
                wake(change.key.clone());
            }
        });
        inputs.read(&self.volumes);
    }

    fn outputs(&self) -> &'static [Output] {
        &[]
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Done::Settled) };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Done::Settled) };
        if waits(&claim, &volume) {
            let message = "waiting for an external controller to expand this PVC";
            work.recorder().normal(ObjectReference::to(&*claim), "ExternalExpanding", message);
        }
        Ok(Done::Settled)
    }
}

/// Whether a claim waits for its volume to grow.
fn waits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let bound = claim_of(volume).is_some_and(|r| r.uid == claim.metadata.uid);
    let has = storage(claim.status.as_ref().and_then(|s| s.capacity.as_ref()));
    bound && (requested(claim) > has || annotation_of(&volume.metadata, annotations::PRE_RESIZE_CAPACITY).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_waits_while_it_asks_for_more_than_it_has() {
        let check = |asked: &str, has: &str, uid: &str, expected: bool| {
            let claim = json!({
                "metadata": {"uid": "u"},
                "spec": {"resources": {"requests": {"storage": asked}}},
                "status": {"capacity": {"storage": has}},
            });
            let volume = json!({"spec": {"claimRef": {"uid": uid}}});
            let (claim, volume) = (serde_json::from_value(claim).unwrap(), serde_json::from_value(volume).unwrap());
            assert_eq!(waits(&claim, &volume), expected, "{asked} of {has}");
        };
        check("2Gi", "1Gi", "u", true);
        check("1Gi", "1024Mi", "u", false);
        check("2Gi", "1Gi", "other", false);
    }
}
