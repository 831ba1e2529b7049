//! Root filesystems. A container's snapshot has the container's id as key and is labelled as a garbage collection root
//! until it is removed: between `Prepare` and the container's record nothing else keeps it.

use std::collections::HashMap;

use containerd_client::{
    services::v1::snapshots::{
        CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        snapshots_client::SnapshotsClient,
    },
    types::Mount,
};

use super::{Result, Runtime, answered, gone_is_fine};

const GC_ROOT: &str = "containerd.io/gc.root";

impl Runtime {
    pub(super) fn snapshots(&self) -> SnapshotsClient<tonic::transport::Channel> {
        SnapshotsClient::new(self.channel())
    }

    /// A writable snapshot on top of `parent`; what is there already is taken as it is.
    pub async fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        let labels = HashMap::from([(GC_ROOT.to_owned(), jiff::Timestamp::now().to_string())]);
        match self.prepare(key, parent, labels).await {
            Err(error) if error.is_already_exists() => self.snapshot_mounts(key).await,
            other => other,
        }
    }

    /// A writable snapshot to unpack a layer into; only the caller's lease keeps it.
    pub(super) async fn prepare_layer(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        self.prepare(key, parent, HashMap::new()).await
    }

    async fn prepare(&self, key: &str, parent: &str, labels: HashMap<String, String>) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        Ok(answered(self.snapshots().prepare(self.request(request)).await, "prepare snapshot", key)?.mounts)
    }

    pub async fn snapshot_mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = MountsRequest { snapshotter: self.snapshotter().to_owned(), key: key.to_owned() };
        Ok(answered(self.snapshots().mounts(self.request(request)).await, "get mounts of snapshot", key)?.mounts)
    }

    /// Turns the writable snapshot `key` into the read-only `name`; success when `name` exists.
    pub(super) async fn commit_snapshot(&self, key: &str, name: &str) -> Result<()> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: HashMap::new(),
        };
        match answered(self.snapshots().commit(self.request(request)).await, "commit snapshot", name) {
            Err(error) if error.is_already_exists() => self.remove_snapshot(key).await,
            other => other,
        }
    }

    pub(super) async fn snapshot_exists(&self, key: &str) -> Result<bool> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter().to_owned(), key: key.to_owned() };
        match answered(self.snapshots().stat(self.request(request)).await, "stat snapshot", key) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter().to_owned(), key: key.to_owned() };
        gone_is_fine(answered(self.snapshots().remove(self.request(request)).await, "remove snapshot", key))
    }
}
