//! Service. Addresses and node ports are allocated by the API server, between defaulting and
//! [`Strategy::prepare_update`]; what it needs to know for that is in [`allocation`].

pub mod allocation;
mod rules;

use serde_json::Value;

use self::allocation::{externally_accessible, needs_cluster_ip, needs_health_check_port, node_ports};
use super::fill::Lit::{Int, Object, Str};
use super::fill::{each, fill, has, text};
use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, warnings};
use crate::meta;

/// Three hours.
const AFFINITY_DEFAULT_SECONDS: i64 = 10_800;

pub struct Service;

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("sessionAffinity", Str("None")), ("type", Str("ClusterIP"))]);
        session_affinity(spec);
        each(spec, "ports", |port| {
            let unset = port.get("targetPort").is_none_or(|t| t.is_null() || t == 0 || t == "");
            if let Some(number) = port.get("port").cloned().filter(|_| unset) {
                port["targetPort"] = number;
            }
            fill(port, &[("protocol", Str("TCP"))]);
        });
        if externally_accessible(spec) {
            fill(spec, &[("externalTrafficPolicy", Str("Cluster"))]);
        }
        let kind = text(spec, "type").to_owned();
        if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind.as_str()) {
            fill(spec, &[("internalTrafficPolicy", Str("Cluster"))]);
        }
        if kind == "LoadBalancer" {
            fill(spec, &[("allocateLoadBalancerNodePorts", super::fill::Lit::Bool(true))]);
            fill(object, &[("status", Object)]);
            let balancer = meta::child_mut(&mut object["status"], "loadBalancer");
            each(balancer, "ingress", |ingress| {
                if !text(ingress, "ip").is_empty() {
                    fill(ingress, &[("ipMode", Str("VIP"))]);
                }
            });
        }
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        object["status"] = serde_json::json!({"loadBalancer": {}});
    }

    fn on_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        drop_type_dependent(new, old);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        rules::service(object, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        rules::change(new, old, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::service(object)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        vec![("spec.clusterIP", text(spec, "clusterIP").to_owned()), ("spec.type", text(spec, "type").to_owned())]
    }
}

fn session_affinity(spec: &mut Value) {
    match text(spec, "sessionAffinity") {
        "None" => {
            meta::object_mut(spec).remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = meta::child_mut(spec, "sessionAffinityConfig");
            let client_ip = meta::child_mut(config, "clientIP");
            fill(client_ip, &[("timeoutSeconds", Int(AFFINITY_DEFAULT_SECONDS))]);
        }
        _ => {}
    }
}

/// A change of type drops what the new type does not have, unless the writer changed it on purpose
/// (`dropTypeDependentFields`).
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let before = old.get("spec").unwrap_or(&Value::Null);
    let Some(spec) = new.get_mut("spec") else { return };
    if needs_cluster_ip(before) && !needs_cluster_ip(spec) {
        drop_unchanged(spec, before, &["clusterIP", "clusterIPs"]);
        drop_unchanged(spec, before, &["ipFamilies"]);
        drop_unchanged(spec, before, &["ipFamilyPolicy"]);
    }
    let takes_ports = |spec: &Value| ["NodePort", "LoadBalancer"].contains(&text(spec, "type"));
    let old_ports = node_ports(before);
    if takes_ports(before) && !takes_ports(spec) && node_ports(spec).iter().all(|port| old_ports.contains(port)) {
        each(spec, "ports", |port| {
            meta::object_mut(port).remove("nodePort");
        });
    }
    if needs_health_check_port(before) && !needs_health_check_port(spec) {
        drop_unchanged(spec, before, &["healthCheckNodePort"]);
    }
    let balances = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balances(before) && !balances(spec) {
        if has(before, "allocateLoadBalancerNodePorts") {
            drop_unchanged(spec, before, &["allocateLoadBalancerNodePorts"]);
        }
        drop_unchanged(spec, before, &["loadBalancerClass"]);
    }
    if externally_accessible(before) && !externally_accessible(spec) {
        drop_unchanged(spec, before, &["externalTrafficPolicy"]);
    }
    if !balances(spec) {
        new["status"]["loadBalancer"] = Value::Object(serde_json::Map::new());
    }
}

/// Removes `fields` when all of them are as they were.
fn drop_unchanged(spec: &mut Value, before: &Value, fields: &[&str]) {
    let (now, old) = (Place::root(spec), Place::root(before));
    if fields.iter().all(|field| now.field(field).same(&old.field(field))) {
        let map = meta::object_mut(spec);
        fields.iter().for_each(|field| {
            map.remove(*field);
        });
    }
}
