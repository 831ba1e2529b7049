//! StorageClass, CSIDriver, CSINode, VolumeAttachment, CSIStorageCapacity and VolumeAttributesClass.

use serde_json::{Value, json};

use super::fill::Lit::{Bool, Str, Strings};
use super::fill::{Rows, fill, has_content};
use super::place::{Errors, Place};
use super::volume_source::csi_driver_name;
use super::{Context, Strategy, format, persistent_volume, resources};
use crate::field::{Error, ErrorKind};
use crate::meta;
use crate::quantity::Quantity;

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
const NODE_ID_MAX_BYTES: usize = 256;
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;
const UPDATE_PERIOD_MIN_SECONDS: i64 = 10;
const METADATA_MAX_BYTES: usize = 256 * 1024;
const MESSAGE_MAX_BYTES: usize = 1024;

pub struct StorageClass;

impl Strategy for StorageClass {
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        fill(object, &[("reclaimPolicy", Str("Delete")), ("volumeBindingMode", Str("Immediate"))]);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        driver(&object.field("provisioner"), errors);
        parameters(&object.field("parameters"), errors);
        object.field("reclaimPolicy").one_of(&["Delete", "Retain"], errors);
        object.field("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"], errors);
        for term in object.field("allowedTopologies").items() {
            topology(&term, errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            new.field(field).immutable(&old.field(field), errors);
        }
    }
}

fn driver(name: &Place, errors: &mut Errors) {
    if name.require(errors) {
        errors.extend(format::qualified_name(&name.str().to_lowercase()).into_iter().map(|p| name.invalid(p)));
    }
}

fn parameters(parameters: &Place, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(Error::invalid(parameters.path(), key, "field can not be empty."));
        }
        bytes += key.len() + value.str().len();
    }
    if parameters.map().is_some_and(|m| m.len() > PARAMETERS_MAX) {
        errors.push(parameters.too_long(PARAMETERS_MAX));
    }
    if bytes > PARAMETERS_MAX_BYTES {
        errors.push(parameters.too_long(PARAMETERS_MAX_BYTES));
    }
}

/// `ValidateTopologySelectorTerm`.
fn topology(term: &Place, errors: &mut Errors) {
    let expressions = term.field("matchLabelExpressions");
    for (i, expression) in expressions.items().enumerate() {
        let (key, values) = (expression.field("key"), expression.field("values"));
        values.require(errors);
        for (j, value) in values.items().enumerate() {
            if values.list()[..j].contains(value.value) {
                errors.push(value.duplicate());
            }
        }
        format::check(&key, format::qualified_name, errors);
        if expressions.list()[..i].iter().any(|other| other["key"] == *key.value) {
            errors.push(key.duplicate());
        }
    }
}

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        driver(&object.field("driverName"), errors);
        let place = object.field("parameters");
        parameters(&place, errors);
        if place.is_empty() {
            errors.push(place.required("must contain at least one key/value pair"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        for field in ["driverName", "parameters"] {
            if !new.field(field).same(&old.field(field)) {
                errors.push(new.field(field).forbidden(format!("updates to {field} are forbidden.")));
            }
        }
    }
}

const DRIVER: Rows = &[
    ("attachRequired", Bool(true)),
    ("podInfoOnMount", Bool(false)),
    ("storageCapacity", Bool(false)),
    ("fsGroupPolicy", Str("ReadWriteOnceWithFSType")),
    ("requiresRepublish", Bool(false)),
    ("seLinuxMount", Bool(false)),
];
const LIFECYCLE_MODES: &[&str] = &["Persistent", "Ephemeral"];

pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        if !has_content(spec, "volumeLifecycleModes") {
            meta::object_mut(spec).remove("volumeLifecycleModes");
        }
        fill(spec, DRIVER);
        fill(spec, &[("volumeLifecycleModes", Strings(&["Persistent"]))]);
    }

    /// Counted from the first change on, as upstream does.
    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        meta::metadata_mut(object).remove("generation");
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"], errors);
        let requests = spec.field("tokenRequests");
        for (i, request) in requests.items().enumerate() {
            let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
            if requests.list()[..i].iter().any(|other| other["audience"] == *audience.value) {
                errors.push(audience.duplicate());
                continue;
            }
            if seconds.int().is_some_and(|s| s < TOKEN_MIN_SECONDS) {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
            if seconds.int().is_some_and(|s| s > TOKEN_MAX_SECONDS) {
                errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
            }
        }
        let modes = spec.field("volumeLifecycleModes");
        for mode in modes.items().filter(|mode| !LIFECYCLE_MODES.contains(&mode.str())) {
            errors.push(Error::not_supported(modes.path(), mode.str(), LIFECYCLE_MODES));
        }
        let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
        if period.int().is_some_and(|s| s < UPDATE_PERIOD_MIN_SECONDS) {
            errors.push(period.invalid("must be greater than or equal to 10 seconds"));
        }
        let secrets = spec.field("serviceAccountTokenInSecrets");
        if secrets.is_set() && requests.is_empty() {
            errors.push(secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        // Upstream's path has a name of its own.
        let attach = spec.named("attachedRequired", spec.field("attachRequired").value);
        attach.immutable(&before.field("attachRequired"), errors);
        spec.field("volumeLifecycleModes").immutable(&before.field("volumeLifecycleModes"), errors);
    }
}

pub struct CsiNode;

impl Strategy for CsiNode {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let drivers = spec.field("drivers");
        for (i, driver) in drivers.items().enumerate() {
            let (name, id) = (driver.field("name"), driver.field("nodeID"));
            csi_driver_name(&name, errors);
            id.require(errors);
            if id.str().len() > NODE_ID_MAX_BYTES {
                errors.push(id.invalid(format!("must be {NODE_ID_MAX_BYTES} characters or less")));
            }
            driver.field("allocatable").field("count").nonnegative(errors);
            if drivers.list()[..i].iter().any(|other| other["name"] == *name.value) {
                errors.push(name.duplicate());
            }
            topology_keys(&driver, errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        let (drivers, had) = (spec.field("drivers"), before.field("drivers"));
        for driver in drivers.items() {
            let was = had.items().find(|other| other.field("name").str() == driver.field("name").str());
            let changed = was.is_some_and(|was| !super::workload::only_changed(&driver, &was, &["allocatable"]));
            if changed {
                errors.push(Error::invalid(drivers.path(), driver.value.clone(), "field is immutable"));
            }
        }
    }
}

/// Reported at the driver itself.
fn topology_keys(driver: &Place, errors: &mut Errors) {
    let keys = driver.field("topologyKeys");
    for (i, key) in keys.items().enumerate() {
        if key.is_empty() {
            errors.push(driver.required(""));
        }
        if keys.list()[..i].contains(key.value) {
            errors.push(Error::duplicate(driver.path(), key.str()));
        }
        format::check(&driver.with_value(key.value), format::qualified_name, errors);
    }
}

pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn counts_generation(&self) -> bool {
        false
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        object["status"] = json!({"attached": false});
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        csi_driver_name(&spec.field("attacher"), errors);
        let source = spec.field("source");
        let (name, inline) = (source.field("persistentVolumeName"), source.field("inlineVolumeSpec"));
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (name.is_set(), inline.is_set()) {
            (false, false) => errors.push(source.required(ONE)),
            (true, true) => errors.push(source.forbidden(ONE)),
            (true, false) if name.is_empty() => {
                errors.push(name.required("must specify non empty persistentVolumeName"));
            }
            (true, false) => format::check(&name, format::subdomain, errors),
            (false, true) => persistent_volume::rules(&inline, true, errors),
        }
        format::check(&spec.field("nodeName"), format::subdomain, errors);
        attachment_status(&object.field("status"), errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").immutable(&old.field("spec"), errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        attachment_status(&new.field("status"), errors);
    }
}

fn attachment_status(status: &Place, errors: &mut Errors) {
    let metadata = status.field("attachmentMetadata");
    let bytes: usize = metadata.entries().map(|(key, value)| key.len() + value.str().len()).sum();
    if bytes > METADATA_MAX_BYTES {
        errors.push(metadata.too_long(METADATA_MAX_BYTES));
    }
    for error in ["attachError", "detachError"] {
        let error = status.field(error);
        let message = error.field("message");
        if message.str().len() > MESSAGE_MAX_BYTES {
            errors.push(Error::new(ErrorKind::TooLong, message.path(), Value::Null, ""));
        }
        error.field("errorCode").in_range(0, i64::from(i32::MAX), errors);
    }
}

pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        format::label_selector(&object.field("nodeTopology"), errors);
        format::check(&object.field("storageClassName"), format::subdomain, errors);
        for amount in ["capacity", "maximumVolumeSize"] {
            let amount = object.field(amount);
            if amount.is_set() && resources::read(amount.value) < Quantity::default() {
                errors.push(amount.invalid("must be greater than or equal to 0"));
            }
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        for field in ["nodeTopology", "storageClassName"] {
            new.field(field).immutable(&old.field(field), errors);
        }
    }
}
