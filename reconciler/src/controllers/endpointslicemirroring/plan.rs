//! Which EndpointSlices say what an Endpoints object says. Pure; the rules are those of upstream's
//! `endpointslicemirroring` reconciler: one slice per set of ports and address family.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api_client::Object;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use crate::controllers::endpointslice::plan::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL, Step};
use crate::objects::{Owner, annotation_of, label_of};

pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one subset that are mirrored (`--mirroring-max-endpoints-per-subset`).
pub const ADDRESSES_MAX: usize = 1000;
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are a lock for somebody's leader election.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Not for the slices.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Slices that change, then new ones, then deletions.
    pub steps: Vec<Step>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses beyond [`ADDRESSES_MAX`] of their subset.
    pub too_many: usize,
}

/// Whether somebody wants it mirrored; that its service has no selector is the caller's to check.
pub fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.metadata.deletion_timestamp.is_none()
        && label_of(&endpoints.metadata, SKIP_LABEL) != Some("true")
        && annotation_of(&endpoints.metadata, LEADER).is_none()
}

/// Family and ports: what slices are told apart by.
type GroupKey = (&'static str, Vec<(String, i32, String, Option<String>)>);

/// Addresses of one slice, in a stable order.
type Group = BTreeMap<String, Endpoint>;

pub fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut existing: BTreeMap<GroupKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        existing.entry(key_of_slice(slice)).or_default().push(slice);
    }
    let mut surplus: Vec<&Arc<EndpointSlice>> = Vec::new();
    let mut new = Vec::new();
    for (key, group) in groups(endpoints, &mut plan) {
        let mut present = existing.remove(&key).unwrap_or_default().into_iter();
        let wanted = slice(endpoints, &key, group);
        match present.next() {
            Some(slice) => plan.steps.extend(patch(slice, &wanted)),
            None => new.push(wanted),
        }
        surplus.extend(present);
    }
    surplus.extend(existing.into_values().flatten());
    plan.steps.extend(new.into_iter().map(Step::Create));
    plan.steps.extend(surplus.into_iter().map(deletion));
    plan
}

/// The end of a slice that mirrors nothing any more.
pub fn deletion(slice: &Arc<EndpointSlice>) -> Step {
    Step::Delete(slice.key(), slice.metadata.uid.clone().unwrap_or_default())
}

/// Subsets with the same ports are one, as `RepackSubsets` has it; a ready address is not unready elsewhere.
fn groups(endpoints: &Endpoints, plan: &mut Plan) -> BTreeMap<GroupKey, Group> {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    let mut counts: BTreeMap<Vec<(String, i32, String, Option<String>)>, usize> = BTreeMap::new();
    for (ready, subset) in endpoints.subsets.iter().flatten().flat_map(|s| [(true, s), (false, s)]) {
        let addresses = if ready { &subset.addresses } else { &subset.not_ready_addresses };
        let ports = ports(subset.ports.as_deref().unwrap_or_default());
        for address in addresses.iter().flatten() {
            let Some((family, endpoint)) = endpoint(address, ready) else {
                plan.invalid += 1;
                continue;
            };
            let group = groups.entry((family, ports.clone())).or_default();
            let identity = identity(&endpoint);
            if group.contains_key(&identity) {
                continue;
            }
            let count = counts.entry(ports.clone()).or_default();
            if *count == ADDRESSES_MAX {
                plan.too_many += 1;
                continue;
            }
            *count += 1;
            group.insert(identity, endpoint);
        }
    }
    groups.retain(|_, group| !group.is_empty());
    groups
}

fn ports(ports: &[OldPort]) -> Vec<(String, i32, String, Option<String>)> {
    let key = |p: &OldPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        (p.name.clone().unwrap_or_default(), p.port, protocol, p.app_protocol.clone())
    };
    let mut ports: Vec<_> = ports.iter().map(key).collect();
    ports.sort();
    ports
}

fn key_of_slice(slice: &EndpointSlice) -> GroupKey {
    let key = |p: &EndpointPort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        (p.name.clone().unwrap_or_default(), p.port.unwrap_or_default(), protocol, p.app_protocol.clone())
    };
    let mut ports: Vec<_> = slice.ports.iter().flatten().map(key).collect();
    ports.sort();
    let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
    (family, ports)
}

/// Leading zeros in an IPv4 address are read as upstream's `ParseIPSloppy` does.
fn address(text: &str) -> Option<IpAddr> {
    let strict: Vec<String> = text
        .split('.')
        .map(|part| {
            let trimmed = part.trim_start_matches('0');
            if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
        })
        .collect();
    text.parse().or_else(|_| strict.join(".").parse()).ok()
}

fn endpoint(from: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip = address(&from.ip)?;
    let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: from.hostname.clone().filter(|h| !h.is_empty()),
        node_name: from.node_name.clone(),
        target_ref: from.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((family, endpoint))
}

/// Two endpoints of a slice are the same if they have the same address and stand for the same object.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref()).unwrap_or_default();
    format!("{} {uid}", endpoint.addresses.join(","))
}

fn slice(endpoints: &Endpoints, key: &GroupKey, group: Group) -> Value {
    let metadata = &endpoints.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let mut labels = metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME_LABEL.into(), name.clone());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    let (family, ports) = key;
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name.clone()),
            port: Some(*port),
            protocol: Some(protocol.clone()),
            app_protocol: app_protocol.clone(),
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{name}-"), "labels": labels, "annotations": annotations,
            "ownerReferences": [Owner::of(endpoints).reference()],
        },
        "addressType": family,
        "ports": ports,
        "endpoints": group.into_values().collect::<Vec<_>>(),
    })
}

/// A merge patch, if the slice says something else.
fn patch(slice: &EndpointSlice, wanted: &Value) -> Option<Step> {
    let have = json!(slice);
    let of = |value: &Value, field: &str| value["metadata"][field].as_object().cloned().unwrap_or_default();
    let sorted = |value: &Value| {
        let mut endpoints: Vec<String> =
            value["endpoints"].as_array().into_iter().flatten().map(Value::to_string).collect();
        endpoints.sort();
        endpoints
    };
    let fields = ["labels", "annotations"];
    if sorted(&have) == sorted(wanted) && fields.iter().all(|field| of(&have, field) == of(wanted, field)) {
        return None;
    }
    let mut metadata = json!({"resourceVersion": slice.metadata.resource_version});
    for field in fields {
        let mut map = of(wanted, field);
        of(&have, field).into_iter().filter(|(key, _)| wanted["metadata"][field].get(key).is_none()).for_each(
            |(key, _)| {
                map.insert(key, Value::Null);
            },
        );
        metadata[field] = map.into();
    }
    Some(Step::Patch(slice.key(), json!({"metadata": metadata, "endpoints": wanted["endpoints"]})))
}
