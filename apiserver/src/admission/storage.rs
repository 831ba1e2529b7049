//! StorageObjectInUseProtection puts a finalizer on volumes and claims, so that one in use outlives its deletion;
//! PersistentVolumeClaimResize lets only those claims grow whose class can.

use serde_json::{Value, json};

use api::meta;
use api::quantity::Quantity;
use api::status::Status;

use super::{AdmissionRequest, find};
use crate::server::Server;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

pub fn protect(_: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let finalizer = if request.creates("", "persistentvolumeclaims") {
        CLAIM_FINALIZER
    } else if request.creates("", "persistentvolumes") {
        VOLUME_FINALIZER
    } else {
        return Ok(());
    };
    if meta::finalizers(&request.object).any(|f| f == finalizer) {
        return Ok(());
    }
    let metadata = meta::metadata_mut(&mut request.object);
    match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        Some(list) => list.push(finalizer.into()),
        None => drop(metadata.insert("finalizers".to_owned(), json!([finalizer]))),
    }
    Ok(())
}

pub fn validate_resize(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.updates("", "persistentvolumeclaims") {
        return Ok(());
    }
    let size = |claim: &Value| {
        claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str).and_then(|s| Quantity::parse(s).ok())
    };
    let (Some(new), Some(old)) = (size(&request.object), size(request.old_object)) else { return Ok(()) };
    if new <= old {
        return Ok(());
    }
    if request.old_object["status"]["phase"] != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = request.old_object["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty());
    let class = class.and_then(|class| find(server, "storage.k8s.io", "storageclasses", "", class));
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(request.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
