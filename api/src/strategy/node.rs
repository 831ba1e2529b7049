//! Node: address ranges and provider, set once; taints; capacity.

use serde_json::Value;

use super::fill::{has, text};
use super::place::{Errors, Place};
use super::{Context, Strategy, address, format, resources};
use crate::field::Error;
use crate::meta;

const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub struct Node;

impl Strategy for Node {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        pod_cidrs(spec);
        let status = meta::child_mut(object, "status");
        if !has(status, "allocatable") && has(status, "capacity") {
            status["allocatable"] = status["capacity"].clone();
        }
    }

    /// Unlike other kinds, a new node keeps its status: kubelets register with one.
    fn prepare_create(&self, object: &mut Value, _ctx: &Context) {
        meta::metadata_mut(object).remove("generation");
        drop_dynamic_config(object);
    }

    fn on_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        if !old.get("spec").is_some_and(|spec| has(spec, "configSource")) {
            drop_dynamic_config(new);
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        taints(object, errors);
        capacity(object, errors);
        let cidrs = spec.field("podCIDRs");
        for cidr in cidrs.items() {
            format::check(&cidr, address::cidr, errors);
        }
        let list: Vec<&str> = cidrs.list().iter().filter_map(Value::as_str).collect();
        if list.len() > 2 || (list.len() == 2 && address::is_ipv6(list[0]) == address::is_ipv6(list[1])) {
            errors.push(cidrs.invalid("may specify no more than one CIDR for each IP family"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        set_once(new, old, errors);
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        capacity(new, errors);
        set_once(new, old, errors);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let cordoned = object.get("spec").and_then(|s| s.get("unschedulable")) == Some(&Value::Bool(true));
        vec![("spec.unschedulable", cordoned.to_string())]
    }
}

/// `podCIDR` mirrors the first of `podCIDRs`; where they differ the single field rules.
fn pod_cidrs(spec: &mut Value) {
    let single = text(spec, "podCIDR").to_owned();
    let first = spec.get("podCIDRs").and_then(|l| l.get(0)).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !single.is_empty() && first != single {
        spec["podCIDRs"] = vec![Value::from(single)].into();
    } else if single.is_empty() && !first.is_empty() {
        spec["podCIDR"] = first.into();
    }
}

fn drop_dynamic_config(object: &mut Value) {
    for (part, field) in [("spec", "configSource"), ("status", "config")] {
        if let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) {
            map.remove(field);
        }
    }
}

fn taints(object: &Place, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    // Upstream reports taints under the metadata.
    let taints = metadata.named("taints", spec.field("taints").value);
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in taints.items() {
        let (key, effect) = (taint.field("key"), taint.field("effect"));
        format::check(&key, format::qualified_name, errors);
        format::check(&taint.field("value"), format::label_value, errors);
        taint_effect(&effect, false, errors);
        if seen.contains(&(key.str(), effect.str())) {
            let mut error = taint.duplicate();
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push((key.str(), effect.str()));
    }
}

/// `validateTaintEffect`.
pub fn taint_effect(effect: &Place, allow_empty: bool, errors: &mut Errors) {
    if effect.is_empty() {
        if !allow_empty {
            errors.push(effect.required(""));
        }
    } else {
        effect.one_of(TAINT_EFFECTS, errors);
    }
}

fn capacity(object: &Place, errors: &mut Errors) {
    let status = object.field("status");
    for list in ["capacity", "allocatable"] {
        let list = status.field(list);
        for (name, amount) in list.entries() {
            // Upstream's path is dotted here.
            resources::amount(name, &list.named(name, amount.value), errors);
        }
    }
}

fn set_once(new: &Place, old: &Place, errors: &mut Errors) {
    let (new_status, new_spec, old_spec) = (new.field("status"), new.field("spec"), old.field("spec"));
    let addresses = new_status.field("addresses");
    for (i, address) in addresses.items().enumerate() {
        if addresses.list()[..i].contains(address.value) {
            errors.push(address.duplicate());
        }
    }
    let (had, has) = (old_spec.field("podCIDRs"), new_spec.field("podCIDRs"));
    if !had.is_empty() {
        let changed = match had.list().len() == has.list().len() {
            true => had.list().iter().zip(has.list()).filter(|(a, b)| a != b).count(),
            false => 1,
        };
        for _ in 0..changed {
            errors.push(has.forbidden("node updates may not change podCIDR except from \"\" to valid"));
        }
    }
    let (had, has) = (old_spec.field("providerID"), new_spec.field("providerID"));
    if !had.is_empty() && !has.same(&had) {
        errors.push(has.forbidden("node updates may not change providerID except from \"\" to valid"));
    }
    if !new_spec.field("externalID").same(&old_spec.field("externalID")) {
        errors.push(Error::forbidden("spec.externalID", "may not be updated"));
    }
}
