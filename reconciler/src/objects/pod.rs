//! The pod as controllers see it. Every pod of the cluster is held, so each field has a reader.

use api_client::{Index, Meta};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EphemeralVolumeSource, NodeAffinity, PersistentVolumeClaimTemplate, Toleration};
use serde::{Deserialize, Deserializer};

use crate::engine::{Cached, Clock};

/// Annotations that controllers read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodAnnotations {
    #[serde(rename = "controller.kubernetes.io/pod-deletion-cost")]
    pub deletion_cost: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-completion-index")]
    pub completion_index: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-index-failure-count")]
    pub index_failures: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-index-ignored-failure-count")]
    pub index_ignored_failures: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Meta<PodAnnotations>,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Empty until bound.
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub tolerations: Vec<Toleration>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    /// Only volumes that are claims.
    #[serde(deserialize_with = "claim_volumes")]
    pub volumes: Vec<ClaimVolume>,
    /// The node that the required node affinity names: where a daemon's pod is meant to run.
    #[serde(rename = "affinity", deserialize_with = "target_node")]
    pub target_node: Option<String>,
    pub resource_claims: Vec<PodResourceClaim>,
}

/// A claim for devices: one that exists, or a template that one is made from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodResourceClaim {
    pub name: String,
    pub resource_claim_name: Option<String>,
    pub resource_claim_template_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaimStatus {
    pub name: String,
    /// Empty where no claim is needed.
    pub resource_claim_name: String,
}

/// A volume backed by a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimVolume {
    pub name: String,
    pub claim: ClaimSource,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ClaimSource {
    /// The name of a claim.
    Named(String),
    /// A claim made for this pod (generic ephemeral volume).
    Ephemeral(Box<PersistentVolumeClaimTemplate>),
}

impl ClaimVolume {
    /// The name of the claim of this volume in a pod of this name.
    pub fn claim_name(&self, pod: &str) -> String {
        match &self.claim {
            ClaimSource::Named(name) => name.clone(),
            ClaimSource::Ephemeral(_) => format!("{pod}-{}", self.name),
        }
    }
}

fn claim_volumes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ClaimVolume>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Volume {
        name: String,
        persistent_volume_claim: Option<Named>,
        ephemeral: Option<EphemeralVolumeSource>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        claim_name: String,
    }
    let volumes = Option::<Vec<Volume>>::deserialize(deserializer)?.unwrap_or_default();
    let claims = volumes.into_iter().filter_map(|volume| {
        let named = volume.persistent_volume_claim.map(|c| ClaimSource::Named(c.claim_name));
        let template = volume.ephemeral.and_then(|e| e.volume_claim_template);
        let claim = named.or_else(|| template.map(|t| ClaimSource::Ephemeral(Box::new(t))))?;
        Some(ClaimVolume { name: volume.name, claim })
    });
    Ok(claims.collect())
}

/// `util.GetTargetNodeName`, where the pod is not bound: the one value of a term that asks for `metadata.name`.
fn target_node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let affinity = Option::<NodeAffinityOf>::deserialize(deserializer)?.unwrap_or_default();
    let required = affinity.node_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
    let mut fields = terms.into_iter().flat_map(|t| t.match_fields.unwrap_or_default());
    let named = fields.find(|f| f.key == "metadata.name" && f.operator == "In");
    let mut values = named.and_then(|f| f.values).unwrap_or_default();
    Ok(if values.len() == 1 { values.pop() } else { None })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinityOf {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: String,
    pub ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: i32,
    pub protocol: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub conditions: Vec<Condition>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub start_time: Option<Timestamp>,
    pub resource_claim_statuses: Vec<ResourceClaimStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

/// A condition of any kind of object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub last_transition_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub restart_count: i32,
    pub state: ContainerState,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    pub finished_at: Option<Timestamp>,
}

api_client::projection!(Pod as k8s_openapi::api::core::v1::Pod, Meta<PodAnnotations>);

impl Cached for Pod {
    const INDEXES: &'static [Index<Self>] = &[
        Index { name: super::BY_CONTROLLER, of: |pod| pod.metadata.controller().map_or("", |o| &o.uid) },
        Index {
            name: super::ORPHANS,
            of: |pod| if pod.metadata.controller().is_some() { "" } else { &pod.metadata.namespace },
        },
        Index { name: super::BY_NODE, of: |pod| &pod.spec.node_name },
    ];
}

impl Pod {
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    /// `podutil.IsPodReady`.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// `controller.IsPodActive`.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.metadata.is_deleting()
    }

    /// The node it runs on, or is meant for by its affinity (`util.GetTargetNodeName`).
    pub fn node_or_target(&self) -> Option<&str> {
        if self.spec.node_name.is_empty() { self.spec.target_node.as_deref() } else { Some(&self.spec.node_name) }
    }

    /// `controller.IsPodTerminating`.
    pub fn is_terminating(&self) -> bool {
        !self.is_terminal() && self.metadata.is_deleting()
    }

    /// Since when it is ready, if it is.
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.condition("Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time)
    }

    /// `podutil.IsPodAvailable`: ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, clock: Clock<'_>) -> bool {
        if !self.is_ready() || min_ready_seconds <= 0 {
            return self.is_ready();
        }
        self.ready_for(clock).is_some_and(|ready| ready.as_secs() >= i64::from(min_ready_seconds))
    }

    /// For how long it has been ready, if it is.
    pub fn ready_for(&self, clock: Clock<'_>) -> Option<SignedDuration> {
        Some(clock.since(&self.metadata.uid, self.ready_since()?))
    }
}
