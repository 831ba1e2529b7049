//! Pod and everything that carries a pod template: defaults, rules, what may change and through which subresource.

pub mod containers;
pub mod defaults;
mod env;
mod gated;
mod label_keys;
mod mounts;
mod os;
mod probes;
pub mod qos;
pub mod scheduling;
mod security;
pub mod spec;
mod subresource;
pub mod template;
mod update;
mod volumes;

use serde_json::{Value, json};

use super::fill::{has_content, text};
use super::place::{Errors, Place};
use super::{Context, Strategy, Verb, warnings};
use crate::meta;

pub struct Pod;

impl Strategy for Pod {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        fill_spec(object);
        defaults::pod(object);
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        let spec = object.get("spec").cloned().unwrap_or_default();
        object["status"] = json!({"phase": "Pending", "qosClass": qos::class(&spec)});
        if has_content(&spec, "schedulingGates") {
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
                "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        label_keys::merge(object);
    }

    fn on_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        match ctx.subresource {
            "ephemeralcontainers" => subresource::only_ephemeral_containers(new, old),
            "resize" => subresource::only_resources(new, old),
            _ => {}
        }
    }

    fn on_status_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        subresource::keep_for_status(new, old);
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        template::pod_rules(object, errors);
        if ctx.verb != Verb::Create {
            return;
        }
        let spec = object.field("spec");
        let (ephemeral, node) = (spec.field("ephemeralContainers"), spec.field("nodeName"));
        if !ephemeral.is_empty() {
            errors.push(ephemeral.forbidden("cannot be set on create"));
        }
        if !node.is_empty() && !spec.field("schedulingGates").is_empty() {
            errors.push(node.forbidden("cannot be set until all schedulingGates have been cleared"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, ctx: &Context, errors: &mut Errors) {
        match ctx.subresource {
            "ephemeralcontainers" => update::ephemeral(new, old, errors),
            "resize" => update::resize(new, old, errors),
            _ => update::rules(new, old, errors),
        }
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        update::status(new, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::pod(object, old)
    }

    fn deletion_grace_seconds(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let phase = object.get("status").map(|s| text(s, "phase")).unwrap_or_default();
        if text(spec, "nodeName").is_empty() || phase == "Failed" || phase == "Succeeded" {
            return Some(0);
        }
        let own = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
        let period = requested.unwrap_or(own);
        Some(if period < 0 { 1 } else { period })
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "status" => &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"],
            _ => &["status"],
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let status = object.get("status").unwrap_or(&Value::Null);
        let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
        let pod_ip = status.get("podIPs").and_then(|l| l.get(0)).map(|ip| text(ip, "ip")).unwrap_or_default();
        let pod_ip = if pod_ip.is_empty() { text(status, "podIP") } else { pod_ip };
        vec![
            ("spec.nodeName", text(spec, "nodeName").to_owned()),
            ("spec.restartPolicy", text(spec, "restartPolicy").to_owned()),
            ("spec.schedulerName", text(spec, "schedulerName").to_owned()),
            ("spec.serviceAccountName", text(spec, "serviceAccountName").to_owned()),
            ("spec.hostNetwork", host_network.to_string()),
            ("status.phase", text(status, "phase").to_owned()),
            ("status.podIP", pod_ip.to_owned()),
            ("status.nominatedNodeName", text(status, "nominatedNodeName").to_owned()),
        ]
    }
}

/// A pod without a spec is refused by the rules, not by a missing map.
fn fill_spec(object: &mut Value) {
    meta::child_mut(object, "spec");
}
