//! Projections of pods and nodes: what scheduling reads, computed once when an object is decoded, because every pod
//! of the cluster is held.

use std::collections::BTreeMap;

use api::placement::requirement_holds;
use api_client::Meta;
use k8s_openapi::api::core::v1::{Affinity, Taint, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::resources::{ContainerResources, InitContainer, List, PodRequest, Resources};

/// Upstream's `v1.DefaultSchedulerName`.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// A port of the host that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` when the pod names none.
    pub address: String,
    pub protocol: String,
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be had at once: same port and protocol, and the same or any address.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY || other.address == ANY)
    }
}

/// A pod as the scheduler knows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Pod")]
pub struct Pod {
    pub metadata: Meta,
    /// Empty until bound.
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: i32,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Box<Affinity>>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<TopologySpreadConstraint>,
    pub request: PodRequest,
    pub host_ports: Vec<HostPort>,
    pub images: Vec<String>,
    /// Names of the gates that still hold it.
    pub gates: Vec<String>,
    /// Succeeded or Failed: it holds no resources any more.
    pub is_terminal: bool,
    /// The message of a `PodScheduled=False` condition.
    pub unscheduled_message: Option<String>,
}

api_client::projection!(Pod as k8s_openapi::api::core::v1::Pod);

/// A node as the scheduler knows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Node")]
pub struct Node {
    pub metadata: Meta,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    /// How many pods fit (`status.allocatable.pods`).
    pub pods_max: i64,
    /// Size in bytes by image name.
    pub images: BTreeMap<String, i64>,
}

api_client::projection!(Node as k8s_openapi::api::core::v1::Node);

/// Whether a label selector selects `labels`. An absent selector selects nothing, an empty one everything.
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let values = e.values.as_deref().unwrap_or_default();
            requirement_holds(labels.get(&e.key).map(String::as_str), &e.operator, values)
        })
}

/// The shapes on the wire.
mod wire {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Pod {
        metadata: Meta,
        spec: PodSpec,
        status: PodStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct PodSpec {
        node_name: String,
        scheduler_name: String,
        priority: i32,
        node_selector: BTreeMap<String, String>,
        affinity: Option<Box<Affinity>>,
        tolerations: Vec<Toleration>,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        overhead: List,
        host_network: bool,
        scheduling_gates: Vec<Named>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Container {
        image: String,
        resources: ContainerResources,
        ports: Vec<Port>,
        restart_policy: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Port {
        container_port: u16,
        host_port: u16,
        #[serde(rename = "hostIP")]
        host_ip: String,
        protocol: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Named {
        name: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct PodStatus {
        phase: String,
        conditions: Vec<Condition>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Condition {
        r#type: String,
        status: String,
        message: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Node {
        metadata: Meta,
        spec: NodeSpec,
        status: NodeStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct NodeSpec {
        unschedulable: bool,
        taints: Vec<Taint>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct NodeStatus {
        allocatable: List,
        images: Vec<Image>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Image {
        names: Vec<String>,
        size_bytes: i64,
    }

    impl From<Pod> for super::Pod {
        fn from(pod: Pod) -> Self {
            let Pod { metadata, spec, status } = pod;
            let init = spec
                .init_containers
                .iter()
                .map(|c| InitContainer { resources: &c.resources, is_sidecar: c.restart_policy == "Always" });
            let request = PodRequest::of(spec.containers.iter().map(|c| &c.resources), init, &spec.overhead);
            let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let host_ports = ports.filter_map(|p| host_port(p, spec.host_network)).collect();
            let unscheduled = status.conditions.into_iter().find(|c| c.r#type == "PodScheduled" && c.status == "False");
            Self {
                metadata,
                node_name: spec.node_name,
                scheduler_name: spec.scheduler_name,
                priority: spec.priority,
                node_selector: spec.node_selector,
                affinity: spec.affinity,
                tolerations: spec.tolerations,
                spread: spec.topology_spread_constraints,
                request,
                host_ports,
                images: spec.containers.into_iter().map(|c| c.image).collect(),
                gates: spec.scheduling_gates.into_iter().map(|g| g.name).collect(),
                is_terminal: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
                unscheduled_message: unscheduled.map(|c| c.message),
            }
        }
    }

    /// With the host's network every container port is a host port.
    fn host_port(port: &Port, host_network: bool) -> Option<HostPort> {
        let number = if port.host_port == 0 && host_network { port.container_port } else { port.host_port };
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        (number != 0).then(|| HostPort {
            address: or(&port.host_ip, "0.0.0.0"),
            protocol: or(&port.protocol, "TCP"),
            port: number,
        })
    }

    impl From<Node> for super::Node {
        fn from(node: Node) -> Self {
            let pods = node.status.allocatable.get("pods").and_then(|q| q.0.parse::<api::quantity::Quantity>().ok());
            let images = node.status.images.into_iter();
            Self {
                metadata: node.metadata,
                unschedulable: node.spec.unschedulable,
                taints: node.spec.taints,
                allocatable: Resources::of(&node.status.allocatable),
                pods_max: pods.map_or(0, |q| q.value()),
                images: images.flat_map(|i| i.names.into_iter().map(move |name| (name, i.size_bytes))).collect(),
            }
        }
    }
}
