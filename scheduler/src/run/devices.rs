//! Devices for a pod, written into its claims before it is bound (`DynamicResources.PreBind`).

use std::sync::Arc;

use api_client::{Api, Error, Object, Patch};
use serde_json::{Value, json};

use crate::cluster::Grant;
use crate::objects::{Pod, ResourceClaim};

/// Keeps an allocated claim until its devices are given back (`resourceclaim.Finalizer`).
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Writes new allocations, and enters the pod into claims that have theirs already.
pub(super) async fn allocate(
    api: &Api<ResourceClaim>,
    pod: &Pod,
    grants: &[Grant],
    shared: &[Arc<ResourceClaim>],
) -> Result<(), Error> {
    let user = json!([{ "resource": "pods", "name": pod.metadata.name, "uid": pod.metadata.uid }]);
    for grant in grants {
        let claim = &grant.claim;
        let mut version = claim.metadata.resource_version.clone();
        if !claim.metadata.finalizers.iter().any(|f| f == FINALIZER) {
            let finalizers: Vec<&str> =
                claim.metadata.finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
            let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } });
            let (written, _) = api.patch(&claim.key(), &Patch::Merge(patch)).await?;
            version = written.metadata.resource_version;
        }
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "status": { "allocation": allocation(grant), "reservedFor": user },
        });
        api.patch_status(&claim.key(), &Patch::Merge(patch)).await?;
    }
    for claim in shared.iter().filter(|claim| !claim.reserved_for.contains(&pod.metadata.uid)) {
        let patch = json!({ "metadata": { "uid": claim.metadata.uid }, "status": { "reservedFor": user } });
        api.patch_status(&claim.key(), &Patch::Strategic(patch)).await?;
    }
    Ok(())
}

fn allocation(grant: &Grant) -> Value {
    let result = |(request, (driver, pool, device), is_admin): &(String, (String, String, String), bool)| {
        let mut result = json!({ "request": request, "driver": driver, "pool": pool, "device": device });
        if *is_admin {
            result["adminAccess"] = true.into();
        }
        result
    };
    let results: Vec<Value> = grant.devices.iter().map(result).collect();
    let mut allocation = json!({ "devices": { "results": results, "config": grant.config } });
    if let Some(node) = &grant.node {
        allocation["nodeSelector"] = json!({ "nodeSelectorTerms": [
            { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }] });
    }
    allocation
}
