//! The metadata every kind shares (`ValidateObjectMetaAccessor`, `ValidateObjectMetaAccessorUpdate`,
//! `rest.BeforeUpdate`), and what a write may not touch: the status on a write of the object, the rest on a write of
//! the status.

use serde_json::{Map, Value};

use super::format;
use super::place::{Errors, Place};
use crate::decode;
use crate::field::{Error, ErrorKind};
use crate::meta;
use crate::schema::Schemas;

/// Sum of the lengths of all annotation keys and values.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
const FIELD_MANAGER_MAX_BYTES: usize = 128;
const SUBRESOURCE_NAME_MAX_BYTES: usize = 256;

const FINALIZER_ORPHAN: &str = "orphan";
const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// How `metadata.name` may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    Subdomain,
    Label,
    /// `NameIsDNS1035Label`: as a label, but starting with a letter.
    Label1035,
    /// Anything that is one segment of a URL path (RBAC).
    PathSegment,
    /// The kind checks its names itself.
    Own,
}

impl NameRule {
    /// What is wrong with `name`; `prefix` when it is a `generateName`, which may end in a dash.
    pub fn problems(self, name: &str, prefix: bool) -> Vec<String> {
        let trimmed = if prefix && name.ends_with('-') { &name[..name.len() - 1] } else { name };
        match self {
            Self::Subdomain => format::subdomain(trimmed),
            Self::Label => format::label(trimmed),
            Self::Label1035 => format::label_1035(trimmed),
            Self::PathSegment => format::path_segment(name),
            Self::Own => Vec::new(),
        }
    }

    fn check(self, place: &Place, prefix: bool, errors: &mut Errors) {
        errors.extend(self.problems(place.str(), prefix).into_iter().map(|problem| place.invalid(problem)));
    }
}

/// What holds for the metadata of every new object. `generateName` must have been resolved into a name.
pub fn validate_create(root: &Place, rule: NameRule, namespaced: bool, errors: &mut Errors) {
    let before = errors.len();
    let metadata = root.field("metadata");
    validate(&metadata, rule, namespaced, errors);
    if errors.len() == before && rule == NameRule::Own {
        NameRule::PathSegment.check(&metadata.field("name"), false, errors);
    }
}

/// `ValidateObjectMeta`: also for metadata inside an object, such as a Job template's.
pub fn validate(metadata: &Place, rule: NameRule, namespaced: bool, errors: &mut Errors) {
    let generate_name = metadata.field("generateName");
    if !generate_name.is_empty() {
        rule.check(&generate_name, true, errors);
    }
    let name = metadata.field("name");
    if name.is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        rule.check(&name, false, errors);
    }
    let namespace = metadata.field("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(namespace.required("")),
        (true, false) => NameRule::Label.check(&namespace, false, errors),
        (false, false) => errors.push(namespace.forbidden("not allowed on this type")),
        (false, true) => {}
    }
    metadata.field("generation").nonnegative(errors);
    shared(metadata, errors);
    finalizers(&metadata.field("finalizers"), errors);
}

/// What a change of the metadata of every object must keep.
pub fn validate_update(new: &Place, old: &Place, errors: &mut Errors) {
    let (new, old) = (new.field("metadata"), old.field("metadata"));
    if !old.field("deletionTimestamp").is_empty() {
        no_new_finalizers(&new, &old, errors);
    }
    let version = new.field("resourceVersion");
    if version.is_empty() {
        errors.push(version.invalid("must be specified for an update"));
    }
    let generation = new.field("generation");
    if generation.int().unwrap_or(0) < old.field("generation").int().unwrap_or(0) {
        errors.push(generation.invalid("must not be decremented"));
    }
    let fixed = ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fixed {
        new.field(field).immutable(&old.field(field), errors);
    }
    shared(&new, errors);
}

/// What create and update check alike.
fn shared(metadata: &Place, errors: &mut Errors) {
    labels(&metadata.field("labels"), errors);
    annotations(&metadata.field("annotations"), errors);
    owner_references(&metadata.field("ownerReferences"), errors);
    managed_fields(&metadata.field("managedFields"), errors);
}

/// `ValidateLabels`: every complaint stands at the map itself.
pub fn labels(labels: &Place, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        format::qualified_name(key).into_iter().for_each(|p| errors.push(Error::invalid(labels.path(), key, p)));
        format::label_value(value.str())
            .into_iter()
            .for_each(|p| errors.push(Error::invalid(labels.path(), value.str(), p)));
    }
}

/// `ValidateAnnotations`.
pub fn annotations(annotations: &Place, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        bytes += key.len() + value.str().len();
        let problems = if key.bytes().any(|b| b.is_ascii_uppercase()) {
            format::qualified_name(&key.to_lowercase())
        } else {
            format::qualified_name(key)
        };
        problems.into_iter().for_each(|p| errors.push(Error::invalid(annotations.path(), key, p)));
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.push(annotations.too_long(ANNOTATIONS_MAX_BYTES));
    }
}

fn owner_references(references: &Place, errors: &mut Errors) {
    let at = |field: &str| format!("{}.{field}", references.path());
    let mut controller: Option<String> = None;
    for reference in references.items() {
        let api_version = reference.field("apiVersion").str();
        if meta::split_api_version(api_version).1.is_empty() {
            errors.push(Error::invalid(at("apiVersion"), api_version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if reference.field(field).is_empty() {
                errors.push(Error::invalid(at(field), "", "must not be empty"));
            }
        }
        let kind = reference.field("kind").str();
        if api_version == "v1" && kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(references.path(), reference.value.clone(), detail));
        }
        if !reference.field("controller").is_true() {
            continue;
        }
        let this = format!("{kind}/{}", reference.field("name").str());
        match &controller {
            None => controller = Some(this),
            Some(first) => errors.push(references.invalid(format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
            ))),
        }
    }
}

fn finalizers(finalizers: &Place, errors: &mut Errors) {
    let mut kinds = (false, false);
    for finalizer in finalizers.items() {
        let name = finalizer.str();
        kinds.0 |= name == FINALIZER_ORPHAN;
        kinds.1 |= name == FINALIZER_FOREGROUND;
        format::qualified_name(name).into_iter().for_each(|p| errors.push(Error::invalid(finalizers.path(), name, p)));
    }
    if kinds == (true, true) {
        errors.push(
            finalizers.invalid(format!("finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set")),
        );
    }
}

/// `validateKubeFinalizerName`: built-in kinds take no bare names but the known ones.
pub fn qualified_finalizers(root: &Place, errors: &mut Errors) {
    let metadata = root.field("metadata");
    for finalizer in metadata.field("finalizers").items() {
        let name = finalizer.str();
        if !name.contains('/') && ![FINALIZER_ORPHAN, FINALIZER_FOREGROUND, "kubernetes"].contains(&name) {
            errors.push(finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
}

fn no_new_finalizers(new: &Place, old: &Place, errors: &mut Errors) {
    let had = old.field("finalizers");
    let has = new.field("finalizers");
    let extra: Vec<&Value> = has.list().iter().filter(|f| !had.list().contains(f)).collect();
    if !extra.is_empty() {
        errors.push(has.forbidden(format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {extra:?}"
        )));
    }
}

fn managed_fields(entries: &Place, errors: &mut Errors) {
    for entry in entries.items() {
        let operation = entry.field("operation");
        if !["Apply", "Update"].contains(&operation.str()) {
            errors.push(operation.invalid("must be `Apply` or `Update`"));
        }
        let fields_type = entry.field("fieldsType");
        if !["", "FieldsV1"].contains(&fields_type.str()) {
            errors.push(fields_type.invalid("must be `FieldsV1`"));
        }
        field_manager(&entry.field("manager"), errors);
        let subresource = entry.field("subresource");
        if subresource.str().len() > SUBRESOURCE_NAME_MAX_BYTES {
            errors.push(subresource.too_long(SUBRESOURCE_NAME_MAX_BYTES));
        }
    }
}

/// `ValidateFieldManager`: also the `fieldManager` of a request, at a place of the caller's.
pub fn field_manager(manager: &Place, errors: &mut Errors) {
    if manager.str().len() > FIELD_MANAGER_MAX_BYTES {
        errors.push(manager.too_long(FIELD_MANAGER_MAX_BYTES));
    }
    for (position, c) in manager.str().char_indices().filter(|(_, c)| c.is_control()) {
        errors.push(manager.invalid(format!("invalid character {c:?} (at position {position})")));
    }
}

/// `ValidateConditions`: `metav1.Condition` lists.
pub fn conditions(conditions: &Place, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let kind = condition.field("type");
        if seen.contains(&kind.str()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.str());
        format::check(&kind, format::qualified_name, errors);
        let status = condition.field("status");
        if !["True", "False", "Unknown"].contains(&status.str()) {
            errors.push(status.not_supported(&["False", "True", "Unknown"]));
        }
        condition.field("observedGeneration").nonnegative(errors);
        condition.field("lastTransitionTime").require(errors);
        let reason = condition.field("reason");
        if reason.require(errors) {
            format::check(&reason, format::condition_reason, errors);
        }
        too_long(&reason, CONDITION_REASON_MAX_BYTES, errors);
        too_long(&condition.field("message"), CONDITION_MESSAGE_MAX_BYTES, errors);
    }
}

const CONDITION_REASON_MAX_BYTES: usize = 1024;
const CONDITION_MESSAGE_MAX_BYTES: usize = 32 * 1024;

fn too_long(place: &Place, limit: usize, errors: &mut Errors) {
    if place.str().len() > limit {
        errors.push(Error::new(
            ErrorKind::TooLong,
            place.path(),
            Value::Null,
            format!("may not be more than {limit} bytes"),
        ));
    }
}

/// Empties the status: a creator's is never kept. What remains is what the type writes even when empty.
pub fn clear_status(object: &mut Value) {
    let (group, version) =
        meta::split_api_version(object.get("apiVersion").and_then(Value::as_str).unwrap_or_default());
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let schema = Schemas::builtin().type_named(&format!("io.k8s.api.{group}.{version}.{kind}"));
    let status = schema.and_then(|schema| schema.field("status"));
    let empty = status.map_or_else(|| Value::Object(Map::new()), decode::zero);
    meta::object_mut(object).insert("status".into(), empty);
}

/// Puts back the metadata that no update changes (`rest.BeforeUpdate`).
pub fn carry_over(new: &mut Value, old: &Value) {
    let Some(old) = old.get("metadata") else { return };
    let new = meta::metadata_mut(new);
    set(new, "generation", old.get("generation"));
    if new.get("uid").and_then(Value::as_str).unwrap_or_default().is_empty() {
        set(new, "uid", old.get("uid"));
    }
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if old.get(field).is_some_and(|v| !v.is_null()) {
            set(new, field, old.get(field));
        }
    }
    if new.get("deletionGracePeriodSeconds").is_none_or(Value::is_null) {
        set(new, "deletionGracePeriodSeconds", old.get("deletionGracePeriodSeconds"));
    }
}

/// Keeps only the status (and the metadata that a status write may change) of `new`.
pub fn only_status(new: &mut Value, old: &Value, labels_may_change: bool) {
    let status = new.get_mut("status").map(Value::take);
    let metadata = new.get_mut("metadata").map(Value::take);
    let mut kept = old.clone();
    let map = meta::object_mut(&mut kept);
    set(map, "status", status.as_ref());
    set(map, "metadata", metadata.as_ref());
    *new = kept;
    if !labels_may_change {
        let old_labels = old.get("metadata").and_then(|m| m.get("labels"));
        set(meta::metadata_mut(new), "labels", old_labels);
    }
}

/// Puts back all metadata but the managed fields (`ResetObjectMetaForStatus`); the resource version stays the writer's.
pub fn keep_metadata(new: &mut Value, old: &Value) {
    let Some(mut kept) = old.get("metadata").cloned() else { return };
    let written = meta::metadata_mut(new);
    let kept = meta::object_mut(&mut kept);
    for field in ["managedFields", "resourceVersion"] {
        set(kept, field, written.get(field));
    }
    *written = std::mem::take(kept);
}

/// Puts `field` of `old` back into `new`.
pub fn keep_field(new: &mut Value, old: &Value, field: &str) {
    set(meta::object_mut(new), field, old.get(field));
}

fn set(map: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// One of the top-level `fields` differs.
pub fn differs(new: &Value, old: &Value, fields: &[&str]) -> bool {
    let (new, old) = (Place::root(new), Place::root(old));
    fields.iter().any(|field| !new.field(field).same(&old.field(field)))
}

pub fn count_generation(new: &mut Value, old: &Value) {
    let before = old.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0);
    meta::metadata_mut(new).insert("generation".into(), (before + 1).into());
}
