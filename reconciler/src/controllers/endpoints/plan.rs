//! The Endpoints object of a service: addresses of its pods, grouped by the ports they have. Pure; the rules are those of
//! upstream's `endpoint` controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service};
use serde_json::{Value, json};

use crate::controllers::endpointslice::service;
use crate::objects::Pod;

/// Addresses of one object (`maxCapacity`); beyond it unready ones are left out first.
pub const ADDRESSES_MAX: usize = 1000;
pub const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// What the object should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub subsets: Vec<EndpointSubset>,
    pub labels: BTreeMap<String, String>,
    pub truncated: bool,
}

type PortKey = Vec<(Option<String>, i32, Option<String>, Option<String>)>;

pub fn wanted(service: &Service, pods: &[Arc<Pod>]) -> Wanted {
    let family = service::address_types(service, pods).first().copied().unwrap_or("IPv4");
    let include_terminating = service::publishes_not_ready(service);
    let mut groups: BTreeMap<PortKey, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| service::belongs_in_endpoints(p, include_terminating)) {
        let Some(ip) = service::addresses(pod, family).into_iter().next() else { continue };
        let Some(ports) = ports(service, pod) else { continue };
        let key = ports.iter().map(|p| (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone())).collect();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|p| !p.is_empty()),
            ..EndpointSubset::default()
        });
        let ready = pod.is_ready() || include_terminating;
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address(service, pod, ip));
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    let by_ip = |a: &EndpointAddress, b: &EndpointAddress| a.ip.cmp(&b.ip);
    for subset in &mut subsets {
        subset.addresses.iter_mut().for_each(|list| list.sort_by(by_ip));
        subset.not_ready_addresses.iter_mut().for_each(|list| list.sort_by(by_ip));
    }
    let truncated = truncate(&mut subsets);
    Wanted { subsets, labels: labels(service), truncated }
}

/// The ports a pod has of the service's. `None` when it has none of them; empty for a headless service without ports.
fn ports(service: &Service, pod: &Pod) -> Option<Vec<EndpointPort>> {
    let wanted = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    if wanted.is_empty() {
        return service::is_headless(service).then(Vec::new);
    }
    let found = wanted.iter().filter_map(|port| Some((port, service::target_port(port, pod)?)));
    let ports: Vec<EndpointPort> = found
        .map(|(port, number)| EndpointPort {
            name: port.name.clone().filter(|n| !n.is_empty()),
            port: number,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    Some(ports).filter(|p| !p.is_empty())
}

fn address(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: service::hostname(service, pod),
        node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
            uid: Some(pod.metadata.uid.clone()),
            ..ObjectReference::default()
        }),
    }
}

/// Cuts to [`ADDRESSES_MAX`], keeping ready addresses before unready ones.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut room = ADDRESSES_MAX;
    let mut cut = false;
    let mut keep = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            cut |= addresses.len() > room;
            addresses.truncate(room);
            room -= addresses.len();
        }
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    cut
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if service::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    labels
}

/// A merge patch from what there is to what is wanted; `None` if they agree.
pub fn patch(current: &Endpoints, wanted: &Wanted) -> Option<Value> {
    let annotations = current.metadata.annotations.clone().unwrap_or_default();
    let labels = current.metadata.labels.clone().unwrap_or_default();
    let same = current.subsets.as_deref().unwrap_or_default() == wanted.subsets
        && labels == wanted.labels
        && annotations.contains_key(OVER_CAPACITY) == wanted.truncated;
    if same {
        return None;
    }
    let mut new_labels = json!(wanted.labels);
    for stale in labels.keys().filter(|key| !wanted.labels.contains_key(*key)) {
        new_labels[stale] = Value::Null;
    }
    let mut metadata = json!({"labels": new_labels, "resourceVersion": current.metadata.resource_version});
    metadata["annotations"][OVER_CAPACITY] = if wanted.truncated { "truncated".into() } else { Value::Null };
    Some(json!({"metadata": metadata, "subsets": wanted.subsets}))
}

/// The object where there is none yet.
pub fn new_object(name: &str, wanted: &Wanted) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "labels": wanted.labels}, "subsets": wanted.subsets,
    });
    if wanted.truncated {
        object["metadata"]["annotations"] = json!({OVER_CAPACITY: "truncated"});
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn pod(n: usize, port: i32, ready: bool) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", n / 250, n % 250);
        let object = json!({
            "metadata": {"name": format!("p{n}"), "namespace": "a", "uid": format!("u{n}")},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn service() -> Service {
        let ports = json!([{"port": 80, "targetPort": "http", "protocol": "TCP"}]);
        serde_json::from_value(json!({
            "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "ports": ports},
        }))
        .unwrap()
    }

    fn shown(wanted: &Wanted) -> String {
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|a| a.ip.as_str()).collect::<Vec<_>>().join(" ")
        };
        let line = |s: &EndpointSubset| {
            let ports: Vec<i32> = s.ports.iter().flatten().map(|p| p.port).collect();
            format!("{ports:?} ready {} unready {}", ips(&s.addresses), ips(&s.not_ready_addresses))
        };
        wanted.subsets.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn addresses_are_grouped_by_their_ports() {
        let pods = [pod(3, 8080, true), pod(1, 8080, true), pod(2, 8080, false), pod(4, 9090, true)];
        let wanted = wanted(&service(), &pods);
        expect![[r#"
            [8080] ready 10.0.0.1 10.0.0.3 unready 10.0.0.2
            [9090] ready 10.0.0.4 unready "#]]
        .assert_eq(&shown(&wanted));
        let stored: Endpoints = serde_json::from_value(new_object("web", &wanted)).unwrap();
        assert_eq!(patch(&stored, &wanted), None);
    }

    #[test]
    fn too_many_addresses_are_cut_unready_first() {
        let mut pods: Vec<Arc<Pod>> = (0..990).map(|n| pod(n, 8080, true)).collect();
        pods.extend((990..1020).map(|n| pod(n, 8080, false)));
        let wanted = wanted(&service(), &pods);
        let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        let subset = &wanted.subsets[0];
        assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (990, 10));
        assert!(wanted.truncated);
    }
}
