//! Rules of `spec.volumes` (`ValidateVolumes`, `validateVolumeSource`, `validateProjectionSources`).

use serde_json::Value;

use super::env;
use crate::field::Error;
use crate::quantity::Quantity;
use crate::strategy::place::{Errors, Place};
use crate::strategy::volume_source::{csi_driver_name, local_unreserved, mode, no_backsteps, one_of};
use crate::strategy::{NameRule, format, metadata, persistent_volume_claim, resources};

/// Of `<volume name>:<target portal>`, where a volume of iSCSI names its initiator.
const ISCSI_NAME_MAX_BYTES: usize = 64;

/// In upstream's order: the first one given counts, the others are refused.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;
const CERTIFICATE_MIN_SECONDS: i64 = 3600;
const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// Checks every volume; returns the valid ones, which mounts may name.
pub fn rules<'v>(spec: &Place<'v, '_>, pod_name: &str, is_pod: bool, errors: &mut Errors) -> Vec<(&'v str, &'v Value)> {
    let volumes = spec.field("volumes");
    let mut known: Vec<(&str, &Value)> = Vec::new();
    for volume in volumes.items() {
        let before = errors.len();
        let name = volume.field("name");
        source(&volume, pod_name, is_pod, errors);
        if name.require(errors) {
            format::check(&name, format::label, errors);
        }
        if known.iter().any(|(other, _)| *other == name.str()) {
            errors.push(name.duplicate());
        }
        if errors.len() == before {
            known.push((name.str(), volume.value));
        }
    }
    claims_of_their_own(&volumes, pod_name, errors);
    known
}

/// The claim made for an ephemeral volume may not be used by name as well.
fn claims_of_their_own(volumes: &Place, pod_name: &str, errors: &mut Errors) {
    let made: Vec<String> = volumes
        .items()
        .filter(|volume| !pod_name.is_empty() && volume.field("ephemeral").is_set())
        .map(|volume| format!("{pod_name}-{}", volume.field("name").str()))
        .collect();
    for volume in volumes.items() {
        let claim = volume.field("persistentVolumeClaim");
        let name = claim.field("claimName");
        if name.is_set() && made.iter().any(|m| m == name.str()) {
            errors.push(name.invalid("must not reference a PVC that gets created for an ephemeral volume"));
        }
    }
}

fn source(volume: &Place, pod_name: &str, is_pod: bool, errors: &mut Errors) {
    let name = volume.field("name");
    let found = one_of(volume, SOURCES, errors, |source, place, errors| match source {
        "emptyDir" => {
            let limit = place.field("sizeLimit");
            if limit.is_set() && resources::read(limit.value) < Quantity::default() {
                errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
            }
        }
        "secret" => files(place, "secretName", errors),
        "configMap" => files(place, "name", errors),
        "downwardAPI" => {
            mode(&place.field("defaultMode"), errors);
            for item in place.field("items").items() {
                // Upstream reports items at the source itself.
                downward_item(&volume.named("downwardAPI", item.value), errors);
            }
        }
        "projected" => projected(place, errors),
        "csi" => csi(place, errors),
        "ephemeral" => ephemeral(place, &name, pod_name, errors),
        "image" => image(place, is_pod, errors),
        "iscsi"
            if place.field("initiatorName").is_set()
                && name.str().len() + 1 + place.field("targetPortal").str().len() > ISCSI_NAME_MAX_BYTES =>
        {
            errors.push(name.invalid("Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."));
        }
        _ => {}
    });
    if !found {
        errors.push(volume.required("must specify a volume type"));
    }
}

fn files(place: &Place, name: &str, errors: &mut Errors) {
    place.field(name).require(errors);
    mode(&place.field("defaultMode"), errors);
    for item in place.field("items").items() {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &Place, errors: &mut Errors) {
    item.field("key").require(errors);
    let path = item.field("path");
    path.require(errors);
    local_unreserved(&path, errors);
    mode(&item.field("mode"), errors);
}

fn downward_item(item: &Place, errors: &mut Errors) {
    let path = item.field("path");
    path.require(errors);
    local_unreserved(&path, errors);
    let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
    if field.is_set() {
        env::field_ref(&field, env::VOLUME_FIELDS, errors);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(Error::invalid(item.path(), "resource", detail));
        }
    } else if resource.is_set() {
        env::resource_field_ref(&resource, true, errors);
    } else {
        errors.push(item.required("one of fieldRef and resourceFieldRef is required"));
    }
    mode(&item.field("mode"), errors);
}

fn csi(place: &Place, errors: &mut Errors) {
    csi_driver_name(&place.field("driver"), errors);
    let secret = place.field("nodePublishSecretRef");
    if secret.is_set() && secret.field("name").require(errors) {
        let name = place.named("name", secret.field("name").value);
        format::check(&name, format::subdomain, errors);
    }
}

fn ephemeral(place: &Place, name: &Place, pod_name: &str, errors: &mut Errors) {
    let template = place.field("volumeClaimTemplate");
    if !template.is_set() {
        errors.push(template.required(""));
    } else {
        let metadata = template.field("metadata");
        metadata::annotations(&metadata.field("annotations"), errors);
        metadata::labels(&metadata.field("labels"), errors);
        for (field, value) in metadata.entries().filter(|(f, _)| !["annotations", "labels"].contains(f)) {
            if !value.is_empty() {
                errors.push(metadata.field(field).forbidden("cannot be set"));
            }
        }
        persistent_volume_claim::spec_rules(&template.field("spec"), errors);
    }
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{}", name.str());
        for problem in NameRule::Subdomain.problems(&claim, false) {
            errors.push(name.invalid(format!("PVC name {claim:?}: {problem}")));
        }
    }
}

fn image(place: &Place, is_pod: bool, errors: &mut Errors) {
    if is_pod {
        place.field("reference").require(errors);
    }
    place.field("pullPolicy").require_one_of(super::containers::PULL_POLICIES, errors);
}

/// Several sources in one directory: no path twice.
fn projected(place: &Place, errors: &mut Errors) {
    mode(&place.field("defaultMode"), errors);
    let mut paths: Vec<&str> = Vec::new();
    let sources = place.field("sources");
    for source in sources.items() {
        let mut kinds = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let projection = source.field(kind);
            if projection.is_set() {
                kinds += 1;
                project(kind, &projection, place, &mut paths, errors);
            }
        }
        if kinds > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn project<'v>(kind: &str, source: &Place<'v, '_>, volume: &Place, paths: &mut Vec<&'v str>, errors: &mut Errors) {
    match kind {
        "secret" | "configMap" => {
            source.field("name").require(errors);
            for item in source.field("items").items() {
                key_to_path(&item, errors);
                claim_path(item.field("path").str(), volume, paths, errors);
            }
        }
        "downwardAPI" => {
            for item in source.field("items").items() {
                // Upstream reports items at the source itself.
                downward_item(&source.with_value(item.value), errors);
                claim_path(item.field("path").str(), volume, paths, errors);
            }
        }
        "serviceAccountToken" => token(source, volume, errors),
        "clusterTrustBundle" => {
            trust_bundle(source, errors);
            claim_path(source.field("path").str(), volume, paths, errors);
        }
        "podCertificate" => pod_certificate(source, volume, paths, errors),
        _ => {}
    }
}

fn claim_path<'v>(path: &'v str, volume: &Place, paths: &mut Vec<&'v str>, errors: &mut Errors) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        errors.push(Error::invalid(volume.path(), path, "conflicting duplicate paths"));
    }
    paths.push(path);
}

fn token(source: &Place, volume: &Place, errors: &mut Errors) {
    let seconds = source.field("expirationSeconds");
    if seconds.int().unwrap_or(0) < TOKEN_MIN_SECONDS {
        errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds.int().unwrap_or(0) > TOKEN_MAX_SECONDS {
        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let path = volume.named("path", source.field("path").value);
    if path.require(errors) {
        local_unreserved(&path, errors);
    }
}

fn trust_bundle(source: &Place, errors: &mut Errors) {
    let (name, signer) = (source.field("name"), source.field("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => errors.push(source.invalid("only one of name and signerName may be used")),
        (true, false) => {
            name.require(errors);
            if source.field("labelSelector").is_set() {
                errors.push(source.field("labelSelector").invalid("labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            signer.require(errors);
            format::check(&signer, format::signer_name, errors);
            format::label_selector(&source.field("labelSelector"), errors);
        }
        (false, false) => errors.push(source.required("either name or signerName must be specified")),
    }
    let path = source.field("path");
    path.require(errors);
    local_unreserved(&path, errors);
}

fn pod_certificate<'v>(source: &Place<'v, '_>, volume: &Place, paths: &mut Vec<&'v str>, errors: &mut Errors) {
    format::check(&source.field("signerName"), format::signer_name, errors);
    let kind = source.field("keyType");
    if !KEY_TYPES.contains(&kind.str()) {
        errors.push(kind.not_supported(KEY_TYPES));
    }
    let seconds = source.field("maxExpirationSeconds");
    if seconds.int().is_some_and(|s| s < CERTIFICATE_MIN_SECONDS) {
        errors.push(seconds.invalid("if provided, maxExpirationSeconds must be >= 3600"));
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for field in fields {
        let path = source.field(field);
        if !path.is_empty() {
            local_unreserved(&path, errors);
            claim_path(path.str(), volume, paths, errors);
        }
    }
    if fields.iter().all(|field| source.field(field).is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(source.required(detail));
    }
}

/// A path inside a file reference.
pub fn inner_path(path: &Place, errors: &mut Errors) {
    if path.require(errors) {
        no_backsteps(path, errors);
    }
}
