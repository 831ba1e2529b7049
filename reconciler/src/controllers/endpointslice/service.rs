//! How a service and a pod meet: addresses by family, target ports, and which pods count. Shared by the controllers of
//! EndpointSlices and Endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::Pod;

/// The address types of a service (`getAddressTypesForService`). One that was stored without families is judged by its
/// cluster address, and a headless one by its pods.
pub fn address_types(service: &Service, pods: &[Arc<Pod>]) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    if !families.is_empty() {
        return families.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    }
    let cluster_ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    match cluster_ip.parse::<IpAddr>() {
        Ok(ip) => vec![address_type(ip)],
        Err(_) => {
            let ips = pods.iter().filter_map(|p| p.status.pod_ip.parse::<IpAddr>().ok());
            vec![ips.map(address_type).next().unwrap_or("IPv4")]
        }
    }
}

fn address_type(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// The pod's address of a family.
pub fn addresses(pod: &Pod, family: &str) -> Vec<String> {
    let all = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    let parsed = all.filter_map(|ip| ip.parse::<IpAddr>().ok());
    parsed.filter(|ip| address_type(*ip) == family).map(|ip| ip.to_string()).collect()
}

/// `ShouldPodBeInEndpoints`.
pub fn belongs_in_endpoints(pod: &Pod, include_terminating: bool) -> bool {
    let has_address = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    has_address && !pod.is_terminal() && (include_terminating || !pod.metadata.is_deleting())
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or_default()
}

/// Without a cluster address (`!IsServiceIPSet`).
pub fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    matches!(spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default(), "" | "None")
}

/// The hostname under which a pod is found through this service (`ShouldSetHostname`).
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let is_subdomain = Some(pod.spec.subdomain.as_str()) == service.metadata.name.as_deref();
    Some(pod.spec.hostname.clone()).filter(|hostname| !hostname.is_empty() && is_subdomain)
}

/// The number a service port leads to in this pod (`FindPort`); named ports differ from pod to pod.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let own = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
            ports.into_iter().find(|p| p.name == *name && own(&p.protocol) == protocol).map(|p| p.container_port)
        }
    }
}
