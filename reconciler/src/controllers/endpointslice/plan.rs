//! Which EndpointSlices a service needs: endpoints stay in the slice they are in, changes touch as few slices as they
//! can, no slice grows beyond its limit. Pure; the rules are those of `k8s.io/endpointslice`'s `Reconciler`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_client::{Object, ObjectKey};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use serde_json::{Value, json};

use super::service;
use crate::objects::{Node, Owner, Pod, controller_of};

/// Endpoints of one slice (`--max-endpoints-per-slice`).
pub const ENDPOINTS_MAX: usize = 100;
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub struct Input<'a> {
    pub service: &'a Service,
    /// The pods its selector selects.
    pub pods: Vec<Arc<Pod>>,
    pub node: &'a dyn Fn(&str) -> Option<Arc<Node>>,
    /// The slices of the service that this controller manages and that are not being deleted.
    pub slices: Vec<Arc<EndpointSlice>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create(Value),
    /// Merge patch.
    Patch(ObjectKey, Value),
    Delete(ObjectKey, String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Creations first, so that no endpoint is missing in between.
    pub steps: Vec<Step>,
    /// Pods left out because their node isn't known (yet).
    pub skipped: Vec<String>,
}

/// Slices with the same ports hold endpoints together.
type PortKey = Vec<(Option<String>, Option<i32>, Option<String>, Option<String>)>;

#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    /// Desired endpoints by pod name, so that new slices fill in a stable order.
    desired: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let families = service::address_types(input.service, &input.pods);
    let own_uid = input.service.metadata.uid.as_deref();
    let is_usable = |slice: &&Arc<EndpointSlice>| {
        families.contains(&slice.address_type.as_str())
            && controller_of(&slice.metadata).map(|o| o.uid.as_str()) == own_uid
    };
    let mut deletions: Vec<Step> = input.slices.iter().filter(|s| !is_usable(s)).map(delete).collect();
    for family in families.iter().copied() {
        let slices = input.slices.iter().filter(is_usable).filter(|s| s.address_type == family).cloned().collect();
        let groups = group(input, family, slices, &mut plan.skipped);
        plan_family(input.service, family, groups, &mut plan.steps, &mut deletions);
    }
    plan.steps.append(&mut deletions);
    plan
}

/// Desired endpoints and existing slices by their ports.
fn group(
    input: &Input<'_>,
    family: &str,
    slices: Vec<Arc<EndpointSlice>>,
    skipped: &mut Vec<String>,
) -> BTreeMap<PortKey, Group> {
    let mut groups: BTreeMap<PortKey, Group> = BTreeMap::new();
    for slice in slices {
        groups.entry(port_key(slice.ports.as_deref().unwrap_or_default())).or_default().slices.push(slice);
    }
    for pod in input.pods.iter().filter(|p| service::belongs_in_endpoints(p, true)) {
        let node = (input.node)(&pod.spec.node_name);
        if node.is_none() && !service::publishes_not_ready(input.service) {
            skipped.push(pod.metadata.name.clone());
            continue;
        }
        let addresses = service::addresses(pod, family);
        if addresses.is_empty() {
            continue;
        }
        let ports = endpoint_ports(input.service, pod);
        let group = groups.entry(port_key(&ports)).or_default();
        group.ports = ports;
        group.desired.insert(pod.metadata.name.clone(), endpoint(input.service, pod, node.as_deref(), addresses));
    }
    groups
}

fn plan_family(
    service: &Service,
    family: &str,
    groups: BTreeMap<PortKey, Group>,
    steps: &mut Vec<Step>,
    deletions: &mut Vec<Step>,
) {
    let mut kept = 0;
    let mut doomed: Vec<Arc<EndpointSlice>> = Vec::new();
    let mut created = Vec::new();
    for group in groups.into_values() {
        let ports = group.ports.clone();
        let fitted = fit(service, group);
        kept += fitted.kept;
        steps.extend(fitted.patches);
        doomed.extend(fitted.doomed);
        created.extend(fitted.new.into_iter().map(|endpoints| new_slice(service, family, &ports, endpoints)));
    }
    // A service without endpoints keeps one empty slice, which says that there are none.
    if kept == 0 && created.is_empty() {
        let is_placeholder = |slice: &Arc<EndpointSlice>| {
            slice.endpoints.as_ref().is_none_or(Vec::is_empty)
                && slice.ports.as_ref().is_none_or(Vec::is_empty)
                && labels(service) == slice.metadata.labels.clone().unwrap_or_default()
        };
        match doomed.iter().position(is_placeholder) {
            Some(index) => drop(doomed.remove(index)),
            None => created.push(new_slice(service, family, &[], Vec::new())),
        }
    }
    steps.extend(created.into_iter().map(Step::Create));
    deletions.extend(doomed.iter().map(delete));
}

struct Fitted {
    /// Slices that stay, changed or not.
    kept: usize,
    patches: Vec<Step>,
    doomed: Vec<Arc<EndpointSlice>>,
    /// Contents of new slices.
    new: Vec<Vec<Endpoint>>,
}

/// Fits the desired endpoints of one group into its slices (`reconcileByPortMapping`).
fn fit(service: &Service, group: Group) -> Fitted {
    let mut left = group.desired;
    let wanted_labels = labels(service);
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    let mut doomed = Vec::new();
    for slice in group.slices {
        let take = |old: &Endpoint| take_matching(&mut left, old);
        let endpoints: Vec<Endpoint> = slice.endpoints.iter().flatten().filter_map(take).collect();
        if endpoints.is_empty() { doomed.push(slice) } else { kept.push((slice, endpoints)) }
    }
    let is_changed = |(slice, endpoints): &(Arc<EndpointSlice>, Vec<Endpoint>)| {
        slice.endpoints.as_ref() != Some(endpoints) || slice.metadata.labels.as_ref() != Some(&wanted_labels)
    };
    let mut left: Vec<Endpoint> = left.into_values().collect();
    // Slices that are written anyway are filled first, the fullest before the others.
    let mut order: Vec<usize> = (0..kept.len()).filter(|i| is_changed(&kept[*i])).collect();
    order.sort_by_key(|i| std::cmp::Reverse(kept[*i].1.len()));
    for index in order {
        fill(&mut kept[index].1, &mut left);
    }
    // Then one slice that has room for all the rest, the one that this fills most.
    if !left.is_empty() {
        let fits = kept.iter_mut().filter(|(_, endpoints)| endpoints.len() + left.len() <= ENDPOINTS_MAX);
        if let Some((_, endpoints)) = fits.max_by_key(|(_, endpoints)| endpoints.len()) {
            fill(endpoints, &mut left);
        }
    }
    let mut new = Vec::new();
    while !left.is_empty() {
        let mut endpoints = Vec::new();
        fill(&mut endpoints, &mut left);
        new.push(endpoints);
    }
    let changed = kept.iter().filter(|k| is_changed(k));
    let patches = changed.map(|(slice, endpoints)| patch(slice, endpoints, &wanted_labels)).collect();
    Fitted { kept: kept.len(), patches, doomed, new }
}

fn fill(endpoints: &mut Vec<Endpoint>, left: &mut Vec<Endpoint>) {
    let room = ENDPOINTS_MAX.saturating_sub(endpoints.len()).min(left.len());
    endpoints.extend(left.drain(..room));
}

/// The desired form of an endpoint that is in a slice already.
fn take_matching(desired: &mut BTreeMap<String, Endpoint>, old: &Endpoint) -> Option<Endpoint> {
    let name = old.target_ref.as_ref()?.name.as_ref()?;
    let same = |new: &Endpoint| {
        let uid = |e: &Endpoint| e.target_ref.as_ref().and_then(|r| r.uid.clone());
        uid(new) == uid(old) && new.addresses == old.addresses
    };
    if desired.get(name).is_some_and(same) { desired.remove(name) } else { None }
}

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let mut key: PortKey =
        ports.iter().map(|p| (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone())).collect();
    key.sort();
    key
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let found = ports.iter().filter_map(|port| Some((port, service::target_port(port, pod)?)));
    found
        .map(|(port, number)| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn endpoint(service: &Service, pod: &Pod, node: Option<&Node>, addresses: Vec<String>) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.metadata.is_deleting();
    let zone = node.map(Node::zone).filter(|z| !z.is_empty()).map(str::to_owned);
    let node_name = Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(service::publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(service, zone.as_deref(), node_name.as_deref()),
        hostname: service::hostname(service, pod),
        node_name,
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
            uid: Some(pod.metadata.uid.clone()),
            ..ObjectReference::default()
        }),
        deprecated_topology: None,
    }
}

/// `spec.trafficDistribution` as hints (`trafficdist.ReconcileHints`).
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let zone = zone?;
    let for_zones = Some(vec![ForZone { name: zone.to_owned() }]);
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(EndpointHints { for_zones, for_nodes: None }),
        "PreferSameNode" => {
            let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
            Some(EndpointHints { for_zones, for_nodes })
        }
        _ => None,
    }
}

/// A slice has its service's labels and the reserved ones (`setEndpointSliceLabels`).
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL] {
        labels.remove(reserved);
    }
    if service::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    labels
}

fn new_slice(service: &Service, family: &str, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", service.metadata.name.as_deref().unwrap_or_default()),
            "labels": labels(service),
            "ownerReferences": [Owner::of(service).reference()],
        },
        "addressType": family,
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn patch(slice: &EndpointSlice, endpoints: &[Endpoint], wanted: &BTreeMap<String, String>) -> Step {
    let mut labels = json!(wanted);
    for stale in slice.metadata.labels.iter().flatten().filter(|(key, _)| !wanted.contains_key(*key)) {
        labels[stale.0] = Value::Null;
    }
    let metadata = json!({"labels": labels, "resourceVersion": slice.metadata.resource_version});
    Step::Patch(slice.key(), json!({"metadata": metadata, "endpoints": endpoints}))
}

fn delete(slice: &Arc<EndpointSlice>) -> Step {
    Step::Delete(slice.key(), slice.metadata.uid.clone().unwrap_or_default())
}
