//! Who owns the claims of a stateful set, so that the garbage collector removes them when the retention policy says
//! (`isClaimOwnerUpToDate`, `updateClaimOwnerRefForSetAndPod`). Pure.

use api_client::Object;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::identity::Set;
use crate::objects::{Owner, Pod};

/// What happens to claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub delete_with_set: bool,
    pub delete_when_scaled: bool,
}

impl Policy {
    pub fn of(set: &Set<'_>) -> Self {
        let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let is_delete = |policy: Option<&String>| policy.is_some_and(|p| p == "Delete");
        Self {
            delete_with_set: is_delete(policy.and_then(|p| p.when_deleted.as_ref())),
            delete_when_scaled: is_delete(policy.and_then(|p| p.when_scaled.as_ref())),
        }
    }
}

/// The pod of a claim, which may not exist.
#[derive(Clone, Copy)]
pub struct User<'a> {
    pub name: &'a str,
    /// Empty for a pod that isn't there.
    pub uid: &'a str,
    pub ordinal: i32,
}

/// What to do about a claim's owners.
#[derive(Clone, Debug, PartialEq)]
pub enum Owners {
    Right,
    /// Write these references.
    Write(Vec<Value>),
    /// As [`Owners::Write`], and tell that another controller has the claim, so that the policy doesn't count.
    Contested(Vec<Value>),
}

/// The owners a new claim gets.
pub fn initial(set: &Set<'_>, ordinal: i32) -> Vec<Value> {
    let (of_set, _) = wanted(set, ordinal);
    if of_set { vec![Owner::of(set.object).reference()] } else { Vec::new() }
}

/// Whether set and pod should own the claim.
fn wanted(set: &Set<'_>, ordinal: i32) -> (bool, bool) {
    let policy = Policy::of(set);
    let scaled_away = policy.delete_when_scaled && !set.ordinals().contains(&ordinal);
    (policy.delete_with_set && !scaled_away, scaled_away)
}

/// Whether a reference names this object, of whatever uid.
fn names(reference: &OwnerReference, api_version: &str, kind: &str, name: &str) -> bool {
    reference.api_version == api_version && reference.kind == kind && reference.name == name
}

fn names_set(reference: &OwnerReference, set: &Set<'_>) -> bool {
    names(reference, &StatefulSet::api_version(), StatefulSet::KIND, set.name())
}

fn names_pod(reference: &OwnerReference, pod: &User<'_>) -> bool {
    names(reference, &Pod::api_version(), Pod::KIND, pod.name)
}

/// The claim belongs to an earlier pod of this name, and goes with it: a new pod must wait until it is gone
/// (`PodClaimIsStale`).
pub fn is_stale(set: &Set<'_>, claim: &PersistentVolumeClaim, pod: &User<'_>) -> bool {
    Policy::of(set).delete_when_scaled && references(claim).any(|r| names_pod(r, pod) && r.uid != pod.uid)
}

fn references(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &OwnerReference> {
    claim.metadata.owner_references.iter().flatten()
}

/// What the owners of a claim should become.
pub fn owners(set: &Set<'_>, claim: &PersistentVolumeClaim, pod: &User<'_>) -> Owners {
    let stale = |r: &OwnerReference| names_set(r, set) && r.uid != set.uid() || names_pod(r, pod) && r.uid != pod.uid;
    if references(claim).any(stale) {
        // An earlier set or pod of this name had it; the garbage collector decides.
        return Owners::Right;
    }
    let ours = |r: &OwnerReference| names_set(r, set) || names_pod(r, pod);
    let others: Vec<Value> = references(claim).filter(|r| !ours(r)).map(|r| json!(r)).collect();
    let policy = Policy::of(set);
    let has_policy = policy.delete_with_set || policy.delete_when_scaled;
    if has_policy && references(claim).any(|r| !ours(r) && r.controller == Some(true)) {
        return if references(claim).any(ours) { Owners::Contested(others) } else { Owners::Right };
    }
    let (of_set, of_pod) = wanted(set, pod.ordinal);
    let owned_by = |uid: &str| references(claim).any(|r| !uid.is_empty() && r.uid == uid);
    let controlled = references(claim).filter(|r| ours(r)).all(|r| r.controller == Some(true));
    if controlled && owned_by(set.uid()) == of_set && owned_by(pod.uid) == of_pod {
        return Owners::Right;
    }
    let mut owners = others;
    if of_set {
        owners.push(Owner::of(set.object).reference());
    }
    if of_pod {
        let (name, uid) = (pod.name.to_owned(), pod.uid.to_owned());
        let owner =
            Owner { api_version: Pod::api_version(), kind: Pod::KIND, name, uid, deleting: false, finalizer: None };
        owners.push(owner.reference());
    }
    Owners::Write(owners)
}
