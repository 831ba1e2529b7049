//! NodeRestriction: a node writes its own Node, Lease and CSINode and the status of its own pods, and makes mirror pods
//! and tokens for itself; of labels, only those that cannot draw workloads to it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, Operation, find};
use crate::authz::node;
use crate::server::Server;
use crate::user::GROUP_NODES;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io";
/// Labels under kubernetes.io and k8s.io that a kubelet sets (`kubeletapis.KubeletLabels`).
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
];
const KUBELET_LABEL_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

pub fn admit(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.user.in_group(GROUP_NODES) {
        return Ok(());
    }
    let Some(node) = node::identity(request.user) else {
        if request.user.name.starts_with(crate::user::NODE_PREFIX) {
            return Err(request.forbidden(format!("could not determine node from user {:?}", request.user.name)));
        }
        return Ok(());
    };
    let info = request.info;
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("", "pods", "") => pod(server, request, node),
        ("", "pods", "status") => pod_status(request, node),
        ("", "pods", "eviction") => eviction(server, request, node),
        ("", "pods", other) => Err(request
            .forbidden(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))),
        ("", "nodes", _) => own_node(request, node),
        ("", "persistentvolumeclaims", "status") => claim_status(request, node),
        ("", "persistentvolumeclaims", _) => Err(request.forbidden("may only update PVC status")),
        ("coordination.k8s.io", "leases", _) => lease(request, node),
        ("storage.k8s.io", "csinodes", _) => {
            if request.object_name() == node {
                return Ok(());
            }
            Err(request.forbidden("can only access CSINode with the same name as the requesting node"))
        }
        ("resource.k8s.io", "resourceslices", _) => resource_slice(request, node),
        _ => Ok(()),
    }
}

fn pod(server: &Server, request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    match request.operation {
        Operation::Create => mirror_pod(server, request, node),
        Operation::Delete if request.old_object["spec"]["nodeName"] == node => Ok(()),
        Operation::Delete => {
            Err(request.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        _ => Err(request.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
    }
}

fn mirror_pod(server: &Server, request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let pod = &request.object;
    let refuse = |why: String| Err(request.forbidden(why));
    if !meta::annotations(pod).is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let [owner] = owners else {
        if owners.is_empty() {
            return Ok(());
        }
        return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(known) = find(server, "", "nodes", "", node) else { return Err(Status::not_found("", "nodes", node)) };
    if owner["uid"] != meta::uid(&known) {
        let (expected, got) = (owner["uid"].as_str().unwrap_or_default(), meta::uid(&known));
        return refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
    }
    Ok(())
}

fn pod_status(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let old = request.old_object;
    if old["spec"]["nodeName"] != node {
        return Err(request
            .forbidden(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")));
    }
    if meta::labels(old) != meta::labels(&request.object) {
        return Err(request.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    if old["status"].get("resourceClaimStatuses") != request.object["status"].get("resourceClaimStatuses") {
        return Err(request.forbidden(format!("node {node:?} cannot update resource claim statues")));
    }
    Ok(())
}

fn eviction(server: &Server, request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let name = request.object_name();
    let Some(pod) = find(server, "", "pods", request.namespace, name) else {
        return Err(Status::not_found("", "pods", name));
    };
    if pod["spec"]["nodeName"] != node {
        return Err(request.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")));
    }
    Ok(())
}

fn own_node(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let name = request.object_name();
    if name != node {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let empty = Map::new();
    let labels = |object: &Value| meta::labels(object).cloned().unwrap_or_default();
    match request.operation {
        Operation::Create => {
            let forbidden = forbidden_labels(&labels(&request.object), &empty);
            if !forbidden.is_empty() {
                return Err(request.forbidden(format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    forbidden.join(", ")
                )));
            }
        }
        Operation::Update => {
            let list = |object: &Value, path: &str| object.pointer(path).filter(|v| !v.is_null()).cloned();
            for (path, what) in [("/spec/taints", "taints"), ("/metadata/ownerReferences", "ownerReferences")] {
                if list(&request.object, path) != list(request.old_object, path) {
                    return Err(request.forbidden(format!("node {node:?} is not allowed to modify {what}")));
                }
            }
            let forbidden = forbidden_labels(&labels(&request.object), &labels(request.old_object));
            if !forbidden.is_empty() {
                return Err(request.forbidden(format!("is not allowed to modify labels: {}", forbidden.join(", "))));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels that differ and that a node may not touch, sorted.
fn forbidden_labels(new: &Map<String, Value>, old: &Map<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).collect();
    keys.into_iter().filter(|key| forbidden_label(key)).cloned().collect()
}

fn forbidden_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if within(RESTRICTED_LABELS) {
        return true;
    }
    let kubelets = KUBELET_LABELS.contains(&key) || KUBELET_LABEL_NAMESPACES.iter().any(|n| within(n));
    (within("kubernetes.io") || within("k8s.io")) && !kubelets
}

fn claim_status(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
        let status = meta::object_mut(meta::child_mut(&mut object, "status"));
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            status.remove(field);
        }
        object
    };
    if stripped(&request.object) == stripped(request.old_object) {
        return Ok(());
    }
    Err(request.forbidden(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    )))
}

fn lease(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    if request.namespace != "kube-node-lease" {
        let why = r#"can only access leases in the "kube-node-lease" system namespace"#;
        return Err(request.forbidden(why));
    }
    if request.object_name() != node {
        return Err(request.forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

fn resource_slice(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let object = if request.operation == Operation::Delete { request.old_object } else { &request.object };
    if object["spec"]["nodeName"] == node {
        return Ok(());
    }
    Err(request.forbidden("can only access ResourceSlice with the same NodeName as the requesting node"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_may_set_what_describes_it_and_nothing_that_draws_workloads() {
        for allowed in
            ["kubernetes.io/hostname", "example.com/x", "plain", "node.kubernetes.io/x", "x.kubelet.kubernetes.io/y"]
        {
            assert!(!forbidden_label(allowed), "{allowed}");
        }
        for forbidden in [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "kubernetes.io/other",
            "x.k8s.io/y",
        ] {
            assert!(forbidden_label(forbidden), "{forbidden}");
        }
        let map = |value: Value| value.as_object().unwrap().clone();
        let changed =
            forbidden_labels(&map(json!({"x.k8s.io/y": "2"})), &map(json!({"x.k8s.io/y": "1", "k8s.io/z": "1"})));
        assert_eq!(changed, ["k8s.io/z", "x.k8s.io/y"]);
    }
}
