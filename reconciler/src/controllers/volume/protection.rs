//! Claims and volumes in use are not deleted: each carries a finalizer, which goes when it is being deleted and nobody
//! uses it any more (`pvcprotection`, `pvprotection`).

use std::sync::Arc;

use api_client::{Cache, ListParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::claims_of;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{ClaimSource, Pod, controller_of};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The patch of an object's finalizers, where one is needed: added while the object lives, taken off when it is being
/// deleted and unused. `is_used` is asked only then.
fn finalizers(metadata: &ObjectMeta, finalizer: &str, is_used: impl FnOnce() -> bool) -> Option<Value> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|f| f == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !is_used() => finalizers.retain(|f| f != finalizer),
        _ => return None,
    }
    Some(json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}}))
}

/// Whether a pod keeps a claim. One without a node doesn't: the agent starts no pod with a claim on its way out.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owns = || controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.metadata.uid);
    !pod.spec.node_name.is_empty()
        && pod.spec.volumes.iter().any(|volume| match &volume.claim {
            ClaimSource::Named(named) => named == name,
            // Of a pod that ended the claim is of no use any more.
            ClaimSource::Ephemeral(_) => volume.claim_name(&pod.metadata.name) == name && !pod.is_terminal() && owns(),
        })
}

pub struct ClaimProtection {
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
}

impl ClaimProtection {
    pub fn new(caches: &Caches) -> Self {
        Self { claims: caches.get(), pods: caches.get() }
    }
}

#[async_trait]
impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn queue(&self) -> &'static str {
        "pvcprotection"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.claims);
        inputs.watch(&self.pods, |change, wake| {
            // Only a pod that is gone or has ended lets go of claims.
            let holds = change.new.as_ref().is_some_and(|pod| !pod.is_terminal());
            if let Some(pod) = change.new.as_ref().or(change.old.as_ref()).filter(|_| !holds) {
                claims_of(pod).for_each(|name| wake(ObjectKey::new(change.key.namespace.as_str(), name)));
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "persistentvolumeclaims")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Done::Settled) };
        let pods = self.pods.snapshot();
        let is_used = || pods.namespace(&key.namespace).any(|pod| uses(pod, &claim));
        let Some(patch) = finalizers(&claim.metadata, CLAIM_FINALIZER, is_used) else { return Ok(Done::Settled) };
        if claim.metadata.deletion_timestamp.is_some() {
            // The cache may not know the pod yet that was bound a moment ago.
            let live = work.live::<Pod>().list(&ListParams::namespace(key.namespace.as_str())).await?;
            if live.items.iter().any(|pod| uses(pod, &claim)) {
                return Ok(Done::Settled);
            }
        }
        work.patch::<PersistentVolumeClaim>(key, &Patch::Merge(patch)).await?;
        Ok(Done::Settled)
    }
}

pub struct VolumeProtection {
    volumes: Cache<PersistentVolume>,
}

impl VolumeProtection {
    pub fn new(caches: &Caches) -> Self {
        Self { volumes: caches.get() }
    }
}

#[async_trait]
impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn queue(&self) -> &'static str {
        "pvprotection"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.volumes);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "persistentvolumes")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(volume): Option<Arc<PersistentVolume>> = self.volumes.get(key) else { return Ok(Done::Settled) };
        let is_bound = || volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if let Some(patch) = finalizers(&volume.metadata, VOLUME_FINALIZER, is_bound) {
            work.patch::<PersistentVolume>(&volume.key(), &Patch::Merge(patch)).await?;
        }
        Ok(Done::Settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_comes_at_once_and_goes_when_nobody_uses_it() {
        let check = |deleting: bool, present: &[&str], used: bool, expected: Option<&[&str]>| {
            let mut metadata = json!({"finalizers": present});
            if deleting {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            let patch = finalizers(&metadata, "f", || used);
            assert_eq!(patch.map(|p| p["metadata"]["finalizers"].clone()), expected.map(|e| json!(e)));
        };
        check(false, &[], true, Some(&["f"]));
        check(false, &["f"], false, None);
        check(true, &["f", "g"], true, None);
        check(true, &["f", "g"], false, Some(&["g"]));
        check(true, &[], false, None);
    }

    #[test]
    fn a_claim_is_used_by_pods_that_have_a_node() {
        let check = |spec: Value, phase: &str, expected: bool| {
            let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
            let claim = json!({"metadata": {"name": "p-data", "ownerReferences": owner}});
            let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": {"phase": phase}});
            let (pod, claim) = (serde_json::from_value(pod).unwrap(), serde_json::from_value(claim).unwrap());
            assert_eq!(uses(&pod, &claim), expected, "{spec}");
        };
        let named = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "p-data"}}]);
        let ephemeral = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        check(json!({"volumes": named}), "Pending", false);
        check(json!({"nodeName": "n", "volumes": named}), "Running", true);
        check(json!({"nodeName": "n", "volumes": named}), "Succeeded", true);
        check(json!({"nodeName": "n", "volumes": ephemeral}), "Running", true);
        check(json!({"nodeName": "n", "volumes": ephemeral}), "Succeeded", false);
        check(json!({"nodeName": "n"}), "Running", false);
    }
}
