//! Projections of the objects that scheduling reads, computed once when an object is decoded, because every pod of
//! the cluster is held.

mod affinity;
mod device;
mod device_selector;
mod node;
mod pod;
mod policy;
mod storage;

pub use affinity::{PodAffinity, Term, Weighted};
pub use device::{Alternative, Device, DeviceClass, DeviceId, Place, ResourceClaim, ResourceSlice};
pub use node::Node;
pub use pod::{DEFAULT_SCHEDULER_NAME, HostPort, Pod, PodClaim};
pub use policy::{Namespace, PodDisruptionBudget, Service};
pub use storage::{
    Claim, CsiDriver, CsiNode, CsiStorageCapacity, DiskVolume, PodVolume, StorageClass, Volume, VolumeAttachment,
};
