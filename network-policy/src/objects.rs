//! Projections of what policies are made from. Pods of the whole cluster are held by every node that has a policy to
//! enforce, so a pod is reduced to the few words that selectors and sets read.

use std::net::IpAddr;

use api_client::{Meta, Metadata};
use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    pub metadata: Meta,
    pub spec: PolicySpec,
}

api_client::projection!(NetworkPolicy as networking::NetworkPolicy);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySpec {
    pub pod_selector: Value,
    #[serde(deserialize_with = "api_client::nullable")]
    pub ingress: Vec<Ingress>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub egress: Vec<Egress>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub policy_types: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ingress {
    #[serde(deserialize_with = "api_client::nullable")]
    pub from: Vec<Peer>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Egress {
    #[serde(deserialize_with = "api_client::nullable")]
    pub to: Vec<Peer>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    pub pod_selector: Option<Value>,
    pub namespace_selector: Option<Value>,
    pub ip_block: Option<IpBlock>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    pub cidr: String,
    #[serde(deserialize_with = "api_client::nullable")]
    pub except: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    pub protocol: Option<String>,
    /// A number or the name of a port of the pod that is connected to.
    pub port: Option<Value>,
    pub end_port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Meta,
}

api_client::projection!(
    Namespace as core::Namespace,
    Meta,
    trim = |namespace| {
        namespace.metadata.owner_references = Vec::new();
        namespace.metadata.finalizers = Vec::new();
    }
);

/// Labels in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(have, _)| (**have).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(labels: T) -> Self {
        let mut all = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<Vec<_>>();
        all.sort();
        Self(all.into_boxed_slice())
    }
}

/// Names a pod among all, and tells a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMeta {
    pub name: Box<str>,
    pub namespace: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub deleting: bool,
}

impl Metadata for PodMeta {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        self.deleting
    }
}

/// A port that can be named in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Absent and empty mean TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A pod as policies see it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "WirePod")]
pub struct Pod {
    pub metadata: PodMeta,
    pub labels: Labels,
    pub node: Box<str>,
    /// None of a pod that policies do not concern: it has finished, is in the host's network, or has none yet.
    pub addresses: Box<[IpAddr]>,
    pub ports: Box<[NamedPort]>,
}

api_client::projection!(Pod as core::Pod, PodMeta);

#[derive(Deserialize)]
struct WirePod {
    metadata: Meta,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    node_name: String,
    host_network: bool,
    #[serde(deserialize_with = "api_client::nullable")]
    containers: Vec<WireContainer>,
    #[serde(deserialize_with = "api_client::nullable")]
    init_containers: Vec<WireContainer>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireContainer {
    restart_policy: String,
    #[serde(deserialize_with = "api_client::nullable")]
    ports: Vec<WirePort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WirePort {
    name: String,
    container_port: u16,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "api_client::nullable")]
    pod_ips: Vec<WireAddress>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireAddress {
    ip: String,
}

impl From<WirePod> for Pod {
    fn from(pod: WirePod) -> Self {
        let WirePod { metadata, spec, status } = pod;
        let deleting = metadata.is_deleting();
        let concerned = !spec.host_network && !matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let listed = status.pod_ips.iter().map(|address| &address.ip);
        let mut addresses = listed.chain([&status.pod_ip]).filter_map(|ip| ip.parse().ok()).collect::<Vec<IpAddr>>();
        addresses.sort();
        addresses.dedup();
        // Only sidecars among init containers serve anything beside the others.
        let sidecars = spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        Self {
            metadata: PodMeta {
                name: metadata.name.into(),
                namespace: metadata.namespace.into(),
                uid: metadata.uid.into(),
                resource_version: metadata.resource_version.into(),
                deleting,
            },
            labels: metadata.labels.into_iter().collect(),
            node: spec.node_name.into(),
            addresses: if concerned { addresses.into() } else { Box::default() },
            ports: ports.filter_map(named).collect(),
        }
    }
}

impl Pod {
    /// As its node's agent knows it. `identity`: namespace, name, uid; `ports`: name, protocol, number.
    pub fn new<'a>(
        identity: (String, String, String),
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        node: &str,
        addresses: &[IpAddr],
        ports: impl IntoIterator<Item = (String, String, u16)>,
    ) -> Self {
        let (namespace, name, uid) = identity;
        let port = |(name, protocol, number): (String, String, u16)| {
            Some(NamedPort { name: name.into(), protocol: Protocol::parse(&protocol)?, number })
        };
        Self {
            metadata: PodMeta { name: name.into(), namespace: namespace.into(), uid: uid.into(), ..PodMeta::default() },
            labels: labels.into_iter().collect(),
            node: node.into(),
            addresses: addresses.into(),
            ports: ports.into_iter().filter_map(port).collect(),
        }
    }
}

fn named(port: &WirePort) -> Option<NamedPort> {
    let protocol = Protocol::parse(&port.protocol)?;
    let name = port.name.as_str();
    (!name.is_empty()).then(|| NamedPort { name: name.into(), protocol, number: port.container_port })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_reduced_to_what_policies_read() {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "1"}},
            "spec": {"nodeName": "here", "containers": [
                {"name": "c", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]},
            ], "initContainers": [
                {"name": "once", "ports": [{"containerPort": 7, "name": "no"}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 8, "name": "s", "protocol": "UDP"}]},
            ]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        });
        let read: Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!((read.labels.get("a"), read.labels.get("b"), read.labels.get("c")), (Some("1"), Some("2"), None));
        assert_eq!(read.addresses.len(), 2);
        let ports = read.ports.iter().map(|p| format!("{}/{}/{}", p.name, p.protocol.name(), p.number));
        assert_eq!(ports.collect::<Vec<_>>(), ["http/tcp/80", "s/udp/8"]);
        pod["status"]["phase"] = "Failed".into();
        assert!(serde_json::from_value::<Pod>(pod.clone()).unwrap().addresses.is_empty());
        pod["status"]["phase"] = "Running".into();
        pod["spec"]["hostNetwork"] = true.into();
        assert!(serde_json::from_value::<Pod>(pod).unwrap().addresses.is_empty());
    }
}
