//! What deleting an object means: at once, gracefully, or once its finalizers are gone
//! (`rest.BeforeDelete`, `Store.Delete`). [`plan`] decides, purely; [`delete_object`] acts.

use jiff::{Span, Timestamp};
use serde_json::Value;
use store_client::Revision;

use api::meta;
use api::status::Status;

use super::write::{Admission, Phase, timestamp};
use super::{DeleteOptions, Propagation, Target};
use crate::admission::Operation;
use crate::cache::item::encode;
use crate::definitions;
use crate::deletion_rules::Rules;
use crate::status::from_store;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Swaps tried before a deletion gives up on an object that others keep changing.
const ATTEMPTS_MAX: usize = 100;

/// What to do with an object that is to be deleted.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// A deletion is under way and this one does not hasten it.
    Pending,
    /// Store this; then, if so said, remove it.
    Mark {
        object: Value,
        then_remove: bool,
    },
    Remove,
}

/// Decides. `grace_seconds` is the strategy's answer for kinds that are deleted gracefully.
pub fn plan(
    object: &Value,
    options: &DeleteOptions,
    rules: &Rules,
    grace_seconds: Option<i64>,
    now: Timestamp,
) -> Plan {
    let mut marked = object.clone();
    let graceful = match grace_seconds {
        None => Grace::None,
        Some(seconds) => begin_grace(&mut marked, options, seconds, now),
    };
    let (period, waits) = match graceful {
        Grace::Pending => return Plan::Pending,
        Grace::None => (0, false),
        Grace::Period(seconds) => (seconds, true),
    };
    let finalizers = finalizers_after(object, options, rules);
    let changed = !finalizers.iter().map(String::as_str).eq(meta::finalizers(object));
    if changed {
        let metadata = meta::metadata_mut(&mut marked);
        match finalizers.is_empty() {
            true => metadata.remove("finalizers"),
            false => metadata.insert("finalizers".to_owned(), finalizers.clone().into()),
        };
    }
    if !finalizers.is_empty() {
        if !waits {
            mark_deleting(&mut marked, now);
        }
        return Plan::Mark { object: marked, then_remove: false };
    }
    match waits {
        true => Plan::Mark { object: marked, then_remove: period == 0 },
        false => Plan::Remove,
    }
}

enum Grace {
    /// Deleted at once, as far as grace is concerned.
    None,
    /// The deletion under way stands.
    Pending,
    Period(i64),
}

fn begin_grace(object: &mut Value, options: &DeleteOptions, seconds: i64, now: Timestamp) -> Grace {
    let current = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let Some(deletion) = meta::deletion_timestamp(object) else {
        set_deletion(object, now + Span::new().seconds(seconds), seconds);
        count_generation(object);
        return Grace::Period(seconds);
    };
    let Some(current) = current.filter(|current| *current != 0) else { return Grace::None };
    // Only a shorter period may be asked for.
    let Some(requested) = options.grace_period_seconds else { return Grace::Pending };
    if requested >= current {
        return Grace::Pending;
    }
    let deletion: Timestamp = deletion.parse().unwrap_or(now);
    let moved = deletion - Span::new().seconds(current) + Span::new().seconds(requested);
    // The period cannot end in the past; a graceful request stays graceful, so that the node removes the object.
    let (moved, requested) = if moved < now { (now, requested.min(1)) } else { (moved, requested) };
    set_deletion(object, moved, requested);
    Grace::Period(requested)
}

fn set_deletion(object: &mut Value, at: Timestamp, seconds: i64) {
    let metadata = meta::metadata_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), timestamp(at).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
}

fn count_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Upstream's `markAsDeleting`, for objects that wait for finalizers only.
fn mark_deleting(object: &mut Value, now: Timestamp) {
    let deletion = meta::deletion_timestamp(object).and_then(|t| t.parse::<Timestamp>().ok());
    if deletion.is_none() {
        count_generation(object);
    }
    let at = deletion.filter(|deletion| *deletion <= now).unwrap_or(now);
    set_deletion(object, at, 0);
}

/// The finalizers with those of garbage collection as the options have it (`deletionFinalizersForGarbageCollection`).
fn finalizers_after(object: &Value, options: &DeleteOptions, rules: &Rules) -> Vec<String> {
    let own = |f: &&str| *f != ORPHAN && *f != FOREGROUND;
    let mut finalizers: Vec<String> = meta::finalizers(object).filter(own).map(str::to_owned).collect();
    if !rules.garbage_collected {
        return finalizers;
    }
    let stated = meta::finalizers(object).find(|f| !own(f));
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation, stated) {
        (Some(orphan), ..) => (orphan, false),
        (None, Some(propagation), _) => (propagation == Propagation::Orphan, propagation == Propagation::Foreground),
        (None, None, Some(finalizer)) => (finalizer == ORPHAN, finalizer == FOREGROUND),
        (None, None, None) => (rules.orphans_by_default, false),
    };
    if orphan {
        finalizers.push(ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FOREGROUND.to_owned());
    }
    finalizers
}

/// What a deletion left behind.
pub struct Deleted {
    /// The last state, as stored.
    pub object: Value,
    /// It is gone, or would be without dry run.
    pub gone: bool,
    /// A deletion was under way already.
    pub pending: bool,
}

/// Deletes one object of the target's resource, as far as its rules allow now.
pub async fn delete_object(
    target: &mut Target,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    operation_options: &Value,
) -> Result<Deleted, Status> {
    let key = target.key(namespace, name);
    let rules = Rules::of(&target.resource);
    let mut options = options.clone();
    let mut marked: Option<Value> = None;
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let item = target.cache.snapshot().get(&key).cloned();
        let found = item.as_ref().map(|item| item.value());
        if let Some(object) = marked.take_if(|marked| is_gone(marked, found.as_ref())) {
            return Ok(Deleted { object, gone: true, pending: false });
        }
        let (Some(item), Some(old)) = (item, found) else { return Err(target.not_found(name)) };
        check_preconditions(target, &old, name, &options)?;
        if marked.is_none() {
            admit(target, name, &old, &options, operation_options).await?;
        }
        let grace = target.strategy.deletion_grace_seconds(&old, options.grace_period_seconds);
        let plan = if rules.spec_finalizers && has_spec_finalizers(&old) {
            terminate(&old, target.now)
        } else if rules.cleans_instances && meta::deletion_timestamp(&old).is_none() {
            mark_definition(&old, target.now)
        } else {
            plan(&old, &options, &rules, grace, target.now)
        };
        let revision = Revision(item.revision());
        match act(target, &key, old, revision, plan, options.dry_run).await? {
            Step::Done(deleted) => return Ok(deleted),
            Step::Again => {}
            Step::Marked(revision, object) => {
                marked = Some(object);
                // The version asked for has just been replaced by the marked one.
                if options.resource_version.is_some() {
                    options.resource_version = Some(revision.to_string());
                }
                target.server.cache.wait_for(revision.get()).await?;
            }
        }
    }
    Err(target.conflict(name, "the object keeps changing; try again"))
}

/// Whether what this deletion has marked is gone, by whoever was quicker to remove it (a controller that sees the mark,
/// another deletion): then this deletion has what it wanted.
fn is_gone(marked: &Value, found: Option<&Value>) -> bool {
    found.is_none_or(|found| meta::uid(found) != meta::uid(marked))
}

async fn admit(
    target: &mut Target,
    name: &str,
    old: &Value,
    options: &DeleteOptions,
    operation_options: &Value,
) -> Result<(), Status> {
    let live = target.requested(old.clone());
    let admission = Admission {
        operation: Operation::Delete,
        name,
        old: &live,
        options: operation_options,
        dry_run: options.dry_run,
    };
    target.admit(Phase::Mutate, &admission, Value::Null).await?;
    target.admit(Phase::Validate, &admission, Value::Null).await?;
    Ok(())
}

pub(super) fn check_preconditions(
    target: &Target,
    object: &Value,
    name: &str,
    options: &DeleteOptions,
) -> Result<(), Status> {
    // Upstream names the kind here, and checks namespaces elsewhere, in other words.
    let rules = Rules::of(&target.resource);
    if rules.spec_finalizers || rules.cleans_instances {
        return check_recorded(target, object, name, options);
    }
    let conflict = |why: String| Err(Status::conflict(&target.resource.group, &target.resource.kind, name, why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(object)) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            meta::uid(object)
        ));
    }
    let version = meta::resource_version(object);
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

fn check_recorded(target: &Target, object: &Value, name: &str, options: &DeleteOptions) -> Result<(), Status> {
    for (what, stated, stored) in [
        ("UID", &options.uid, meta::uid(object)),
        ("ResourceVersion", &options.resource_version, meta::resource_version(object)),
    ] {
        if let Some(stated) = stated.as_deref().filter(|stated| *stated != stored) {
            let why = format!("Precondition failed: {what} in precondition: {stated}, {what} in object meta: {stored}");
            return Err(target.conflict(name, why));
        }
    }
    Ok(())
}

fn has_spec_finalizers(object: &Value) -> bool {
    object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// A namespace whose content must go first: it is marked, and a controller takes it from there.
fn terminate(object: &Value, now: Timestamp) -> Plan {
    if meta::deletion_timestamp(object).is_some() && object["status"]["phase"] == "Terminating" {
        return Plan::Pending;
    }
    let mut marked = object.clone();
    if meta::deletion_timestamp(object).is_none() {
        meta::metadata_mut(&mut marked).insert("deletionTimestamp".to_owned(), timestamp(now).into());
    }
    meta::object_mut(meta::child_mut(&mut marked, "status")).insert("phase".to_owned(), "Terminating".into());
    Plan::Mark { object: marked, then_remove: false }
}

/// A definition whose objects must go first.
fn mark_definition(object: &Value, now: Timestamp) -> Plan {
    let mut marked = object.clone();
    let mut finalizers: Vec<&str> = meta::finalizers(object).collect();
    if !finalizers.contains(&definitions::CLEANUP_FINALIZER) {
        finalizers.push(definitions::CLEANUP_FINALIZER);
    }
    let finalizers = serde_json::json!(finalizers);
    marked["status"] = definitions::with_condition(object, definitions::terminating(), now);
    let metadata = meta::metadata_mut(&mut marked);
    metadata.insert("finalizers".to_owned(), finalizers);
    metadata.insert("deletionTimestamp".to_owned(), timestamp(now).into());
    Plan::Mark { object: marked, then_remove: false }
}

enum Step {
    Done(Deleted),
    /// The swap was lost: look again.
    Again,
    /// Marked under this revision: now remove it.
    Marked(Revision, Value),
}

async fn act(
    target: &Target,
    key: &str,
    old: Value,
    revision: Revision,
    plan: Plan,
    dry_run: bool,
) -> Result<Step, Status> {
    let store = &target.server.store;
    let done = |object, gone| Ok(Step::Done(Deleted { object, gone, pending: false }));
    let lost = |error| match error {
        store_client::Error::Conflict { .. } | store_client::Error::NotFound { .. } => Ok(Step::Again),
        other => Err(from_store(&other)),
    };
    match plan {
        Plan::Pending => Ok(Step::Done(Deleted { object: old, gone: false, pending: true })),
        Plan::Mark { object, then_remove } if dry_run => done(object, then_remove),
        Plan::Mark { object, then_remove: false } if object == old => done(object, false),
        Plan::Mark { mut object, then_remove } => {
            match store.update(target.store_key(key), encode(&object).into(), revision).await {
                Ok(written) => {
                    target.server.cache.catch_up(written).await;
                    meta::metadata_mut(&mut object).insert("resourceVersion".to_owned(), written.to_string().into());
                    if then_remove { Ok(Step::Marked(written, object)) } else { done(object, false) }
                }
                Err(error) => lost(error),
            }
        }
        Plan::Remove if dry_run => done(old, true),
        Plan::Remove => match store.delete(target.store_key(key), revision).await {
            Ok(removed) => {
                target.server.cache.catch_up(removed).await;
                let mut object = old;
                meta::metadata_mut(&mut object).insert("resourceVersion".to_owned(), removed.to_string().into());
                done(object, true)
            }
            Err(error) => lost(error),
        },
    }
}

#[cfg(test)]
mod tests;
