//! ResourceClaim, ResourceClaimTemplate, ResourceSlice and DeviceClass: names, counts and what never changes.
//! Expressions are compiled where they are run.

use serde_json::Value;

use super::fill::Lit::{Int, Str};
use super::fill::{each, fill, text, with};
use super::place::{Errors, Place};
use super::{Context, Strategy, format};
use crate::field::Error;
use crate::meta;

const REQUESTS_MAX: usize = 32;
const DEVICES_MAX: usize = 128;
const DRIVER_NAME_MAX_BYTES: usize = 63;

fn default_request(request: &mut Value) {
    fill(request, &[("allocationMode", Str("ExactCount"))]);
    if text(request, "allocationMode") == "ExactCount" {
        if request.get("count") == Some(&Value::from(0)) {
            meta::object_mut(request).remove("count");
        }
        fill(request, &[("count", Int(1))]);
    }
    each(request, "tolerations", |toleration| fill(toleration, &[("operator", Str("Equal"))]));
}

fn default_spec(spec: &mut Value) {
    with(spec, "devices", |devices| {
        each(devices, "requests", |request| {
            with(request, "exactly", default_request);
            each(request, "firstAvailable", default_request);
        });
    });
}

fn spec_rules(spec: &Place, errors: &mut Errors) {
    let devices = spec.field("devices");
    let requests = devices.field("requests");
    if requests.list().len() > REQUESTS_MAX {
        errors.push(requests.too_many(REQUESTS_MAX));
    }
    for (i, request) in requests.items().enumerate() {
        let name = request.field("name");
        if name.require(errors) {
            format::check(&name, format::label, errors);
        }
        if requests.list()[..i].iter().any(|other| other["name"] == *name.value) {
            errors.push(Error::duplicate(request.path(), name.str()));
        }
        let (exactly, first) = (request.field("exactly"), request.field("firstAvailable"));
        match (exactly.is_set(), !first.is_empty()) {
            (false, false) => errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required")),
            (true, true) => {
                errors.push(
                    request.invalid(
                        "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
                    ),
                );
            }
            (true, false) => exact(&exactly, errors),
            (false, true) => first.items().for_each(|sub| exact(&sub, errors)),
        }
    }
}

fn exact(request: &Place, errors: &mut Errors) {
    let class = request.field("deviceClassName");
    if class.require(errors) {
        format::check(&class, format::subdomain, errors);
    }
    let (mode, count) = (request.field("allocationMode"), request.field("count"));
    match mode.str() {
        "All" if count.int().unwrap_or(0) != 0 => {
            errors.push(count.invalid("must not be specified when allocationMode is 'All'"));
        }
        "All" => {}
        "ExactCount" if count.int().unwrap_or(0) <= 0 => errors.push(count.invalid("must be greater than zero")),
        "ExactCount" => {}
        _ => errors.push(mode.not_supported(&["All", "ExactCount"])),
    }
}

/// `ValidateDriverName`.
fn driver(name: &Place, errors: &mut Errors) {
    if name.require(errors) {
        if name.str().len() > DRIVER_NAME_MAX_BYTES {
            errors.push(name.too_long(DRIVER_NAME_MAX_BYTES));
        }
        errors.extend(format::subdomain(&name.str().to_lowercase()).into_iter().map(|p| name.invalid(p)));
    }
}

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        with(object, "spec", default_spec);
    }
    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        if ctx.verb == super::Verb::Create {
            spec_rules(&object.field("spec"), errors);
        }
    }
    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").immutable(&old.field("spec"), errors);
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| with(spec, "spec", default_spec));
    }
    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        if ctx.verb == super::Verb::Create {
            spec_rules(&spec.field("spec"), errors);
        }
    }
    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").immutable(&old.field("spec"), errors);
    }
}

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn counts_generation(&self) -> bool {
        true
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        driver(&spec.field("driver"), errors);
        let pool = spec.field("pool");
        pool.field("name").require(errors);
        pool.field("generation").nonnegative(errors);
        pool.field("resourceSliceCount").positive(errors);
        let devices = spec.field("devices");
        if devices.list().len() > DEVICES_MAX {
            errors.push(devices.too_many(DEVICES_MAX));
        }
        for (i, device) in devices.items().enumerate() {
            let name = device.field("name");
            if name.require(errors) {
                format::check(&name, format::label, errors);
            }
            if devices.list()[..i].iter().any(|other| other["name"] == *name.value) {
                errors.push(Error::duplicate(device.path(), name.str()));
            }
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        spec.field("driver").immutable(&before.field("driver"), errors);
        spec.field("nodeName").immutable(&before.field("nodeName"), errors);
        spec.field("pool").field("name").immutable(&before.field("pool").field("name"), errors);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        vec![("spec.nodeName", text(spec, "nodeName").to_owned()), ("spec.driver", text(spec, "driver").to_owned())]
    }
}

pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn counts_generation(&self) -> bool {
        true
    }
}
