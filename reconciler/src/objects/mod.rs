//! Projections of the kinds that controllers cache: only the fields they read. Kinds with few objects, or whose
//! whole spec is read, are `k8s-openapi`'s types.

mod node;
mod owned;
mod placement;
mod pod;
mod small;
#[cfg(test)]
mod tests;

use api_client::Index;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, PersistentVolume, PersistentVolumeClaim, ReplicationController, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};

pub use node::{
    AttachedVolume, Node, NodeAddress, NodeAnnotations, NodeCondition, NodeLease, NodeLeaseSpec, NodeSpec, NodeStatus,
};
pub use owned::{ControllerRef, Owned, Owner, annotation_of, compile, controller_of, has_labels, label_of, selects};
pub use placement::{has_node_labels, selects_node, tolerates};
pub use pod::{
    ClaimSource, ClaimVolume, Condition, Container, ContainerPort, ContainerState, ContainerStatus, Pod,
    PodAnnotations, PodIp, PodResourceClaim, PodSpec, PodStatus, ResourceClaimStatus, Terminated,
};

pub use small::{RootCa, ServiceAccount};

use crate::engine::Cached;

/// Index of owned kinds by the uid of the controlling owner.
pub const BY_CONTROLLER: &str = "controller";
/// Index of owned kinds by namespace, of the objects without a controlling owner.
pub const ORPHANS: &str = "orphans";

/// Index of EndpointSlices by the name of their service.
pub const BY_SERVICE: &str = "service";

/// Index by the name of the node.
pub const BY_NODE: &str = "node";

/// Index by the name of the volume: of claims that name one, and of attachments.
pub const BY_VOLUME: &str = "volume";

/// Index of the claims that are not bound by their class; see [`class_value`].
pub const UNBOUND_BY_CLASS: &str = "unbound";

/// A class in the index [`UNBOUND_BY_CLASS`]: no class needs a value, too, and no class has that name.
pub fn class_value(class: &str) -> &str {
    if class.is_empty() { "-" } else { class }
}

fn unbound_class(claim: &PersistentVolumeClaim) -> &str {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if bound { "" } else { class_value(crate::controllers::volume::class_of_claim(claim)) }
}

impl Cached for Deployment {}
impl Cached for DaemonSet {}
impl Cached for StatefulSet {}
impl Cached for CronJob {}
impl Cached for PodDisruptionBudget {}
impl Cached for HorizontalPodAutoscaler {}
impl Cached for ResourceQuota {}
impl Cached for Namespace {}
impl Cached for Service {}
impl Cached for Endpoints {}
impl Cached for EndpointSlice {
    const INDEXES: &'static [Index<Self>] = &[Index {
        name: BY_SERVICE,
        of: |slice| label_of(&slice.metadata, "kubernetes.io/service-name").unwrap_or_default(),
    }];
}
impl Cached for PersistentVolume {}
impl Cached for PersistentVolumeClaim {
    const INDEXES: &'static [Index<Self>] = &[
        Index {
            name: BY_VOLUME,
            of: |claim| claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default(),
        },
        Index { name: UNBOUND_BY_CLASS, of: unbound_class },
    ];
}
impl Cached for ResourceClaim {}
impl Cached for StorageClass {}
impl Cached for CSIDriver {}
impl Cached for VolumeAttachment {
    const INDEXES: &'static [Index<Self>] = &[
        Index { name: BY_NODE, of: |attachment| &attachment.spec.node_name },
        Index {
            name: BY_VOLUME,
            of: |attachment| attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default(),
        },
    ];
}

/// Kinds that are owned and claimed: by owner, and those without one by namespace.
macro_rules! claimed {
    ($($kind:ty),+ $(,)?) => {$(
        impl Cached for $kind {
            const INDEXES: &'static [Index<Self>] = &[
                Index { name: BY_CONTROLLER, of: |object| controller_of(&object.metadata).map_or("", |o| &o.uid) },
                Index { name: ORPHANS, of: |object| orphan_namespace(&object.metadata) },
            ];
        }
    )+};
}
claimed!(ReplicaSet, ReplicationController, ControllerRevision, Job);

fn orphan_namespace(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    if controller_of(metadata).is_some() { "" } else { metadata.namespace.as_deref().unwrap_or_default() }
}
