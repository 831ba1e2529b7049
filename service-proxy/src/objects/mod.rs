//! Projections of Services, EndpointSlices and this node: the fields this crate reads, and nothing else, because every
//! node holds all of them.

mod lenient;
mod slice;

use std::net::IpAddr;

use api::cidr::Cidr;
use api_client::Meta;
use serde::Deserialize;

pub use slice::{BY_SERVICE, Endpoint, EndpointPort, EndpointSlice, Name, Named};

/// `v1.LabelTopologyZone`
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler's, before it deletes a node (`healthcheck.ToBeDeletedTaint`).
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// `v1.DefaultClientIPServiceAffinitySeconds`
const AFFINITY_SECONDS: u32 = 10_800;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    metadata: ServiceMeta,
    #[serde(default)]
    pub spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

api_client::projection!(Service as k8s_openapi::api::core::v1::Service, ServiceMeta);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceMeta {
    name: Box<str>,
    namespace: Name,
    resource_version: Box<str>,
    labels: Labels,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    /// Belongs to another proxy (`apis.LabelServiceProxyName`).
    #[serde(rename = "service.kubernetes.io/service-proxy-name", deserialize_with = "lenient::is_there")]
    is_foreign: bool,
    /// With it a Service that has an address is treated as if it had none.
    #[serde(rename = "service.kubernetes.io/headless", deserialize_with = "lenient::is_there")]
    is_headless: bool,
}

impl api_client::Metadata for ServiceMeta {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    /// Nobody here needs it: one Service is as good as another of the same name.
    fn uid(&self) -> &str {
        ""
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    kind: ServiceType,
    /// None for a headless Service.
    #[serde(rename = "clusterIP", deserialize_with = "lenient::address")]
    cluster_ip: Option<IpAddr>,
    #[serde(rename = "clusterIPs", deserialize_with = "lenient::addresses")]
    cluster_ips: Vec<IpAddr>,
    #[serde(rename = "externalIPs", deserialize_with = "lenient::addresses")]
    external_ips: Vec<IpAddr>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub ports: Box<[ServicePort]>,
    #[serde(rename = "sessionAffinity", deserialize_with = "lenient::is_client_ip")]
    has_affinity: bool,
    #[serde(deserialize_with = "api_client::nullable")]
    session_affinity_config: AffinityConfig,
    #[serde(rename = "internalTrafficPolicy", deserialize_with = "lenient::is_local")]
    is_internal_local: bool,
    #[serde(rename = "externalTrafficPolicy", deserialize_with = "lenient::is_local")]
    is_external_local: bool,
    #[serde(deserialize_with = "lenient::ranges")]
    load_balancer_source_ranges: Vec<Cidr>,
    health_check_node_port: u16,
    pub publish_not_ready_addresses: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ServiceType {
    LoadBalancer,
    ExternalName,
    /// ClusterIP and NodePort: what else they are is told by their ports.
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct AffinityConfig {
    #[serde(rename = "clientIP", deserialize_with = "api_client::nullable")]
    client_ip: ClientIp,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: Box<str>,
    #[serde(deserialize_with = "lenient::protocol")]
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    #[serde(deserialize_with = "api_client::nullable")]
    load_balancer: LoadBalancerStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerStatus {
    #[serde(deserialize_with = "api_client::nullable")]
    ingress: Box<[LoadBalancerIngress]>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LoadBalancerIngress {
    #[serde(deserialize_with = "lenient::address")]
    ip: Option<IpAddr>,
    #[serde(rename = "ipMode", deserialize_with = "lenient::is_proxy")]
    is_proxy: bool,
}

/// By its number (`IPPROTO_TCP`). An absent one is TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl Protocol {
    const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    const SCTP: Self = Self(132);

    fn of(name: &str) -> Self {
        match name {
            "UDP" => Self::UDP,
            "SCTP" => Self::SCTP,
            _ => Self::TCP,
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::TCP
    }
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
    #[serde(deserialize_with = "lenient::ranges")]
    pub cidrs: Vec<Cidr>,
}

/// This node, for its zone and addresses.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeObject {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

api_client::projection!(NodeObject as k8s_openapi::api::core::v1::Node);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "api_client::nullable")]
    pub taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: String,
}

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

impl NodeObject {
    /// Neither being deleted nor about to be: load balancers may send to it (`ProxyHealthServer.NodeEligible`).
    pub fn is_eligible(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.spec.taints.iter().all(|t| t.key != TO_BE_DELETED_TAINT)
    }
}

impl Service {
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// Not one for this proxy (`proxyutil.ShouldSkipService`): without an address of its own, somebody else's, or told
    /// to be treated as headless whatever address it has.
    pub fn is_skipped(&self) -> bool {
        let addressless = self.spec.cluster_ip.is_none() || self.spec.kind == ServiceType::ExternalName;
        addressless || self.metadata.labels.is_foreign || self.metadata.labels.is_headless
    }

    /// Its address of this family.
    pub fn cluster_ip(&self, ipv6: bool) -> Option<IpAddr> {
        self.spec.cluster_ips.iter().copied().chain(self.spec.cluster_ip).find(|a| a.is_ipv6() == ipv6)
    }

    pub fn external_ips(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        self.spec.external_ips.iter().copied().filter(move |address| address.is_ipv6() == ipv6)
    }

    /// Load balancer addresses that nodes serve.
    pub fn balancer_ips(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let ingress = self.status.load_balancer.ingress.iter();
        ingress.filter(|ingress| !ingress.is_proxy).filter_map(|i| i.ip).filter(move |a| a.is_ipv6() == ipv6)
    }

    pub fn source_ranges(&self, ipv6: bool) -> Vec<Cidr> {
        let ranges = self.spec.load_balancer_source_ranges.iter().copied();
        ranges.filter(|range| range.base.is_ipv6() == ipv6).collect()
    }

    /// 0 without affinity.
    pub fn affinity_seconds(&self) -> u32 {
        let seconds = self.spec.session_affinity_config.client_ip.timeout_seconds;
        if self.spec.has_affinity { seconds.unwrap_or(AFFINITY_SECONDS).max(1) } else { 0 }
    }

    pub fn is_internal_local(&self) -> bool {
        self.spec.is_internal_local
    }

    pub fn is_external_local(&self) -> bool {
        self.spec.is_external_local
    }

    /// The port of this node that tells a load balancer whether there are endpoints here.
    pub fn health_check_port(&self) -> Option<u16> {
        let asks = self.spec.kind == ServiceType::LoadBalancer && self.is_external_local();
        (asks && self.spec.health_check_node_port != 0).then_some(self.spec.health_check_node_port)
    }
}
