//! A pod as the scheduler knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_client::Meta;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, Toleration, TopologySpreadConstraint};
use serde::Deserialize;

use super::affinity::PodAffinity;
use super::storage::{PodVolume, RawVolume};
use crate::resources::{ContainerRequest, ContainerResources, Given, List, PodLevel, PodRequest, Resources};

/// Upstream's `v1.DefaultSchedulerName`.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";
/// The condition that says why a pod is about to go, and its reason for victims of preemption.
pub const PREEMPTION_BY_SCHEDULER: &str = "PreemptionByScheduler";

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

/// A device claim of a pod: by name, or by the template its claim is made from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaim {
    pub name: String,
    pub resource_claim_name: Option<String>,
    pub resource_claim_template_name: Option<String>,
}

/// A pod as the scheduler knows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Pod")]
pub struct Pod {
    pub metadata: Meta,
    /// Empty until bound.
    pub node_name: String,
    /// Where it is to go once its victims are gone; empty mostly.
    pub nominated_node: String,
    pub scheduler_name: String,
    pub priority: i32,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    pub node_selector: BTreeMap<String, String>,
    pub node_affinity: Option<Box<NodeAffinity>>,
    pub affinity: Option<Box<PodAffinity>>,
    pub tolerations: Arc<[Toleration]>,
    pub spread: Vec<TopologySpreadConstraint>,
    pub request: PodRequest,
    pub host_ports: Vec<HostPort>,
    /// Of containers and of image volumes, with a tag.
    pub images: Vec<String>,
    /// Init containers included.
    pub container_count: i64,
    pub volumes: Vec<PodVolume>,
    pub claims: Vec<PodClaim>,
    /// Names of claims made from templates, by the name within the pod; no name when none is needed.
    pub claim_names: BTreeMap<String, Option<String>>,
    /// Names of the gates that still hold it.
    pub gates: Vec<String>,
    /// Succeeded or Failed: it holds no resources any more.
    pub is_terminal: bool,
    pub start_time: Option<Timestamp>,
    /// It goes because the scheduler made room.
    pub is_preempted: bool,
    /// The reason and message of a `PodScheduled=False` condition.
    pub unscheduled: Option<(String, String)>,
}

api_client::projection!(Pod as k8s_openapi::api::core::v1::Pod);

impl Pod {
    /// Names of the claims for volumes it uses, ephemeral ones included.
    pub fn volume_claims(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter_map(PodVolume::claim)
    }

    /// Whether `other`'s differences from this pod can matter to whether and where it fits.
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        self.metadata.labels == other.metadata.labels
            && self.tolerations == other.tolerations
            && self.node_selector == other.node_selector
            && self.node_affinity == other.node_affinity
            && self.gates == other.gates
            && self.request == other.request
            && self.affinity == other.affinity
            && self.claim_names == other.claim_names
    }
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
        preemption_policy: String,
        node_selector: BTreeMap<String, String>,
        affinity: Option<Box<Affinity>>,
        tolerations: Vec<Toleration>,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        resources: Option<ContainerResources>,
        overhead: List,
        host_network: bool,
        scheduling_gates: Vec<Named>,
        volumes: Vec<RawVolume>,
        resource_claims: Vec<PodClaim>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Container {
        name: String,
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
    #[serde(rename_all = "camelCase", default)]
    struct PodStatus {
        phase: String,
        nominated_node_name: String,
        conditions: Vec<Condition>,
        start_time: Option<Timestamp>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
        resources: Option<ContainerResources>,
        allocated_resources: Option<List>,
        resource_claim_statuses: Vec<ClaimStatus>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ContainerStatus {
        name: String,
        resources: Option<ContainerResources>,
        allocated_resources: Option<List>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ClaimStatus {
        name: String,
        resource_claim_name: Option<String>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Condition {
        r#type: String,
        status: String,
        reason: String,
        message: String,
    }

    impl PodStatus {
        fn condition(&self, of: &str) -> Option<&Condition> {
            self.conditions.iter().find(|c| c.r#type == of)
        }

        fn given(&self, resources: Option<&ContainerResources>, allocated: Option<&List>) -> Option<Given> {
            let list = |list: Option<&List>| list.map(Resources::of).unwrap_or_default();
            Some(Given {
                actuated: list(resources?.requests.as_ref()),
                allocated: list(allocated),
                is_infeasible: self.condition("PodResizePending").is_some_and(|c| c.reason == "Infeasible"),
            })
        }

        fn given_to(&self, container: &Container) -> Option<Given> {
            let mut all = self.container_statuses.iter().chain(&self.init_container_statuses);
            let status = all.find(|s| s.name == container.name)?;
            self.given(status.resources.as_ref(), status.allocated_resources.as_ref())
        }
    }

    fn request(spec: &PodSpec, status: &PodStatus) -> PodRequest {
        let containers = spec.containers.iter().map(|c| ContainerRequest {
            resources: &c.resources,
            given: status.given_to(c),
            is_sidecar: false,
        });
        let init = spec.init_containers.iter().map(|c| {
            let is_sidecar = c.restart_policy == "Always";
            let given = if is_sidecar { status.given_to(c) } else { None };
            ContainerRequest { resources: &c.resources, given, is_sidecar }
        });
        let pod = PodLevel {
            resources: spec.resources.as_ref(),
            given: status.given(status.resources.as_ref(), status.allocated_resources.as_ref()),
            overhead: Some(&spec.overhead),
        };
        PodRequest::of(containers, init, &pod)
    }

    impl From<Pod> for super::Pod {
        fn from(pod: Pod) -> Self {
            let Pod { metadata, spec, status } = pod;
            let request = request(&spec, &status);
            let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let host_ports: BTreeSet<HostPort> = ports.filter_map(|p| host_port(p, spec.host_network)).collect();
            let unscheduled = status.condition("PodScheduled").filter(|c| c.status == "False");
            let unscheduled = unscheduled.map(|c| (c.reason.clone(), c.message.clone()));
            let target = status.condition("DisruptionTarget");
            let affinity = spec.affinity.map(|a| *a).unwrap_or_default();
            let containers = spec.init_containers.iter().chain(&spec.containers).map(|c| c.image.as_str());
            let images = containers.chain(spec.volumes.iter().filter_map(RawVolume::image)).map(tagged);
            Self {
                node_name: spec.node_name,
                scheduler_name: spec.scheduler_name,
                priority: spec.priority,
                never_preempts: spec.preemption_policy == "Never",
                node_selector: spec.node_selector,
                affinity: PodAffinity::of(&affinity, &metadata.namespace),
                node_affinity: affinity.node_affinity.map(Box::new),
                tolerations: spec.tolerations.into(),
                spread: spec.topology_spread_constraints,
                request,
                host_ports: host_ports.into_iter().collect(),
                images: images.collect(),
                container_count: (spec.init_containers.len() + spec.containers.len()) as i64,
                volumes: spec.volumes.into_iter().filter_map(|v| PodVolume::of(v, &metadata.name)).collect(),
                claims: spec.resource_claims,
                claim_names: status
                    .resource_claim_statuses
                    .iter()
                    .map(|s| (s.name.clone(), s.resource_claim_name.clone()))
                    .collect(),
                gates: spec.scheduling_gates.into_iter().map(|g| g.name).collect(),
                is_terminal: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
                start_time: status.start_time,
                is_preempted: target.is_some_and(|c| c.status == "True" && c.reason == PREEMPTION_BY_SCHEDULER),
                unscheduled,
                nominated_node: status.nominated_node_name,
                metadata,
            }
        }
    }

    /// `imagelocality.normalizedImageName`.
    fn tagged(image: &str) -> String {
        let has_tag = image.rfind(':') > image.rfind('/');
        if has_tag { image.to_owned() } else { format!("{image}:latest") }
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
}
