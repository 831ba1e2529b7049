//! Volumes and claims: binding one to the other, protecting both while in use, claims of ephemeral volumes.

pub mod attach;
pub mod binder;
pub mod ephemeral;
pub mod expand;
pub mod protection;

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api_client::ObjectKey;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource;

use crate::objects::{Pod, annotation_of};

/// Annotations of volumes and claims, upstream's names.
pub mod annotations {
    /// The claim is bound, all of it.
    pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
    /// The controller made this half of a binding, so it may undo it.
    pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
    /// Who made the volume.
    pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
    /// Who shall make a volume for the claim; the older name is still read by provisioners.
    pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
    pub const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
    /// The node the scheduler wants a claim's volume for.
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
    pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    /// The claim's size before a resize of its volume.
    pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
}

/// The class a claim asks for (`GetPersistentVolumeClaimClass`); empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation_of(&claim.metadata, annotations::BETA_CLASS).or(named).unwrap_or_default()
}

/// The class a volume is in (`GetPersistentVolumeClass`); empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    annotation_of(&volume.metadata, annotations::BETA_CLASS).or(named).unwrap_or_default()
}

/// `storage` of a list of resources; absent counts as nothing.
pub fn storage(resources: Option<&BTreeMap<String, resource::Quantity>>) -> Quantity {
    let storage = resources.and_then(|r| r.get("storage")).and_then(|q| Quantity::parse(&q.0).ok());
    storage.unwrap_or_default()
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    storage(resources.and_then(|r| r.requests.as_ref()))
}

/// The claim a volume refers to.
pub fn claim_of(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The key of a claim that is referred to.
pub fn key_of(reference: &ObjectReference) -> ObjectKey {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    ObjectKey::new(text(&reference.namespace), text(&reference.name))
}

/// Names of the claims a pod's volumes are, ephemeral ones among them.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    pod.spec.volumes.iter().map(|volume| volume.claim_name(&pod.metadata.name))
}
