//! What becomes of claims for devices: made from a pod's templates, given free when no pod uses them. Pure; the rules
//! are those of upstream's `resourceclaim` controller for pods (pod groups are no part of this).

use api_client::{Object, ObjectKey};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use crate::objects::{Owner, Pod, controller_of};

/// On a claim that was made from a template: which claim of its pod it is.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// On an allocated claim, by the scheduler.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Longest beginning of a generated name; five letters follow.
const BASE_CHARS_MAX: usize = 57;
/// Pods that share a claim (`ResourceClaimReservedForMaxSize`).
pub const RESERVED_MAX: usize = 256;

/// Will not run any more (`isPodDone`).
pub fn is_done(pod: &Pod) -> bool {
    pod.is_terminal() || pod.metadata.is_deleting() && pod.spec.node_name.is_empty()
}

/// The claim that a pod's template was made into, if it still is the pod's.
pub fn generated<'c>(
    pod: &Pod,
    name: &str,
    mut claims: impl Iterator<Item = &'c ResourceClaim>,
) -> Option<&'c ResourceClaim> {
    claims.find(|claim| {
        let of = claim.metadata.annotations.as_ref().and_then(|a| a.get(POD_CLAIM));
        of.is_some_and(|of| of == name) && is_of(pod, claim)
    })
}

pub fn is_of(pod: &Pod, claim: &ResourceClaim) -> bool {
    claim.metadata.deletion_timestamp.is_none()
        && controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.metadata.uid)
}

pub fn new_claim(pod: &Pod, name: &str, template: &ResourceClaimTemplate) -> Value {
    let metadata = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM.into(), name.into());
    let mut owner = json!(Owner::of(pod).reference());
    if let Some(owner) = owner.as_object_mut() {
        owner.remove("blockOwnerDeletion");
    }
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {
            "generateName": base_name(&pod.metadata.name, name), "labels": metadata.labels,
            "annotations": annotations, "ownerReferences": [owner],
        },
        "spec": template.spec.spec,
    })
}

/// Both names stay recognizable where they are too long together.
fn base_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_CHARS_MAX {
        return whole;
    }
    let shorten = |text: &str, length: usize| text[..text.len() * BASE_CHARS_MAX / length].to_owned();
    let first = shorten(pod, whole.len());
    let base = format!("{first}-{}", shorten(claim, whole.len()));
    base
}

/// What is to be done about one claim.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// `status.reservedFor` without those that are gone, if any are.
    pub reserved: Option<Vec<Value>>,
    /// The devices go back.
    pub deallocate: bool,
    pub remove_finalizer: bool,
    /// Made for a pod that will not run.
    pub delete: bool,
}

/// `uses` says of a pod (name, uid) whether it still may use the claim; `owner` is the pod it was made for, if that is
/// known.
pub fn plan(claim: &ResourceClaim, uses: &dyn Fn(&str, &str) -> bool, owner: Option<&Pod>) -> Plan {
    let status = claim.status.as_ref();
    let reserved = status.and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
    let is_pod = |r: &k8s_openapi::api::resource::v1::ResourceClaimConsumerReference| {
        r.api_group.as_deref().unwrap_or_default().is_empty() && r.resource == "pods"
    };
    let left: Vec<Value> = reserved.iter().filter(|r| !is_pod(r) || uses(&r.name, &r.uid)).map(|r| json!(r)).collect();
    let finalized = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let allocated = status.is_some_and(|s| s.allocation.is_some());
    let freed = left.len() < reserved.len();
    let unused = left.is_empty();
    let deleting = claim.metadata.deletion_timestamp.is_some();
    let deallocate = allocated && finalized && unused && (freed || deleting);
    let done = controller_of(&claim.metadata)
        .filter(|o| o.kind == Pod::KIND)
        .is_some_and(|of| owner.is_some_and(|pod| pod.metadata.uid != of.uid || is_done(pod)));
    Plan {
        reserved: freed.then_some(left),
        deallocate,
        remove_finalizer: finalized && unused && (freed || deleting) && (!allocated || deallocate),
        delete: unused && done && !deleting,
    }
}

/// The pod whose claim it is, by its owner.
pub fn owner_key(claim: &ResourceClaim) -> Option<ObjectKey> {
    let owner = controller_of(&claim.metadata).filter(|o| o.kind == Pod::KIND)?;
    Some(ObjectKey::new(claim.metadata.namespace.clone().unwrap_or_default(), owner.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str) -> Pod {
        let metadata = json!({"name": "p", "namespace": "a", "uid": uid});
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
    }

    fn claim(reserved: &[&str], allocated: bool) -> ResourceClaim {
        let reserved: Vec<Value> = reserved.iter().map(|n| json!({"resource": "pods", "name": n, "uid": n})).collect();
        let allocation = if allocated { json!({}) } else { Value::Null };
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "a", "finalizers": [FINALIZER], "ownerReferences": [owner]},
            "spec": {}, "status": {"reservedFor": reserved, "allocation": allocation},
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_is_freed_with_its_last_user() {
        let one_left = plan(&claim(&["x", "y"], true), &|name, _| name == "x", None);
        assert_eq!(one_left.reserved.map(|r| r.len()), Some(1));
        assert!(!one_left.deallocate && !one_left.remove_finalizer);
        let last = plan(&claim(&["x"], true), &|_, _| false, None);
        assert!(last.deallocate && last.remove_finalizer && !last.delete, "{last:?}");
        // Allocated ahead of its use: nobody has stopped to use it.
        assert_eq!(plan(&claim(&[], true), &|_, _| true, None), Plan::default());
    }

    #[test]
    fn a_claim_made_for_a_pod_goes_when_it_is_done() {
        let delete = |owner: Option<&Pod>| plan(&claim(&[], false), &|_, _| true, owner).delete;
        assert!(!delete(None), "the pod may not be known yet");
        assert!(!delete(Some(&pod("u", "Running"))));
        assert!(delete(Some(&pod("u", "Succeeded"))));
        assert!(delete(Some(&pod("other", "Running"))));
    }

    #[test]
    fn names_of_claims_fit() {
        assert_eq!(base_name("web", "gpu"), "web-gpu-");
        let long = base_name(&"p".repeat(60), &"c".repeat(60));
        assert!(long.len() <= BASE_CHARS_MAX && long.contains("p-c"), "{long}");
    }
}
