//! The writes of the binder. Pure.

use api_client::events::ObjectReference;
use api_client::{Object, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::find;
use crate::controllers::volume::{annotations, claim_of, storage};
use crate::objects::annotation_of;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Volume { key: ObjectKey, patch: Value },
    VolumeStatus { key: ObjectKey, patch: Value },
    Claim { key: ObjectKey, patch: Value },
    ClaimStatus { key: ObjectKey, patch: Value },
    Event { regarding: ObjectReference, warning: bool, reason: &'static str, message: String },
}

pub fn event_on_claim(claim: &PersistentVolumeClaim, warning: bool, reason: &'static str, message: String) -> Step {
    Step::Event { regarding: ObjectReference::to(claim), warning, reason, message }
}

pub fn event_on_volume(volume: &PersistentVolume, warning: bool, reason: &'static str, message: String) -> Step {
    Step::Event { regarding: ObjectReference::to(volume), warning, reason, message }
}

/// Binds both to each other, as far as they are not yet.
pub fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<Step> {
    let mut steps = Vec::new();
    let refers = claim_of(volume);
    let same_uid = refers.is_some_and(|r| r.uid.is_some() && r.uid == claim.metadata.uid);
    if !same_uid || !find::is_bound_to(volume, claim) {
        let mut patch = json!({
            "metadata": {"resourceVersion": volume.metadata.resource_version},
            "spec": {"claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            }},
        });
        if !find::is_bound_to(volume, claim) {
            patch["metadata"]["annotations"] = json!({annotations::BOUND_BY_CONTROLLER: "yes"});
        }
        steps.push(Step::Volume { key: volume.key(), patch });
    }
    steps.extend(volume_phase(volume, "Bound", None));
    let name = volume.metadata.name.as_deref();
    let mut patch = json!({"metadata": {"uid": claim.metadata.uid}});
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == name;
    if !named {
        patch["spec"] = json!({"volumeName": name});
        patch["metadata"]["annotations"][annotations::BOUND_BY_CONTROLLER] = "yes".into();
    }
    let completed = annotation_of(&claim.metadata, annotations::BIND_COMPLETED).is_some();
    if !completed {
        patch["metadata"]["annotations"][annotations::BIND_COMPLETED] = "yes".into();
    }
    if !named || !completed {
        steps.push(Step::Claim { key: claim.key(), patch });
    }
    steps.extend(claim_phase(claim, "Bound", Some(volume)));
    steps
}

/// The phase of a volume (`updateVolumePhase`).
pub fn volume_phase(volume: &PersistentVolume, phase: &str, message: Option<&str>) -> Vec<Step> {
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
        return Vec::new();
    }
    let patch = json!({"status": {"phase": phase, "message": message}});
    vec![Step::VolumeStatus { key: volume.key(), patch }]
}

/// The phase of a claim, with what its volume offers (`updateClaimStatus`).
pub fn claim_phase(claim: &PersistentVolumeClaim, phase: &str, volume: Option<&PersistentVolume>) -> Vec<Step> {
    let old = claim.status.clone().unwrap_or_default();
    let becomes = old.phase.as_deref() != Some(phase);
    let mut status = json!({});
    if becomes {
        status["phase"] = phase.into();
    }
    match volume.and_then(|v| v.spec.as_ref()) {
        None => {
            let fields = [
                ("accessModes", old.access_modes.is_some()),
                ("capacity", old.capacity.is_some()),
                ("currentVolumeAttributesClassName", old.current_volume_attributes_class_name.is_some()),
            ];
            fields.iter().filter(|(_, set)| *set).for_each(|(field, _)| status[field] = Value::Null);
        }
        Some(spec) => {
            if old.access_modes != spec.access_modes {
                status["accessModes"] = json!(spec.access_modes);
            }
            // Only on the way to Bound: later the file system may be smaller than the volume, until it was resized.
            let before = volume.and_then(|v| annotation_of(&v.metadata, annotations::PRE_RESIZE_CAPACITY));
            if becomes && let Some(before) = before {
                status["capacity"] = json!({"storage": before});
            } else if becomes && storage(old.capacity.as_ref()) != storage(spec.capacity.as_ref()) {
                status["capacity"] = json!(spec.capacity);
            }
            if old.phase.as_deref() == Some("Pending")
                && becomes
                && old.current_volume_attributes_class_name != spec.volume_attributes_class_name
            {
                status["currentVolumeAttributesClassName"] = json!(spec.volume_attributes_class_name);
            }
        }
    }
    if status.as_object().is_none_or(|s| s.is_empty()) {
        return Vec::new();
    }
    vec![Step::ClaimStatus { key: claim.key(), patch: json!({"status": status}) }]
}
