//! A node as the scheduler knows it.

use std::collections::BTreeMap;

use api_client::Meta;
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use crate::resources::{List, Resources};

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

impl Node {
    /// Region and zone (`nodetopology.GetZoneKey`): nodes of different zones take turns when only some are looked at.
    pub fn zone(&self) -> (&str, &str) {
        let label = |key: &str| self.metadata.labels.get(key).map_or("", String::as_str);
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
    }
}

mod wire {
    use super::*;

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
