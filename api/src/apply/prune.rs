//! One apply: merge the config into the live object, take away what the manager applied before and no longer does, and
//! move ownership (upstream's `merge.Updater.Apply`).

use serde_json::Value;

use super::compare::Typed;
use super::entry::{Entry, Identity};
use super::managed::{Managed, NEVER_OWNED};
use super::owned::{fields, with_parents};
use super::remove::remove;
use super::scope::Scope;
use super::set::Set;
use super::typed::Type;
use super::{Error, Request, merge, values};

/// The outcome of an apply.
pub(super) struct Merged {
    /// `None` when the object did not change.
    pub object: Option<Value>,
    pub managed: Managed,
}

/// Applies the request's config. `managed` holds the entries of the live object.
pub(super) fn merge_config(
    scope: &Scope<'_>,
    live: Option<&Value>,
    request: &Request<'_>,
    mut managed: Managed,
    force: bool,
) -> Result<Merged, Error> {
    let base = live.unwrap_or(&values::EMPTY_OBJECT);
    managed.reconcile(scope, base);
    let identity = Identity::apply(request.manager, request.subresource);
    let last = managed.remove(&identity);
    let set = scope.filter(fields(scope.ty(), request.config));

    let mut new = merge::merge(scope.ty(), base, request.config);
    if let Some(last) = &last {
        new = prune(scope, new, &managed, &set, last);
    }
    let write = scope.write(base, &new, Typed::LEFT);
    if !force {
        let conflicts = managed.conflicts(scope, &write);
        if !conflicts.is_empty() {
            return Err(Error::Conflicts(conflicts));
        }
    }
    managed.lose(scope, &write, None);

    let is_unchanged = live.is_some_and(|live| values::equal(live, &new));
    let time = if is_unchanged { last.and_then(|entry| entry.time) } else { Some(request.now) };
    managed.add(Entry::new(identity, request.api_version, time, set.difference(&NEVER_OWNED)));
    Ok(Merged { object: (!is_unchanged).then_some(new), managed })
}

/// Takes out of `merged` what the manager owned by its last apply, unless it, or anybody else, still owns it, or it
/// never was the manager's to begin with.
fn prune(scope: &Scope<'_>, merged: Value, others: &Managed, set: &Set, last: &Entry) -> Value {
    let last_set = last.set();
    if last_set.is_empty() {
        return merged;
    }
    // The work is done in the version of the last apply; when that is gone, nothing can be taken back.
    let Some((ty, at_last)) = scope.at(&merged, &last.api_version) else { return merged };
    let mut owned: Vec<(&str, Set)> = vec![(scope.api_version, set.clone())];
    for entry in &others.entries {
        match owned.iter_mut().find(|(version, _)| *version == entry.api_version) {
            Some((_, all)) => *all = all.union(&entry.set()),
            None => owned.push((&entry.api_version, entry.set())),
        }
    }
    // First what is owned in the version at hand: fields pruned by mistake could make conversion fail.
    owned.sort_by_key(|(version, _)| *version != last.api_version);

    let mut pruned = remove(ty, &at_last, &with_parents(ty, &last_set));
    for (version, owned) in &owned {
        pruned = add_back_owned(scope, &at_last, pruned, &last.api_version, version, owned);
    }
    let pruned = keep_what_was_not_applied(ty, &at_last, &pruned, &last_set);
    scope.at(&pruned, scope.api_version).map_or(merged, |(_, object)| object.into_owned())
}

/// Undoes the removal of what somebody owns in `version`. Both objects are in the version `from`.
fn add_back_owned(scope: &Scope<'_>, merged: &Value, pruned: Value, from: &str, version: &str, owned: &Set) -> Value {
    let (Some((ty, merged)), Some((_, there))) = (scope.at(merged, version), scope.at(&pruned, version)) else {
        return pruned;
    };
    let kept = add_back(ty, &merged, &there, owned);
    match scope.at(&kept, from) {
        Some((_, object)) => object.into_owned(),
        None => pruned,
    }
}

fn add_back(ty: Type<'_>, merged: &Value, pruned: &Value, owned: &Set) -> Value {
    let all = with_parents(ty, &fields(ty, merged));
    let kept = with_parents(ty, &fields(ty, pruned)).union(&with_parents(ty, owned));
    remove(ty, merged, &all.difference(&kept))
}

/// Only what the last apply owned goes: other things below it that nobody owns stay.
fn keep_what_was_not_applied(ty: Type<'_>, merged: &Value, pruned: &Value, last: &Set) -> Value {
    let gone = with_parents(ty, &fields(ty, merged)).difference(&with_parents(ty, &fields(ty, pruned)));
    remove(ty, merged, &gone.intersection(&with_parents(ty, last)))
}
