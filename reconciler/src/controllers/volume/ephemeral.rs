//! Claims of generic ephemeral volumes: made for one pod, owned by it, gone with it.

use api_client::events::ObjectReference;
use api_client::{Cache, Object, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate};
use serde_json::{Value, json};

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{ClaimSource, Owner, Pod, controller_of};

pub struct EphemeralVolumes {
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
}

impl EphemeralVolumes {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.get(), claims: caches.get() }
    }
}

fn has_ephemeral(pod: &Pod) -> bool {
    pod.spec.volumes.iter().any(|v| matches!(v.claim, ClaimSource::Ephemeral(_)))
}

#[async_trait]
impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn queue(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.pods, |change, wake| {
            if change.new.as_ref().is_some_and(|pod| has_ephemeral(pod) && !pod.metadata.is_deleting()) {
                wake(change.key.clone());
            }
        });
        inputs.watch(&self.claims, |change, wake| {
            // A claim that is gone is made again while its pod is there.
            let Some(claim) = change.old.as_ref().filter(|_| change.new.is_none()) else { return };
            if let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == Pod::KIND) {
                wake(ObjectKey::new(change.key.namespace.as_str(), owner.name.as_str()));
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "persistentvolumeclaims")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.metadata.is_deleting()) else {
            return Ok(Done::Settled);
        };
        let claims = self.claims.snapshot();
        for volume in &pod.spec.volumes {
            let ClaimSource::Ephemeral(template) = &volume.claim else { continue };
            let name = volume.claim_name(&pod.metadata.name);
            match claims.get(&ObjectKey::new(key.namespace.as_str(), name.as_str())) {
                Some(claim) if controller_of(&claim.metadata).is_some_and(|o| o.uid == pod.metadata.uid) => {}
                Some(_) => return Err(foreign(&pod, &name, work)),
                None => {
                    let claim = claim(&Owner::of(&*pod), &name, template);
                    let created = work.create::<PersistentVolumeClaim>(&key.namespace, &claim).await;
                    let tell = |error: &Error| failed(&pod, &error.to_string(), work);
                    created.inspect_err(|error| {
                        if !error.is_namespace_ending() {
                            tell(error)
                        }
                    })?;
                }
            }
        }
        Ok(Done::Settled)
    }
}

fn claim(owner: &Owner, name: &str, template: &PersistentVolumeClaimTemplate) -> Value {
    let metadata = template.metadata.clone().unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "labels": metadata.labels, "annotations": metadata.annotations,
            "ownerReferences": [owner.reference()],
        },
        "spec": template.spec,
    })
}

/// A claim of this name that belongs to somebody else must not be used (`ephemeral.VolumeIsForPod`).
fn foreign(pod: &Pod, name: &str, work: &Work) -> Error {
    let why = format!(
        "PVC {}/{name} was not created for pod {} (pod is not owner)",
        pod.metadata.namespace,
        pod.metadata.key()
    );
    failed(pod, &why, work);
    Error::Object { object: format!("Pod {}", pod.metadata.key()), why }
}

fn failed(pod: &Pod, why: &str, work: &Work) {
    work.recorder().warning(ObjectReference::to(pod), "FailedBinding", format!("ephemeral volume controller: {why}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_is_the_pods_own() {
        let owner = Owner::of(&serde_json::from_value::<Pod>(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap());
        let template = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast"},
        });
        let claim = claim(&owner, "p-scratch", &serde_json::from_value(template).unwrap());
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let controller = controller_of(&claim.metadata).unwrap();
        assert_eq!((controller.kind.as_str(), controller.name.as_str(), controller.uid.as_str()), ("Pod", "p", "u"));
        assert_eq!(claim.metadata.name.as_deref(), Some("p-scratch"));
        assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("fast"));
    }
}
