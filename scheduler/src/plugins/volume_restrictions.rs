//! VolumeRestrictions: disks that two pods of a node cannot share, and claims that one pod of the cluster has alone.

use std::collections::BTreeSet;

use super::{Plugin, refuse};
use crate::cluster::Storage;
use crate::node::NodeInfo;
use crate::objects::{DiskVolume, Pod, PodVolume};
use crate::verdict::{Rejection, Verdict};

const ONE_POD: &str = "ReadWriteOncePod";

#[derive(Clone, Default)]
pub struct State {
    /// The pod's claims that only one pod may use.
    exclusive: BTreeSet<String>,
    /// How often placed pods use those.
    conflicts: i64,
}

impl State {
    pub fn new(pod: &Pod, storage: &Storage) -> Result<Self, Rejection> {
        let namespace = &pod.metadata.namespace;
        let mut state = Self::default();
        for volume in &pod.volumes {
            let PodVolume::Claim(name) = volume else { continue };
            let Some(claim) = storage.claim(namespace, name) else {
                let message = format!("persistentvolumeclaim {name:?} not found");
                return Err(Rejection { plugin: Plugin::VolumeRestrictions, message });
            };
            if claim.access_modes.iter().any(|mode| mode == ONE_POD) {
                state.exclusive.insert(name.clone());
            }
        }
        state.conflicts = state.exclusive.iter().filter(|name| storage.is_used(namespace, name)).count() as i64;
        Ok(state)
    }

    /// What would be if `other` came to (1) or left (-1) a node.
    pub fn update(&mut self, pod: &Pod, other: &Pod, amount: i64) {
        if self.exclusive.is_empty() || other.metadata.namespace != pod.metadata.namespace {
            return;
        }
        let claims =
            other.volumes.iter().filter(|v| matches!(v, PodVolume::Claim(name) if self.exclusive.contains(name)));
        self.conflicts += amount * claims.count() as i64;
    }
}

pub fn filter(pod: &Pod, state: &State, info: &NodeInfo) -> Verdict {
    let conflicts = |wanted: &DiskVolume| info.pods.iter().any(|other| disks(other).any(|d| wanted.conflicts_with(d)));
    if disks(pod).any(conflicts) {
        return refuse(Plugin::VolumeRestrictions, "node(s) had no available disk");
    }
    if state.conflicts > 0 {
        return refuse(
            Plugin::VolumeRestrictions,
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
        );
    }
    Ok(())
}

pub fn disks(pod: &Pod) -> impl Iterator<Item = &DiskVolume> {
    pod.volumes.iter().filter_map(|v| if let PodVolume::Disk(disk) = v { Some(disk) } else { None })
}
