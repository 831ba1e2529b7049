//! DefaultStorageClass and DefaultIngressClass: who names no class gets the one marked as default, the newest of several.

use serde_json::Value;

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, all};
use crate::server::Server;

const STORAGE_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const STORAGE_OLD_CLAIM: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
const INGRESS_OLD: &str = "kubernetes.io/ingress.class";

pub fn storage(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "persistentvolumeclaims") {
        return Ok(());
    }
    let named = request.object["spec"].get("storageClassName").is_some_and(|class| !class.is_null());
    if named || annotated(&request.object, STORAGE_OLD_CLAIM) {
        return Ok(());
    }
    if let Some(class) = newest_default(server, "storage.k8s.io", "storageclasses", &STORAGE_DEFAULT) {
        meta::child_mut(&mut request.object, "spec")["storageClassName"] = class.into();
    }
    Ok(())
}

pub fn ingress(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("networking.k8s.io", "ingresses") {
        return Ok(());
    }
    let named = request.object["spec"].get("ingressClassName").is_some_and(|class| !class.is_null());
    if named || annotated(&request.object, INGRESS_OLD) {
        return Ok(());
    }
    if let Some(class) = newest_default(server, "networking.k8s.io", "ingressclasses", &INGRESS_DEFAULT) {
        meta::child_mut(&mut request.object, "spec")["ingressClassName"] = class.into();
    }
    Ok(())
}

fn annotated(object: &Value, key: &str) -> bool {
    meta::annotations(object).is_some_and(|annotations| annotations.contains_key(key))
}

fn newest_default(server: &Server, group: &str, resource: &str, marks: &[&str]) -> Option<String> {
    let marked = |object: &Value| {
        let value = |key: &&str| meta::annotations(object)?.get(*key)?.as_str().map(|v| v == "true");
        marks.iter().filter_map(value).any(|marked| marked)
    };
    let created = |object: &Value| object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    // Newest first, then by name, as upstream sorts them.
    let mut found: Vec<Value> = all(server, group, resource, "").into_iter().filter(marked).collect();
    found.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| meta::name(a).cmp(meta::name(b))));
    found.first().map(|class| meta::name(class).to_owned())
}
