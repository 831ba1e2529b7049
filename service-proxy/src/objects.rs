//! Projections of Services, EndpointSlices and this node: the fields this crate reads, and nothing else, because every
//! node holds all of them.

use std::net::IpAddr;

use api_client::{Index, Meta};
use serde::Deserialize;

use api::cidr::Cidr;

/// `discovery.k8s.io/v1`: the label that names an EndpointSlice's Service (`discovery.LabelServiceName`).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Services with this label belong to another proxy (`apis.LabelServiceProxyName`).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// With it a Service that has an address is treated as if it had none.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// `v1.LabelTopologyZone`
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// `v1.DefaultClientIPServiceAffinitySeconds`
const AFFINITY_SECONDS: u32 = 10_800;

/// Slices by their Service's name.
pub const BY_SERVICE: Index<EndpointSlice> = Index { name: "service", of: EndpointSlice::service };

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ServiceSpec,
    #[serde(default)]
    pub status: ServiceStatus,
}

api_client::projection!(Service as k8s_openapi::api::core::v1::Service);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub ports: Vec<ServicePort>,
    pub session_affinity: String,
    pub session_affinity_config: AffinityConfig,
    pub internal_traffic_policy: String,
    pub external_traffic_policy: String,
    pub load_balancer_source_ranges: Vec<String>,
    pub health_check_node_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: ClientIp,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIp {
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub port: u16,
    pub node_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    pub ip: String,
    /// `Proxy`: the balancer sends to node ports, and the address is not the nodes' to serve.
    pub ip_mode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: Meta,
    #[serde(default)]
    pub address_type: String,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub ports: Vec<EndpointPort>,
}

api_client::projection!(EndpointSlice as k8s_openapi::api::discovery::v1::EndpointSlice);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: Conditions,
    pub node_name: String,
    pub hints: Hints,
}

/// Absent means true for `ready` and `serving`, false for `terminating`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// Who should use an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    pub for_zones: Vec<Named>,
    pub for_nodes: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    pub name: String,
    pub protocol: String,
    pub port: Option<u16>,
}

/// A ServiceCIDR: ranges that cluster addresses come from. Those being deleted count until they are gone.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceRanges {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ServiceRangesSpec,
}

api_client::projection!(ServiceRanges as k8s_openapi::api::networking::v1::ServiceCIDR);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceRangesSpec {
    #[serde(deserialize_with = "api_client::nullable")]
    pub cidrs: Vec<String>,
}

/// This node, for its zone and addresses.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeObject {
    pub metadata: Meta,
    #[serde(default)]
    pub status: NodeStatus,
}

api_client::projection!(NodeObject as k8s_openapi::api::core::v1::Node);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    pub address: String,
}

impl Service {
    /// Not one for this proxy (`proxyutil.ShouldSkipService`): without an address of its own, somebody else's, or told
    /// to be treated as headless whatever address it has.
    pub fn is_skipped(&self) -> bool {
        let ip = self.spec.cluster_ip.as_str();
        let addressless = ip.is_empty() || ip == "None" || self.spec.kind == "ExternalName";
        let labels = &self.metadata.labels;
        addressless || labels.contains_key(PROXY_NAME_LABEL) || labels.contains_key(HEADLESS_LABEL)
    }

    /// Its address of this family.
    pub fn cluster_ip(&self, ipv6: bool) -> Option<IpAddr> {
        let all = self.spec.cluster_ips.iter().chain([&self.spec.cluster_ip]);
        all.filter_map(|a| a.parse::<IpAddr>().ok()).find(|a| a.is_ipv6() == ipv6)
    }

    pub fn external_ips(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        of_family(self.spec.external_ips.iter(), ipv6)
    }

    /// Load balancer addresses that nodes serve.
    pub fn balancer_ips(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let ingress = self.status.load_balancer.ingress.iter();
        of_family(ingress.filter(|i| i.ip_mode != "Proxy").map(|i| &i.ip), ipv6)
    }

    pub fn source_ranges(&self, ipv6: bool) -> Vec<Cidr> {
        let ranges = self.spec.load_balancer_source_ranges.iter().filter_map(|range| Cidr::parse(range.trim()));
        ranges.filter(|range| range.base.is_ipv6() == ipv6).collect()
    }

    /// 0 without affinity.
    pub fn affinity_seconds(&self) -> u32 {
        let seconds = self.spec.session_affinity_config.client_ip.timeout_seconds;
        if self.spec.session_affinity == "ClientIP" { seconds.unwrap_or(AFFINITY_SECONDS).max(1) } else { 0 }
    }

    pub fn is_internal_local(&self) -> bool {
        self.spec.internal_traffic_policy == "Local"
    }

    pub fn is_external_local(&self) -> bool {
        self.spec.external_traffic_policy == "Local"
    }

    /// The port of this node that tells a load balancer whether there are endpoints here.
    pub fn health_check_port(&self) -> Option<u16> {
        let asks = self.spec.kind == "LoadBalancer" && self.is_external_local();
        (asks && self.spec.health_check_node_port != 0).then_some(self.spec.health_check_node_port)
    }
}

impl EndpointSlice {
    pub fn service(&self) -> &str {
        self.metadata.labels.get(SERVICE_NAME_LABEL).map_or("", String::as_str)
    }
}

impl ServicePort {
    /// By its number. An absent protocol is TCP.
    pub fn protocol(&self) -> u8 {
        protocol(&self.protocol)
    }
}

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

/// A protocol by its number. An absent one is TCP.
pub fn protocol(name: &str) -> u8 {
    match name {
        "UDP" => UDP,
        "SCTP" => SCTP,
        _ => TCP,
    }
}

fn of_family<'a>(texts: impl Iterator<Item = &'a String>, ipv6: bool) -> impl Iterator<Item = IpAddr> {
    texts.filter_map(|text| text.parse::<IpAddr>().ok()).filter(move |address| address.is_ipv6() == ipv6)
}
