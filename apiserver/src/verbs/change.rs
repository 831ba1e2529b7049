//! The one way to change a stored object: read it, make the new one, admit, prepare, validate, compare and swap.
//! Update, patch, apply and the subresources differ only in how they make the new object.

use serde_json::Value;
use store_client::Revision;

use api::apply;
use api::field;
use api::meta;
use api::status::Status;
use api::strategy::Verb;

use super::create;
use super::scale;
use super::write::{Admission, Phase};
use super::{Target, WriteOptions};
use crate::admission::Operation;
use crate::authz::Attributes;
use crate::cache::item::encode;
use crate::convert;
use crate::status::from_store;

/// Swaps tried before a write gives up on an object that others keep changing.
const ATTEMPTS_MAX: usize = 100;

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// How a new object comes about.
pub trait Change: Send {
    /// The object to store, in the version asked for, from the stored one (`None` when there is none). Called again
    /// after a lost swap.
    fn make(&mut self, target: &mut Target, existing: Option<&Value>) -> Result<Value, Status>;

    /// A missing object is created, whatever the strategy says (apply).
    fn creates(&self) -> bool {
        false
    }

    /// A uid in the new object is a precondition (update); else a different one is a refused change (patch).
    fn pins_uid(&self) -> bool {
        true
    }
}

/// What a change did.
pub struct Outcome {
    /// As stored.
    pub object: Value,
    pub created: bool,
}

/// Applies a change to the object the request names.
pub async fn run(target: &mut Target, change: &mut dyn Change, options: &WriteOptions) -> Result<Outcome, Status> {
    let key = target.key(target.namespace(), target.name());
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let found = target.cache.snapshot().get(&key).cloned();
        let Some(item) = found else { return insert(target, change, options).await };
        match replace(target, change, options, &key, item.value(), item.revision()).await? {
            Some(object) => return Ok(Outcome { object, created: false }),
            None => continue,
        }
    }
    Err(target.conflict(target.name(), MODIFIED))
}

async fn insert(target: &mut Target, change: &mut dyn Change, options: &WriteOptions) -> Result<Outcome, Status> {
    let subresource = !target.call.info.subresource.is_empty();
    if subresource || !(change.creates() || target.strategy.allows_create_on_update()) {
        return Err(target.not_found(target.name()));
    }
    let mut object = change.make(target, None)?;
    if !meta::uid(&object).is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            meta::uid(&object)
        );
        return Err(target.conflict(target.name(), why));
    }
    // Nothing is there that a stated version could be the version of.
    meta::metadata_mut(&mut object).remove("resourceVersion");
    create::wipe_system_fields(&mut object);
    authorize_create(target)?;
    let object = create::insert(target, object, options).await?;
    Ok(Outcome { object, created: true })
}

/// Creating by an update needs the right to create.
fn authorize_create(target: &Target) -> Result<(), Status> {
    let mut info = target.call.info.clone();
    info.verb = "create".to_owned();
    target.server.authorizer.authorize(&target.server, &Attributes::of(&target.call.user, &info))
}

/// One attempt; `None` when the swap was lost and may be tried again.
async fn replace(
    target: &mut Target,
    change: &mut dyn Change,
    options: &WriteOptions,
    key: &str,
    old: Value,
    revision: u64,
) -> Result<Option<Value>, Status> {
    let stored = old;
    let live = target.requested(stored.clone());
    let old = target.current(stored.clone());
    let scale = target.scale.clone();
    let new = match &scale {
        Some(paths) => scale::make(target, change, &live, paths)?,
        None => change.make(target, Some(&live))?,
    };
    if change.pins_uid() && scale.is_none() {
        check_uid(target, &new, &old)?;
    }
    check_version(target, &new, revision)?;
    let admission_options = options.to_value("UpdateOptions");
    let seen = |object: &Value| match &scale {
        Some(paths) => scale::of(object, paths),
        None => object.clone(),
    };
    let name = target.name().to_owned();
    let admission = Admission {
        operation: Operation::Update,
        name: &name,
        old: &seen(&live),
        options: &admission_options,
        dry_run: options.dry_run,
    };
    let mut new = match &scale {
        // Admission sees the Scale; what it changes of it goes back into the object.
        Some(paths) => {
            let admitted = target.admit(Phase::Mutate, &admission, seen(&new)).await?;
            let mut new = new;
            scale::write_back(&mut new, &admitted, paths);
            new
        }
        None => target.admit(Phase::Mutate, &admission, new).await?,
    };
    target.deduplicate_owners(&mut new, true);
    let new = prepare(target, new, &old)?;
    let requested = seen(&target.requested(new.clone()));
    target.admit(Phase::Validate, &admission, requested).await?;
    swap(target, options, key, new, stored, revision).await
}

fn check_uid(target: &Target, new: &Value, old: &Value) -> Result<(), Status> {
    let (uid, stored) = (meta::uid(new), meta::uid(old));
    if uid.is_empty() || uid == stored {
        return Ok(());
    }
    let key = target.store_key(&target.key(target.namespace(), target.name()));
    let key = key.escape_ascii();
    Err(target.conflict(
        target.name(),
        format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}"
        ),
    ))
}

/// A resourceVersion a writer states must be the stored one. A patched object states the one it was made from.
fn check_version(target: &Target, new: &Value, revision: u64) -> Result<(), Status> {
    let name = target.name();
    let stated = meta::resource_version(new);
    let version: u64 = match stated {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| Status::new(500, "", format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))?,
    };
    match version {
        0 if target.strategy.allows_unconditional_update() => Ok(()),
        0 => {
            let error = field::Error::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            Err(Status::invalid(&target.resource.group, &target.resource.plural, name, &[error]))
        }
        version if version == revision => Ok(()),
        _ => Err(target.conflict(name, MODIFIED)),
    }
}

/// Restores what this write may not change, and validates.
fn prepare(target: &mut Target, new: Value, old: &Value) -> Result<Value, Status> {
    let strategy = target.strategy;
    let mut new = convert::to_storage(&target.resource, &target.storage, new);
    target.ensure_namespace(&mut new)?;
    // An update that states no version is one of the stored version.
    meta::metadata_mut(&mut new).insert("resourceVersion".to_owned(), meta::resource_version(old).into());
    strategy.prepare_update(&mut new, old, &target.context(Verb::Update));
    let mut errors = strategy.validate_update(&new, old, &target.context(Verb::Update));
    // What was wrong before and is as it was may stay (upstream's ratcheting).
    let broken = target.schema_errors(&new);
    let before = if broken.is_empty() { Vec::new() } else { target.schema_errors(old) };
    errors.extend(broken.into_iter().filter(|error| !before.contains(error)));
    if errors.is_empty() {
        errors = target.expression_errors(&new, Some(old));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&target.storage.group, &target.storage.kind, target.name(), &errors));
    }
    let warnings = strategy.warnings(&new, Some(old), &target.context(Verb::Update));
    target.warnings.extend(warnings);
    apply::keep_unchanged_times(old, &mut new);
    Ok(new)
}

async fn swap(
    target: &mut Target,
    options: &WriteOptions,
    key: &str,
    mut new: Value,
    old: Value,
    revision: u64,
) -> Result<Option<Value>, Status> {
    let store_key = target.store_key(key);
    if completes_deletion(&new, &old) {
        if options.dry_run {
            return Ok(Some(new));
        }
        return match target.server.store.delete(store_key, Revision(revision)).await {
            Ok(revision) => {
                target.server.cache.catch_up(revision).await;
                Ok(Some(new))
            }
            Err(store_client::Error::NotFound { .. }) => Ok(Some(new)),
            Err(error) => lost(target, error),
        };
    }
    if new == old || options.dry_run {
        return Ok(Some(new));
    }
    match target.server.store.update(store_key, encode(&new).into(), Revision(revision)).await {
        Ok(revision) => {
            target.server.cache.catch_up(revision).await;
            meta::metadata_mut(&mut new).insert("resourceVersion".to_owned(), revision.to_string().into());
            Ok(Some(new))
        }
        Err(error) => lost(target, error),
    }
}

/// The last finalizer of an object in deletion is gone (`ShouldDeleteDuringUpdate`).
fn completes_deletion(new: &Value, old: &Value) -> bool {
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let holds = new["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    meta::deletion_timestamp(old).is_some() && meta::finalizers(new).next().is_none() && grace == 0 && !holds
}

/// A lost swap is tried again: with the newest object, against which a stated version fails.
fn lost(target: &Target, error: store_client::Error) -> Result<Option<Value>, Status> {
    match error {
        store_client::Error::Conflict { .. } => Ok(None),
        store_client::Error::NotFound { .. } => Err(target.not_found(target.name())),
        other => Err(from_store(&other)),
    }
}
