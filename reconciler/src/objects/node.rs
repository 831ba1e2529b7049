//! The node as controllers see it.

use api_client::{ListParams, Meta};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use crate::engine::Cached;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    pub metadata: Meta<NodeAnnotations>,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAnnotations {
    /// The node's agent leaves attaching volumes to a controller.
    #[serde(rename = "volumes.kubernetes.io/controller-managed-attach-detach")]
    pub managed_attach: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub conditions: Vec<NodeCondition>,
    pub addresses: Vec<NodeAddress>,
    pub volumes_attached: Vec<AttachedVolume>,
    pub volumes_in_use: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedVolume {
    pub name: String,
    pub device_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_heartbeat_time: Option<Timestamp>,
    pub last_transition_time: Option<Timestamp>,
}

api_client::projection!(Node as k8s_openapi::api::core::v1::Node, Meta<NodeAnnotations>);

impl Cached for Node {}

impl Node {
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    pub fn zone(&self) -> &str {
        self.metadata.labels.get("topology.kubernetes.io/zone").map_or("", String::as_str)
    }

    pub fn has_taint(&self, key: &str, effect: &str) -> bool {
        self.spec.taints.iter().any(|t| t.key == key && t.effect == effect)
    }
}

/// A node's heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeLease {
    pub metadata: Meta,
    pub spec: NodeLeaseSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeLeaseSpec {
    pub renew_time: Option<Timestamp>,
}

impl NodeLease {
    pub const NAMESPACE: &'static str = "kube-node-lease";
}

api_client::projection!(NodeLease as k8s_openapi::api::coordination::v1::Lease);

impl Cached for NodeLease {
    fn params() -> ListParams {
        ListParams::namespace(Self::NAMESPACE)
    }
}
