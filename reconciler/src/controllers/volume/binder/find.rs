//! Which volume a claim gets (`volume.FindMatchingVolume`). Pure.

use std::sync::Arc;

use api_client::Snapshot;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::controllers::volume::{claim_of, class_of_claim, class_of_volume, requested, storage};
use crate::objects::{compile, label_of};

/// The best volume for a claim: one that is reserved for it, else the smallest that fits. Volumes with few access modes
/// go first, so that versatile ones are left for others. With `waits` only a reserved one is taken: the scheduler
/// picks, because the node matters.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a Snapshot<PersistentVolume>,
    waits: bool,
) -> Option<&'a PersistentVolume> {
    let mut fitting: Vec<&Arc<PersistentVolume>> = volumes.iter().filter(|volume| could_hold(volume, claim)).collect();
    let modes = |volume: &PersistentVolume| modes_of(volume).len();
    fitting.sort_by(|a, b| modes(a).cmp(&modes(b)).then_with(|| modes_of(a).cmp(modes_of(b))));
    for group in fitting.chunk_by(|a, b| modes_of(a) == modes_of(b)) {
        let reserved = group.iter().find(|volume| is_bound_to(volume, claim));
        let free = || group.iter().filter(|volume| is_free(volume, claim));
        let smallest =
            || free().min_by(|a, b| capacity(a).cmp(&capacity(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
        if let Some(volume) = reserved.or_else(|| if waits { None } else { smallest() }) {
            return Some(volume);
        }
    }
    None
}

/// The access modes, or none.
fn modes_of(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> api::quantity::Quantity {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// What must be right also for a volume that is reserved for the claim.
fn could_hold(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let taken = claim_of(volume).is_some() && !is_bound_to(volume, claim);
    let (of_volume, of_claim) = (volume.spec.as_ref(), claim.spec.as_ref());
    !taken
        && has_modes(volume, claim)
        && capacity(volume) >= requested(claim)
        && mode(of_volume.and_then(|s| s.volume_mode.as_deref()))
            == mode(of_claim.and_then(|s| s.volume_mode.as_deref()))
        && attributes(of_volume.and_then(|s| s.volume_attributes_class_name.as_ref()))
            == attributes(of_claim.and_then(|s| s.volume_attributes_class_name.as_ref()))
        && volume.metadata.deletion_timestamp.is_none()
}

fn attributes(name: Option<&String>) -> &str {
    name.map_or("", String::as_str)
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| modes_of(volume).contains(mode))
}

fn is_free(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let available = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selected = || {
        let selector = selector.map(|s| compile(Some(s)));
        selector.is_none_or(|s| s.matches_with(|key| label_of(&volume.metadata, key)))
    };
    available && claim_of(volume).is_none() && class_of_volume(volume) == class_of_claim(claim) && selected()
}

/// Whether a volume refers to this claim, by name, and by uid where it says one (`IsVolumeBoundToClaim`).
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_of(volume).is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// The volume mode, `Filesystem` if not said.
pub fn mode(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

/// Why a volume that a user named won't do (`checkVolumeSatisfyClaim`).
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let (of_volume, of_claim) = (volume.spec.as_ref(), claim.spec.as_ref());
    let wrong = if volume.metadata.deletion_timestamp.is_some() {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        return Err(format!("the volume is marked for deletion {name:?}"));
    } else if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim) {
        "storageClassName does not match"
    } else if attributes(of_volume.and_then(|s| s.volume_attributes_class_name.as_ref()))
        != attributes(of_claim.and_then(|s| s.volume_attributes_class_name.as_ref()))
    {
        "volumeAttributesClassName does not match"
    } else if mode(of_volume.and_then(|s| s.volume_mode.as_deref()))
        != mode(of_claim.and_then(|s| s.volume_mode.as_deref()))
    {
        "incompatible volumeMode"
    } else if !has_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return Ok(());
    };
    Err(wrong.to_owned())
}
