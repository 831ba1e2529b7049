//! Claiming: which objects a controller owns, which it takes (they match and nobody controls them) and which it lets
//! go (they no longer match). The semantics of `controller.BaseControllerRefManager.ClaimObject`.

use std::sync::Arc;

use api::selector::LabelSelector;
use api_client::{Cache, Change, Metadata, Object, ObjectKey, Patch};
use serde_json::json;

use crate::engine::{Error, Work};
use crate::objects::{Owned, Owner, selects};

#[derive(Debug)]
pub struct Claim<T> {
    /// Controlled and matching, including those to adopt.
    pub owned: Vec<Arc<T>>,
    pub adopt: Vec<Arc<T>>,
    pub release: Vec<Arc<T>>,
}

/// Sorts candidates; those of other owners are left out.
pub fn claim<'a, T: Owned>(
    owner: &Owner,
    selector: &LabelSelector,
    candidates: impl Iterator<Item = &'a Arc<T>>,
) -> Claim<T> {
    claim_where(owner, |object| selects(selector, object), candidates)
}

/// Like [`claim`], where more than a selector decides what matches.
pub fn claim_where<'a, T: Owned>(
    owner: &Owner,
    matches: impl Fn(&T) -> bool,
    candidates: impl Iterator<Item = &'a Arc<T>>,
) -> Claim<T> {
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in candidates {
        let matches = matches(object);
        match object.controller_uid() {
            Some(uid) if uid == owner.uid => {
                if matches {
                    claim.owned.push(object.clone());
                } else if !owner.deleting {
                    claim.release.push(object.clone());
                }
            }
            Some(_) => {}
            None => {
                if matches && !owner.deleting && !object.metadata().is_deleting() {
                    claim.adopt.push(object.clone());
                    claim.owned.push(object.clone());
                }
            }
        }
    }
    claim
}

/// Writes the owner references of adopted and released objects. Before adopting, the owner is read past the cache:
/// one that is being deleted must not gain dependents (`RecheckDeletionTimestamp`).
pub async fn enforce<T: Owned, O: Object>(
    work: &Work,
    owner: &Owner,
    owner_key: &ObjectKey,
    claim: &Claim<T>,
) -> Result<(), Error> {
    for object in &claim.release {
        let mut patch = json!({"metadata": {
            "uid": object.metadata().uid(),
            "ownerReferences": [{"$patch": "delete", "uid": owner.uid}],
        }});
        if let Some(finalizer) = owner.finalizer {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        match work.patch::<T>(&object.key(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            // Gone, or without owner references: nothing left to release.
            Err(Error::Api(e)) if e.is_not_found() || e.is_invalid() => {}
            Err(e) => return Err(e),
        }
    }
    if claim.adopt.is_empty() {
        return Ok(());
    }
    let live = work.live::<O>().get(owner_key).await?;
    if live.metadata().uid() != owner.uid || live.metadata().is_deleting() {
        return Err(Error::Object {
            object: format!("{} {owner_key}", owner.kind),
            why: "is being deleted, and adopts nothing".into(),
        });
    }
    for object in &claim.adopt {
        let mut patch = json!({"metadata": {"uid": object.metadata().uid(), "ownerReferences": [owner.reference()]}});
        if let Some(finalizer) = owner.finalizer {
            patch["metadata"]["finalizers"] = json!([finalizer]);
        }
        work.patch::<T>(&object.key(), &Patch::Strategic(patch)).await?;
    }
    Ok(())
}

/// An object wakes its controller, also the one it had; one without, every owner of the kind that might adopt it.
pub fn wake_owners<T: Owned, O: Object>(
    owners: &Cache<O>,
    selector: impl Fn(&O) -> LabelSelector,
    change: &Change<T>,
    wake: &dyn Fn(ObjectKey),
) {
    let namespace = change.key.namespace.as_str();
    for owner in [&change.old, &change.new].into_iter().flatten().filter_map(|object| object.controller()) {
        if owner.is::<O>() {
            wake(ObjectKey::new(namespace, owner.name));
        }
    }
    // What nobody took with these labels nobody takes now, unless a candidate changes, which wakes itself.
    let same = |new: &T| change.old.as_ref().is_some_and(|old| old.controller().is_none() && old.has_labels_of(new));
    if let Some(orphan) = change.new.as_ref().filter(|object| object.controller().is_none() && !same(object)) {
        for candidate in owners.snapshot().namespace(namespace) {
            if selects(&selector(candidate), &**orphan) {
                wake(candidate.key());
            }
        }
    }
}
