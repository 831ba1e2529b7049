//! What a claim needs to be bound (`syncClaim`), and what becomes of a volume (`syncVolume`). Pure.
//!
//! A binding has two halves, the volume's `claimRef` and the claim's `volumeName`, written in this order and checked by
//! uid. Whatever is interrupted is finished at the next look.

use std::sync::Arc;

use api_client::{Object, ObjectKey, Snapshot};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::find;
use super::steps::{Step, bind, claim_phase, event_on_claim, volume_phase};
use crate::controllers::volume::{annotations, claim_of, class_of_claim};
use crate::objects::annotation_of;

/// Names of provisioners that upstream once had built in, and of the drivers that took their place.
const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];
/// Provisioners of this name are built in; here none is, but [`MIGRATED`] ones have a successor.
const BUILT_IN_PREFIX: &str = "kubernetes.io/";

/// What is known when a claim is looked at.
pub struct ForClaim<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: &'a Snapshot<PersistentVolume>,
    pub class: &'a dyn Fn(&str) -> Option<Arc<StorageClass>>,
    /// The class of claims that name none.
    pub default_class: Option<&'a str>,
    /// A pod that uses the claim and has no node yet.
    pub waiting_pod: Option<&'a str>,
}

pub fn claim(input: &ForClaim<'_>) -> Vec<Step> {
    let claim = input.claim;
    if annotation_of(&claim.metadata, annotations::BIND_COMPLETED).is_some() {
        return bound_claim(input);
    }
    match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|name| !name.is_empty()) {
        None => find_or_provision(input),
        Some(name) => requested_volume(input, name),
    }
}

fn volume_named<'a>(input: &'a ForClaim<'_>, name: &str) -> Option<&'a PersistentVolume> {
    input.volumes.get(&ObjectKey::new("", name)).map(|v| &**v)
}

/// A claim that takes what fits.
fn find_or_provision(input: &ForClaim<'_>) -> Vec<Step> {
    let claim = input.claim;
    let class = (input.class)(class_of_claim(claim));
    let waits = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = find::best(claim, input.volumes, waits) {
        return bind(volume, claim);
    }
    if let Some(steps) = default_class(input) {
        return steps;
    }
    let has_node = annotation_of(&claim.metadata, annotations::SELECTED_NODE).is_some();
    let mut steps = if waits && !has_node {
        vec![match input.waiting_pod {
            Some(pod) => {
                let message = format!("waiting for pod {pod} to be scheduled");
                event_on_claim(claim, false, "WaitForPodScheduled", message)
            }
            None => {
                let message = "waiting for first consumer to be created before binding".to_owned();
                event_on_claim(claim, false, "WaitForFirstConsumer", message)
            }
        }]
    } else if class_of_claim(claim).is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set".to_owned();
        vec![event_on_claim(claim, false, "FailedBinding", message)]
    } else {
        provision(claim, class.as_deref())
    };
    steps.extend(claim_phase(claim, "Pending", None));
    steps
}

/// Gives a claim that names no class the default one (`assignDefaultStorageClass`).
fn default_class(input: &ForClaim<'_>) -> Option<Vec<Step>> {
    let claim = input.claim;
    let named = claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_some());
    if named || annotation_of(&claim.metadata, annotations::BETA_CLASS).is_some() {
        return None;
    }
    let patch = json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "spec": {"storageClassName": input.default_class?},
    });
    Some(vec![Step::Claim { key: claim.key(), patch }])
}

/// Asks the class's provisioner for a volume; it is another process that reads the annotation.
fn provision(claim: &PersistentVolumeClaim, class: Option<&StorageClass>) -> Vec<Step> {
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io {:?} not found", class_of_claim(claim));
        return vec![event_on_claim(claim, true, "ProvisioningFailed", message)];
    };
    let migrated = MIGRATED.iter().find(|(old, _)| *old == class.provisioner).map(|(_, new)| *new);
    if migrated.is_none() && class.provisioner.starts_with(BUILT_IN_PREFIX) {
        let message = format!("no volume plugin matched name: {}", class.provisioner);
        return vec![event_on_claim(claim, true, "ProvisioningFailed", message)];
    }
    let provisioner = migrated.unwrap_or(&class.provisioner);
    let mut steps = Vec::new();
    let set = |name| annotation_of(&claim.metadata, name) == Some(provisioner);
    if !set(annotations::PROVISIONER) || !set(annotations::BETA_PROVISIONER) {
        let patch = json!({"metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {annotations::PROVISIONER: provisioner, annotations::BETA_PROVISIONER: provisioner},
        }});
        steps.push(Step::Claim { key: claim.key(), patch });
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    steps.push(event_on_claim(claim, false, "ExternalProvisioning", message));
    steps
}

/// A claim whose user named the volume.
fn requested_volume(input: &ForClaim<'_>, name: &str) -> Vec<Step> {
    let claim = input.claim;
    let pending = || claim_phase(claim, "Pending", None);
    let Some(volume) = volume_named(input, name) else { return pending() };
    let (reason, message) = if claim_of(volume).is_none() {
        match find::satisfies(volume, claim) {
            Ok(()) => return bind(volume, claim),
            Err(why) => ("VolumeMismatch", format!("Cannot bind to requested volume {name:?}: {why}")),
        }
    } else if find::is_bound_to(volume, claim) {
        return bind(volume, claim);
    } else {
        ("FailedBinding", format!("volume {name:?} already bound to a different claim."))
    };
    let mut steps = vec![event_on_claim(claim, true, reason, message)];
    steps.extend(pending());
    steps
}

/// A claim that was bound: it stays so, or is lost.
fn bound_claim(input: &ForClaim<'_>) -> Vec<Step> {
    let claim = input.claim;
    let lost = |reason: &'static str, message: &str| {
        let was_lost = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost");
        let mut steps = claim_phase(claim, "Lost", None);
        if !was_lost {
            steps.push(event_on_claim(claim, true, reason, message.to_owned()));
        }
        steps
    };
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = volume_named(input, name) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_of(volume) {
        Some(reference) if reference.uid != claim.metadata.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => bind(volume, claim),
    }
}

/// What is known when a volume is looked at.
pub struct ForVolume<'a> {
    pub volume: &'a PersistentVolume,
    /// The claim it refers to, by name and uid; `None` when that is gone.
    pub claim: Option<&'a PersistentVolumeClaim>,
}

/// What a volume needs; and whether its claim should be looked at, because the binding is only half done.
pub fn volume(input: &ForVolume<'_>) -> (Vec<Step>, Option<ObjectKey>) {
    let volume = input.volume;
    let reference = claim_of(volume).filter(|r| r.uid.as_ref().is_some_and(|uid| !uid.is_empty()));
    if reference.is_none() {
        return (volume_phase(volume, "Available", None), None);
    }
    let Some(claim) = input.claim else { return (release(volume), None) };
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        if find::mode(claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref()))
            != find::mode(volume.spec.as_ref().and_then(|s| s.volume_mode.as_deref()))
        {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let message = format!(
                "Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim due to incompatible \
                 volumeMode."
            );
            return (vec![event_on_claim(claim, true, "VolumeMismatch", message)], None);
        }
        return (Vec::new(), Some(claim.key()));
    }
    if Some(name) == volume.metadata.name.as_deref() {
        return (volume_phase(volume, "Bound", None), None);
    }
    // The claim was bound to another volume.
    let is_made = annotation_of(&volume.metadata, annotations::PROVISIONED_BY).is_some();
    let steps = if is_made && policy(volume) == "Delete" { release(volume) } else { unbind(volume) };
    (steps, None)
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The claim is gone: the volume is released, and reclaimed as its policy says.
fn release(volume: &PersistentVolume) -> Vec<Step> {
    let mut steps = Vec::new();
    // A failure stays visible.
    if !matches!(phase(volume), "Released" | "Failed") {
        steps = volume_phase(volume, "Released", None);
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    // Whoever made a volume also deletes it; nobody is built in who could.
    let provisioner = annotation_of(&volume.metadata, annotations::PROVISIONED_BY);
    let failure = match policy(volume) {
        "Delete" if provisioner.is_none() => {
            let message = format!("error getting deleter volume plugin for volume {name:?}: no volume plugin matched");
            Some(("VolumeFailedDelete", message))
        }
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())),
        _ => None,
    };
    if let Some((reason, message)) = failure.filter(|_| phase(volume) != "Failed") {
        steps.extend(volume_phase(volume, "Failed", Some(&message)));
        steps.push(super::steps::event_on_volume(volume, true, reason, message));
    }
    steps
}

/// Takes back the volume's half of a binding: all of it if the controller made it, else only the uid, so that the
/// volume stays reserved (`unbindVolume`).
fn unbind(volume: &PersistentVolume) -> Vec<Step> {
    let ours = annotation_of(&volume.metadata, annotations::BOUND_BY_CONTROLLER).is_some();
    let mut patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version}});
    if ours {
        patch["metadata"]["annotations"] = json!({annotations::BOUND_BY_CONTROLLER: null});
        patch["spec"] = json!({"claimRef": null});
    } else {
        patch["spec"] = json!({"claimRef": {"uid": null, "resourceVersion": Value::Null}});
    }
    let mut steps = vec![Step::Volume { key: volume.key(), patch }];
    steps.extend(volume_phase(volume, "Available", None));
    steps
}
