//! PersistentVolume.

use serde_json::{Value, json};

use super::fill::Lit::Str;
use super::fill::{Rows, fill, has, text};
use super::persistent_volume_claim::{VOLUME_MODES, access_modes};
use super::place::{Errors, Place};
use super::pod::defaults;
use super::volume_source::{csi_driver_name, one_of};
use super::{Context, Strategy, format, node_selector, resources};
use crate::field::Error;
use crate::meta;
use crate::quantity::Quantity;

const SPEC: Rows = &[("persistentVolumeReclaimPolicy", Str("Retain")), ("volumeMode", Str("Filesystem"))];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
/// In upstream's order: the first one given counts, the others are refused.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// Secrets that a CSI volume names, in full.
const CSI_SECRETS: &[&str] =
    &["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let status = meta::child_mut(object, "status");
        fill(status, &[("phase", Str("Pending"))]);
        let spec = meta::child_mut(object, "spec");
        fill(spec, SPEC);
        defaults::volume_source(spec);
    }

    fn on_create(&self, object: &mut Value, ctx: &Context) {
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": seconds(ctx)});
    }

    fn on_status_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        let phase = |object: &Value| object.get("status").map(|s| text(s, "phase").to_owned()).unwrap_or_default();
        let field = "lastPhaseTransitionTime";
        let before = old.get("status").and_then(|s| s.get(field)).cloned();
        let changed = phase(new) != phase(old);
        let status = meta::child_mut(new, "status");
        let same_time = status.get(field) == before.as_ref();
        if changed && same_time {
            status[field] = seconds(ctx).into();
        } else if let Some(before) = before.filter(|_| !has(status, field)) {
            status[field] = before;
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        rules(&object.field("spec"), false, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        let source_changed = SOURCES.iter().any(|source| !spec.field(source).same(&before.field(source)));
        if source_changed {
            let place = spec.field("persistentvolumesource");
            errors.push(place.forbidden("spec.persistentvolumesource is immutable after creation"));
        }
        // Reported without `spec`, as upstream does.
        let mode = spec.field("volumeMode");
        if !mode.same(&before.field("volumeMode")) {
            errors.push(Error::invalid("volumeMode", mode.value.clone(), "field is immutable"));
        }
        let (affinity, was) = (spec.field("nodeAffinity"), before.field("nodeAffinity"));
        if was.is_set() && !affinity.same(&was) {
            errors.push(affinity.invalid("field is immutable, except for updating from beta label to GA"));
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("name", meta::name(object).to_owned())]
    }
}

fn seconds(ctx: &Context) -> String {
    ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `ValidatePersistentVolumeSpec`; `inline` when the volume is part of a VolumeAttachment.
pub fn rules(spec: &Place, inline: bool, errors: &mut Errors) {
    access_modes(&spec.field("accessModes"), "", errors);
    if !inline {
        capacity(&spec.field("capacity"), errors);
        spec.field("persistentVolumeReclaimPolicy").one_of(RECLAIM_POLICIES, errors);
    } else if !spec.field("csi").is_set() {
        errors.push(spec.field("csi").required("has to be specified in the context of inline volumes"));
    }
    let affinity = spec.field("nodeAffinity");
    let required = affinity.field("required");
    if affinity.is_set() {
        if required.is_set() {
            node_selector::rules(&required, true, errors);
        } else {
            errors.push(required.required("must specify required node constraints"));
        }
    }
    let found = one_of(spec, SOURCES, errors, |source, place, errors| match source {
        "csi" => csi(place, errors),
        "local" if !affinity.is_set() => {
            errors.push(spec.field("nodeAffinity").required("Local volume requires node affinity"));
        }
        _ => {}
    });
    if !found {
        errors.push(spec.required("must specify a volume type"));
    }
    let reclaim = spec.field("persistentVolumeReclaimPolicy");
    let path = spec.field("hostPath").field("path").str();
    if reclaim.str() == "Recycle" && !path.is_empty() && path.trim_matches('/').is_empty() {
        errors.push(reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.field(class);
        if !class.is_empty() {
            format::check(&class, format::subdomain, errors);
        }
    }
    spec.field("volumeMode").one_of(VOLUME_MODES, errors);
}

fn capacity(capacity: &Place, errors: &mut Errors) {
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    let entries = capacity.map().map_or(0, |m| m.len());
    if capacity.value.get("storage").is_none() || entries > 1 {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, amount) in capacity.entries() {
        let read = resources::read(amount.value);
        if read < Quantity::default() {
            errors.push(amount.invalid("must be a valid resource quantity"));
        }
        if read <= Quantity::default() {
            errors.push(amount.invalid("must be greater than zero"));
        }
    }
}

fn csi(place: &Place, errors: &mut Errors) {
    csi_driver_name(&place.field("driver"), errors);
    place.field("volumeHandle").require(errors);
    for secret in CSI_SECRETS {
        let reference = place.field(secret);
        if reference.is_set() {
            reference.field("name").require(errors);
            reference.field("namespace").require(errors);
        }
    }
}
