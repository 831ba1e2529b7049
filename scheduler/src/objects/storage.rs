//! Volumes of pods, and the objects behind them, as far as a pod's place depends on them.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api_client::Meta;
use k8s_openapi::api::core::v1::{NodeSelector, TopologySelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::resources::List;
use crate::selector::Selector;

/// A pod's volume that its place depends on.
#[derive(Clone, Debug, PartialEq)]
pub enum PodVolume {
    Claim(String),
    /// A claim made for this pod, by its name.
    Ephemeral(String),
    Disk(DiskVolume),
    /// A volume made by a driver within the pod.
    Inline {
        driver: String,
    },
}

/// A network disk named in the pod itself, which two pods of a node may not share at will.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskVolume {
    /// Kind and identity.
    pub disk: (&'static str, String),
    /// Servers of a Ceph image: two images are the same only if they share one.
    pub monitors: Vec<String>,
    /// Pods that all only read may share; never so for EBS.
    pub is_read_only: bool,
}

impl DiskVolume {
    /// `volumerestrictions.isVolumeConflict`.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.disk == other.disk
            && (self.monitors == other.monitors || self.monitors.iter().any(|m| other.monitors.contains(m)))
            && !(self.is_read_only && other.is_read_only)
    }
}

/// A volume as it stands in a pod.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RawVolume {
    name: String,
    persistent_volume_claim: Option<RawClaim>,
    ephemeral: Option<serde::de::IgnoredAny>,
    csi: Option<RawDriver>,
    gce_persistent_disk: Option<RawGce>,
    aws_elastic_block_store: Option<RawEbs>,
    iscsi: Option<RawIscsi>,
    rbd: Option<RawRbd>,
    image: Option<RawImage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawClaim {
    claim_name: String,
}

/// A volume that is an image.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RawImage {
    reference: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawDriver {
    driver: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawGce {
    pd_name: String,
    read_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawEbs {
    #[serde(rename = "volumeID")]
    volume_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawIscsi {
    iqn: String,
    read_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRbd {
    monitors: Vec<String>,
    pool: String,
    image: String,
    read_only: bool,
}

impl RawVolume {
    pub fn image(&self) -> Option<&str> {
        self.image.as_ref().map(|i| i.reference.as_str())
    }
}

impl PodVolume {
    pub fn of(volume: RawVolume, pod: &str) -> Option<Self> {
        let disk = |kind, name: String, monitors, is_read_only| {
            Some(Self::Disk(DiskVolume { disk: (kind, name), monitors, is_read_only }))
        };
        if let Some(claim) = volume.persistent_volume_claim {
            Some(Self::Claim(claim.claim_name))
        } else if volume.ephemeral.is_some() {
            Some(Self::Ephemeral(format!("{pod}-{}", volume.name)))
        } else if let Some(csi) = volume.csi {
            Some(Self::Inline { driver: csi.driver })
        } else if let Some(gce) = volume.gce_persistent_disk {
            disk("gce", gce.pd_name, Vec::new(), gce.read_only)
        } else if let Some(ebs) = volume.aws_elastic_block_store {
            disk("ebs", ebs.volume_id, Vec::new(), false)
        } else if let Some(iscsi) = volume.iscsi {
            disk("iscsi", iscsi.iqn, Vec::new(), iscsi.read_only)
        } else {
            let rbd = volume.rbd?;
            disk("rbd", format!("{}/{}", rbd.pool, rbd.image), rbd.monitors, rbd.read_only)
        }
    }

    /// The name of the claim, where there is one.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Claim(name) | Self::Ephemeral(name) => Some(name),
            Self::Disk(_) | Self::Inline { .. } => None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClaimAnnotations {
    #[serde(rename = "volume.beta.kubernetes.io/storage-class")]
    beta_class: Option<String>,
    #[serde(rename = "volume.kubernetes.io/selected-node")]
    pub selected_node: Option<String>,
    #[serde(rename = "pv.kubernetes.io/bind-completed")]
    bind_completed: Option<String>,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Claim")]
pub struct Claim {
    pub metadata: Meta<ClaimAnnotations>,
    /// Empty when none is named.
    pub class: String,
    pub volume_name: String,
    /// Its volume and it name each other, and the binder has said so.
    pub is_bound: bool,
    pub is_lost: bool,
    pub requested: Option<Quantity>,
    pub access_modes: Vec<String>,
    pub volume_mode: String,
    pub attributes_class: String,
    /// Selects volumes; absent: all.
    pub selector: Option<Selector>,
}

api_client::projection!(Claim as k8s_openapi::api::core::v1::PersistentVolumeClaim, Meta<ClaimAnnotations>);

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Volume")]
pub struct Volume {
    pub metadata: Meta<VolumeAnnotations>,
    pub class: String,
    pub capacity: Quantity,
    pub access_modes: Vec<String>,
    pub volume_mode: String,
    pub attributes_class: String,
    pub node_affinity: Option<NodeSelector>,
    /// Namespace, name and uid of the claim it is for.
    pub claim: Option<(String, String, String)>,
    pub is_available: bool,
    /// Driver and handle, of volumes of CSI drivers.
    pub csi: Option<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeAnnotations {
    #[serde(rename = "volume.beta.kubernetes.io/storage-class")]
    beta_class: Option<String>,
}

api_client::projection!(Volume as k8s_openapi::api::core::v1::PersistentVolume, Meta<VolumeAnnotations>);

impl Volume {
    /// `IsVolumeBoundToClaim`.
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|(namespace, name, uid)| {
            *namespace == claim.metadata.namespace
                && *name == claim.metadata.name
                && (uid.is_empty() || *uid == claim.metadata.uid)
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    pub metadata: Meta,
    pub provisioner: String,
    pub volume_binding_mode: Option<String>,
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}

api_client::projection!(StorageClass as k8s_openapi::api::storage::v1::StorageClass);

impl StorageClass {
    pub fn waits_for_consumer(&self) -> bool {
        self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    }
}

/// How many volumes of each driver a node can attach.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::CsiNode")]
pub struct CsiNode {
    pub metadata: Meta,
    /// Absent: no limit.
    pub limits: BTreeMap<String, Option<i64>>,
}

api_client::projection!(CsiNode as k8s_openapi::api::storage::v1::CSINode);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    pub metadata: Meta,
    pub spec: CsiDriverSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverSpec {
    /// It publishes how much space is left where.
    pub storage_capacity: bool,
}

api_client::projection!(CsiDriver as k8s_openapi::api::storage::v1::CSIDriver);

/// How much space a class has left on the nodes it selects.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Capacity")]
pub struct CsiStorageCapacity {
    pub metadata: Meta,
    pub class: String,
    pub nodes: Selector,
    /// The largest volume that can be made; absent: none.
    pub volume_max: Option<Quantity>,
}

api_client::projection!(CsiStorageCapacity as k8s_openapi::api::storage::v1::CSIStorageCapacity);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    pub metadata: Meta,
    pub spec: VolumeAttachmentSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: VolumeAttachmentSource,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentSource {
    pub persistent_volume_name: Option<String>,
}

api_client::projection!(VolumeAttachment as k8s_openapi::api::storage::v1::VolumeAttachment);

/// The shapes on the wire.
mod wire {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Claim {
        metadata: Meta<ClaimAnnotations>,
        spec: ClaimSpec,
        status: Phase,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ClaimSpec {
        storage_class_name: Option<String>,
        volume_name: String,
        resources: Requests,
        access_modes: Vec<String>,
        volume_mode: Option<String>,
        volume_attributes_class_name: Option<String>,
        selector: Option<LabelSelector>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Requests {
        requests: List,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Phase {
        phase: String,
    }

    fn storage(list: &List) -> Option<Quantity> {
        list.get("storage").and_then(|q| q.0.parse().ok())
    }

    fn mode(mode: Option<String>) -> String {
        mode.unwrap_or_else(|| "Filesystem".to_owned())
    }

    impl From<Claim> for super::Claim {
        fn from(claim: Claim) -> Self {
            let Claim { metadata, spec, status } = claim;
            let class = metadata.annotations.beta_class.clone().or(spec.storage_class_name);
            Self {
                class: class.unwrap_or_default(),
                is_bound: !spec.volume_name.is_empty() && metadata.annotations.bind_completed.is_some(),
                is_lost: status.phase == "Lost",
                requested: storage(&spec.resources.requests),
                volume_name: spec.volume_name,
                access_modes: spec.access_modes,
                volume_mode: mode(spec.volume_mode),
                attributes_class: spec.volume_attributes_class_name.unwrap_or_default(),
                selector: spec.selector.map(|s| Selector::of(Some(&s))),
                metadata,
            }
        }
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Volume {
        metadata: Meta<VolumeAnnotations>,
        spec: VolumeSpec,
        status: Phase,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct VolumeSpec {
        storage_class_name: Option<String>,
        capacity: List,
        access_modes: Vec<String>,
        volume_mode: Option<String>,
        volume_attributes_class_name: Option<String>,
        node_affinity: Option<Affinity>,
        claim_ref: Option<ClaimRef>,
        csi: Option<Csi>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Affinity {
        required: Option<NodeSelector>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ClaimRef {
        namespace: String,
        name: String,
        uid: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Csi {
        driver: String,
        volume_handle: String,
    }

    impl From<Volume> for super::Volume {
        fn from(volume: Volume) -> Self {
            let Volume { metadata, spec, status } = volume;
            let class = metadata.annotations.beta_class.clone().or(spec.storage_class_name);
            Self {
                class: class.unwrap_or_default(),
                capacity: storage(&spec.capacity).unwrap_or_default(),
                access_modes: spec.access_modes,
                volume_mode: mode(spec.volume_mode),
                attributes_class: spec.volume_attributes_class_name.unwrap_or_default(),
                node_affinity: spec.node_affinity.and_then(|a| a.required),
                claim: spec.claim_ref.map(|r| (r.namespace, r.name, r.uid)),
                is_available: status.phase == "Available",
                csi: spec.csi.map(|c| (c.driver, c.volume_handle)),
                metadata,
            }
        }
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct CsiNode {
        metadata: Meta,
        spec: CsiNodeSpec,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct CsiNodeSpec {
        #[serde(deserialize_with = "api_client::nullable")]
        drivers: Vec<Driver>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Driver {
        name: String,
        allocatable: Option<Allocatable>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Allocatable {
        count: Option<i64>,
    }

    impl From<CsiNode> for super::CsiNode {
        fn from(node: CsiNode) -> Self {
            let limit = |d: Driver| (d.name, d.allocatable.and_then(|a| a.count));
            Self { metadata: node.metadata, limits: node.spec.drivers.into_iter().map(limit).collect() }
        }
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    pub struct Capacity {
        metadata: Meta,
        storage_class_name: String,
        node_topology: Option<LabelSelector>,
        capacity: Option<String>,
        maximum_volume_size: Option<String>,
    }

    impl From<Capacity> for CsiStorageCapacity {
        fn from(capacity: Capacity) -> Self {
            let limit = capacity.maximum_volume_size.or(capacity.capacity);
            Self {
                metadata: capacity.metadata,
                class: capacity.storage_class_name,
                nodes: Selector::of(capacity.node_topology.as_ref()),
                volume_max: limit.and_then(|q| q.parse().ok()),
            }
        }
    }
}
