//! Server-side apply and field ownership (`metadata.managedFields`), as upstream's `managedfields.FieldManager` on
//! structured-merge-diff: [`apply()`] merges what a manager applies into the live object, [`track`] keeps the books on
//! every other write.
//!
//! Invariant: the managedFields written here are canonical (sorted, no entry without fields), so that later writes can
//! look fields up in them without parsing. `track` runs on every write: entries that a write does not concern are
//! passed through untouched.

mod compare;
mod conflict;
mod element;
mod entry;
mod fields_v1;
mod last_applied;
mod managed;
mod merge;
mod owned;
mod prune;
mod reconcile;
mod remove;
mod scale;
mod scope;
mod set;
mod time;
mod typed;
mod values;
mod versions;

use jiff::Timestamp;
use serde_json::Value;

use crate::meta;
use crate::schema::Schema;
use crate::status::Status;

pub use conflict::Conflict;
pub use element::{Element, Path};
pub use entry::Operation;
pub use last_applied::LAST_APPLIED_ANNOTATION;
pub use managed::{MAX_UPDATE_MANAGERS, validate};
pub use scale::Scale;
pub use set::Set;
pub use time::keep_unchanged_times;
pub use versions::{Served, Versions};

use compare::Typed;
use entry::Identity;
use managed::Managed;
use scope::Scope;

/// The name recorded for a write that does not name its field manager.
const UNKNOWN_MANAGER: &str = "unknown";
/// The manager of everything that was there before an object was first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// An apply request (`PATCH` with `application/apply-patch+yaml`).
pub struct Request<'a> {
    /// The type of the object in `api_version`.
    pub schema: Schema<'a>,
    /// The stored object, in `api_version`. `None` creates.
    pub live: Option<&'a Value>,
    /// What the manager applies: everything it wants to own, and nothing else.
    pub config: &'a Value,
    pub manager: &'a str,
    /// Take fields over from other managers instead of failing.
    pub force: bool,
    /// The version of the request's URL, `v1` or `group/version`; `config` must state the same.
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
    /// Dotted paths nobody owns through this endpoint, such as `status`.
    pub reset_fields: &'a [&'a str],
    /// If not empty, the only dotted paths (`*` is any one step) that can be owned through this endpoint.
    pub only_fields: &'a [&'a str],
    /// Conversion for managers of other versions; `None` where all versions have one shape.
    pub versions: Option<&'a dyn Versions>,
}

/// A write other than apply, about to be stored.
pub struct Update<'a> {
    pub schema: Schema<'a>,
    /// The stored object, in `api_version`. `None` on creation.
    pub live: Option<&'a Value>,
    /// The object to store, as decoded and defaulted; its managedFields are brought up to date.
    pub new: &'a mut Value,
    pub manager: &'a str,
    pub api_version: &'a str,
    pub subresource: &'a str,
    pub now: Timestamp,
    /// As in [`Request::reset_fields`].
    pub reset_fields: &'a [&'a str],
    /// As in [`Request::only_fields`].
    pub only_fields: &'a [&'a str],
    pub versions: Option<&'a dyn Versions>,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Other managers own fields with other values.
    #[error("{}", conflict::message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object is not one that can be applied here.
    #[error("{0}")]
    Malformed(String),
    /// The applied object does not fit its type. Upstream answers 500 here.
    #[error("{0}")]
    Untyped(String),
}

impl Error {
    /// The answer upstream gives.
    pub fn status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => {
                let mut status = Status::new(409, "Conflict", self.to_string());
                status.details.get_or_insert_default().causes = conflicts.iter().map(Conflict::cause).collect();
                status
            }
            Self::Malformed(message) => Status::bad_request(message.clone()),
            Self::Untyped(message) => Status::new(500, "", message.clone()),
        }
    }
}

/// Merges `config` into the live object and returns what is to be stored, managedFields included. The result is not
/// defaulted, pruned or brought to canonical form.
pub fn apply(request: Request<'_>) -> Result<Value, Error> {
    check_config(&request)?;
    let scope = Scope {
        schema: request.schema,
        api_version: request.api_version,
        reset_fields: Set::from_dotted(request.reset_fields),
        only_fields: request.only_fields,
        versions: request.versions,
    };
    let live = request.live.map(managed::without);
    let mut managed = match request.live {
        Some(live) => Managed::parse(managed::of(live)).map_err(failed_to_decode)?,
        None => Managed::default(),
    };
    if let (true, Some(live)) = (managed.is_empty(), &live) {
        let identity = Identity::update(BEFORE_FIRST_APPLY, request.api_version, request.subresource);
        record(&scope, None, live, &mut managed, identity, request.now);
    }
    let merged = last_applied::merge_or_take_over(&scope, live.as_ref(), &request, managed)?;
    let mut object = merged.object.or(live).unwrap_or_else(|| request.config.clone());
    if request.manager == last_applied::MANAGER {
        last_applied::sync_annotation(&mut object, request.config);
    }
    managed::set(&mut object, merged.managed.into_value());
    Ok(object)
}

/// Brings `metadata.managedFields` of an object that is about to be stored up to date. Never fails: what a client
/// sends as managedFields is taken if it is valid, and ignored otherwise.
pub fn track(update: Update<'_>) {
    let sent = managed::take(update.new);
    let live_fields = update.live.map_or(&[][..], managed::of);
    let mut managed = if update.subresource.is_empty() {
        Managed::for_update(sent, live_fields)
    } else {
        // managedFields cannot be set through a subresource.
        Managed::trusted(live_fields.to_vec())
    };
    if managed.is_empty() && update.live.is_some_and(|live| !meta::uid(live).is_empty()) {
        // Nobody tracked this object so far, or the client just reset it: an update does not start tracking.
        return;
    }
    let scope = Scope {
        schema: update.schema,
        api_version: update.api_version,
        reset_fields: Set::from_dotted(update.reset_fields),
        only_fields: update.only_fields,
        versions: update.versions,
    };
    let identity = Identity::update(update.manager, update.api_version, update.subresource);
    record(&scope, update.live, update.new, &mut managed, identity, update.now);
    managed::set(update.new, managed.into_value());
}

/// Moves ownership as a write by `identity` from `live` to `new` does.
fn record(
    scope: &Scope<'_>,
    live: Option<&Value>,
    new: &Value,
    managed: &mut Managed,
    identity: Identity,
    now: Timestamp,
) {
    let live = live.unwrap_or(&values::EMPTY_OBJECT);
    let write = scope.write(live, new, Typed::BOTH);
    let changes = &write.changes;
    if !changes.is_empty() || managed.entries.iter().any(|entry| scope.is_foreign(&entry.api_version)) {
        managed.reconcile(scope, live);
        let mut gained = scope.filter(changes.added.union(&changes.modified));
        gained.subtract(&managed::NEVER_OWNED);
        managed.lose(scope, &write, Some((&identity, &gained)));
        if !gained.is_empty() {
            managed.gain(identity, gained, now);
        }
    }
    managed.cap();
}

/// What must hold before anything is merged (upstream's `versionCheckManager` and `structuredMergeManager.Apply`).
fn check_config(request: &Request<'_>) -> Result<(), Error> {
    let text = |name: &str| request.config.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != request.api_version || text("kind") != request.kind {
        let stated = group_version_kind(text("apiVersion"), text("kind"));
        return Err(Error::Malformed(format!("invalid object type: {stated}")));
    }
    let fields = request.config.get("metadata").and_then(|m| m.get("managedFields"));
    if fields.is_some_and(Value::is_array) {
        return Err(Error::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let problems = typed::check(request.schema, request.config);
    if problems.is_empty() {
        return Ok(());
    }
    let what = group_version_kind(request.api_version, request.kind);
    let (namespace, name) = (meta::namespace(request.config), meta::name(request.config));
    Err(Error::Untyped(format!("failed to create typed patch object ({namespace}/{name}; {what}): {problems}")))
}

/// As Go prints a `GroupVersionKind`.
fn group_version_kind(api_version: &str, kind: &str) -> String {
    let (group, version) = meta::split_api_version(api_version);
    format!("{group}/{version}, Kind={kind}")
}

fn failed_to_decode(problem: String) -> Error {
    Error::Untyped(format!("failed to decode managed fields: {problem}"))
}

#[cfg(test)]
mod tests;
