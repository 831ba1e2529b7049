//! PersistentVolumeClaim, and the claim specs inside pods and StatefulSets.

use serde_json::{Value, json};

use super::fill::Lit::{Object, Str};
use super::fill::{fill, fill_at, has, text, with};
use super::place::{Errors, Place};
use super::{Context, Strategy, format, resources, workload};
use crate::field::Error;
use crate::quantity::Quantity;

pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizePending",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
];

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        object["status"] = json!({"phase": "Pending"});
        with(object, "spec", match_data_sources);
    }

    fn on_update(&self, new: &mut Value, _old: &Value, _ctx: &Context) {
        with(new, "spec", match_data_sources);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        spec_rules(&object.field("spec"), errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        change(new, old, errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        let status = new.field("status");
        for (_, amount) in status.field("capacity").entries() {
            not_negative(&amount, errors);
        }
        for (_, state) in status.field("allocatedResourceStatuses").entries() {
            if !RESIZE_STATUSES.contains(&state.str()) {
                errors.push(status.field("allocatedResourceStatuses").not_supported(RESIZE_STATUSES));
            }
        }
        for (_, amount) in status.field("allocatedResources").entries() {
            not_negative(&amount, errors);
        }
    }
}

/// A claim, or a template of one.
pub fn default(claim: &mut Value) {
    fill(claim, &[("metadata", Object), ("spec", Object), ("status", Object)]);
    fill_at(claim, "status", &[("phase", Str("Pending"))]);
    with(claim, "spec", default_spec);
}

/// The defaults of a claim's spec, in a claim or in a template of claims.
pub fn default_spec(spec: &mut Value) {
    fill(spec, &[("volumeMode", Str("Filesystem")), ("resources", Object)]);
}

/// `dataSource` and `dataSourceRef` say the same, one for old clients (`NormalizeDataSources`).
fn match_data_sources(spec: &mut Value) {
    let known = |source: &Value| {
        let group = text(source, "apiGroup");
        matches!(
            (group, text(source, "kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), reference) if reference.as_ref().is_none_or(Value::is_null) && !source.is_null() => {
            if known(&source) {
                spec["dataSourceRef"] = source;
            } else if let Some(map) = spec.as_object_mut() {
                map.remove("dataSource");
            }
        }
        (source, Some(mut reference))
            if source.as_ref().is_none_or(Value::is_null)
                && text(&reference, "namespace").is_empty()
                && known(&reference) =>
        {
            if let Some(map) = reference.as_object_mut() {
                map.remove("namespace");
            }
            spec["dataSource"] = reference;
        }
        _ => {}
    }
}

fn not_negative(amount: &Place, errors: &mut Errors) {
    if resources::read(amount.value) < Quantity::default() {
        errors.push(amount.invalid("must be a valid resource quantity"));
    }
}

/// `spec.accessModes`, reported at the list.
pub fn access_modes(modes: &Place, detail: &str, errors: &mut Errors) {
    if modes.is_empty() {
        errors.push(modes.required(detail));
    }
    let names: Vec<&str> = modes.list().iter().filter_map(Value::as_str).collect();
    for mode in names.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.push(Error::not_supported(modes.path(), *mode, ACCESS_MODES));
    }
    let known: Vec<&&str> = names.iter().filter(|mode| ACCESS_MODES.contains(mode)).collect();
    if known.iter().any(|m| **m == "ReadWriteOncePod") && known.iter().any(|m| **m != "ReadWriteOncePod") {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn spec_rules(spec: &Place, errors: &mut Errors) {
    access_modes(&spec.field("accessModes"), "at least 1 access mode is required", errors);
    format::label_selector(&spec.field("selector"), errors);
    let required = spec.field("resources");
    let requests = required.field("requests");
    let storage = requests.value.get("storage");
    // Upstream leaves `requests` out of the path.
    let place = required.key("storage");
    match storage.map(resources::read) {
        None => errors.push(place.required("")),
        Some(amount) if amount <= Quantity::default() => {
            let shown = storage.cloned().unwrap_or_default();
            errors.push(Error::invalid(place.path(), shown, "must be greater than zero"));
        }
        Some(_) => {}
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.field(class);
        if !class.is_empty() {
            format::check(&class, format::subdomain, errors);
        }
    }
    spec.field("volumeMode").one_of(VOLUME_MODES, errors);
    data_sources(spec, errors);
}

fn data_sources(spec: &Place, errors: &mut Errors) {
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for place in [&source, &reference].into_iter().filter(|p| p.is_set()) {
        place.field("name").require(errors);
        let kind = place.field("kind");
        kind.require(errors);
        let group = place.field("apiGroup");
        if group.is_empty() && kind.str() != "PersistentVolumeClaim" {
            errors.push(place.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup"));
        } else if !group.is_empty() {
            format::check(&group, format::subdomain, errors);
        }
    }
    let both = source.is_set() && reference.is_set();
    if both && !reference.field("namespace").is_empty() {
        errors.push(spec.invalid("may not be specified when dataSourceRef.namespace is specified"));
    } else if both {
        let same = ["apiGroup", "kind", "name"].iter().all(|f| source.field(f).value == reference.field(f).value);
        if !same {
            errors.push(spec.invalid("must match dataSourceRef"));
        }
    }
}

/// `ValidatePersistentVolumeClaimUpdate`.
fn change(new: &Place, old: &Place, errors: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let status = old.field("status");
    let bound = new.field("status").field("phase").str() == "Bound";
    let mut allowed: Vec<&str> = Vec::new();
    if before.field("volumeName").is_empty() {
        allowed.push("volumeName");
    }
    if spec.field("storageClassName").is_set() && !before.field("storageClassName").is_set() {
        allowed.push("storageClassName");
    }
    if bound {
        allowed.push("volumeAttributesClassName");
    }
    let mut munged = spec.value.clone();
    if bound && has(&munged["resources"], "requests") {
        munged["resources"]["requests"]["storage"] = before.value["resources"]["requests"]["storage"].clone();
    }
    if !workload::only_changed(&spec.with_value(&munged), &before, &allowed) {
        errors.push(spec.forbidden(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let size = |place: &Place, list: &str| resources::read(&place.value[list]["storage"]);
    let asked = size(&spec.field("resources"), "requests");
    if asked < size(&before.field("resources"), "requests") && asked <= size(&status, "capacity") {
        let path = "spec.resources.requests.storage";
        errors.push(Error::forbidden(path, "field can not be less than status.capacity"));
    }
    // Reported without `spec`, as upstream does.
    let mode = spec.field("volumeMode");
    if !mode.same(&before.field("volumeMode")) {
        errors.push(Error::invalid("volumeMode", mode.value.clone(), "field is immutable"));
    }
    let class = spec.field("volumeAttributesClassName");
    if !class.same(&before.field("volumeAttributesClassName"))
        && class.is_empty()
        && status.field("currentVolumeAttributesClassName").is_set()
    {
        let what = if class.is_set() { "empty string" } else { "nil" };
        errors.push(class.forbidden(format!(
            "update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        )));
    }
}
