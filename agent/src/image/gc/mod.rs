//! Removal of images nobody uses when the disk fills up or they are too old. An image in use is never removed: one that a
//! container was made from, or that a pod of this node has asked for.

pub mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::uses::Uses;
use crate::{
    node::facts,
    pod::observed::label,
    runtime::{self, Runtime},
};
use plan::{Disk, Image, Memories, Policy};

/// Between looks at the disk, kubelet's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    #[error("{0}")]
    StillFull(String),
}

impl Error {
    /// Reason of the event on the node.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Runtime(_) => "ImageGCFailed",
            Error::Capacity => "InvalidDiskCapacity",
            Error::StillFull(_) => "FreeDiskSpaceFailed",
        }
    }
}

/// What one round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub names: Vec<String>,
    pub bytes: u64,
}

pub struct Collector {
    runtime: Runtime,
    uses: Arc<Uses>,
    policy: Policy,
    began: Timestamp,
    memories: Mutex<Memories>,
}

impl Collector {
    pub fn new(runtime: Runtime, uses: Arc<Uses>, policy: Policy) -> Self {
        Self { runtime, uses, policy, began: Timestamp::now(), memories: Mutex::default() }
    }

    /// Looks every five minutes until shutdown; the first time after the pods of this node have come back to their owners.
    pub async fn run(self, report: impl Fn(&Error), shutdown: CancellationToken) {
        let mut failed = false;
        while shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            let Some(result) = shutdown.run_until_cancelled(self.collect(Timestamp::now())).await else { return };
            match result {
                Ok(collected) => {
                    failed = false;
                    if !collected.names.is_empty() {
                        tracing::info!(images = ?collected.names, bytes = collected.bytes, "removed unused images");
                    }
                }
                Err(error) => {
                    tracing::warn!(error = super::chain(&error), "image garbage collection");
                    // As the kubelet: a failure that may pass is an event only the second time.
                    if failed || !matches!(error, Error::Runtime(_)) {
                        report(&error);
                    }
                    failed = true;
                }
            }
        }
    }

    /// One round.
    pub async fn collect(&self, now: Timestamp) -> Result<Collected, Error> {
        let path = self.runtime.image_directory().await?;
        let (capacity_bytes, available_bytes) = facts::disk(&path).unwrap_or_default();
        self.collect_on(Disk { capacity_bytes, available_bytes }, now).await
    }

    /// One round on a disk of this size.
    pub async fn collect_on(&self, disk: Disk, now: Timestamp) -> Result<Collected, Error> {
        let images = self.images().await?;
        let used = self.used(&images).await?;
        let memories = {
            let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
            plan::remember(&mut memories, &images, &used, now);
            memories.clone()
        };
        let mut collected = Collected::default();
        let mut left = Vec::new();
        for image in plan::candidates(&memories, &images, &used) {
            let Some(memory) = memories.get(&image.target) else { continue };
            if !plan::is_expired(&self.policy, memory, self.began, now) || !self.remove(image, &mut collected).await? {
                left.push((image, memory));
            }
        }
        if disk.capacity_bytes == 0 {
            return Err(Error::Capacity);
        }
        let Some(wanted) = plan::to_free(&self.policy, disk) else { return Ok(collected) };
        let before = collected.bytes;
        for (image, memory) in left {
            if collected.bytes - before >= wanted {
                break;
            }
            if plan::is_old_enough(&self.policy, memory, now) {
                self.remove(image, &mut collected).await?;
            }
        }
        let freed = collected.bytes - before;
        if freed < wanted { Err(Error::StillFull(plan::still_full(disk, freed))) } else { Ok(collected) }
    }

    /// Removes all names of an image, unless a pod has asked for it meanwhile.
    async fn remove(&self, image: &Image, collected: &mut Collected) -> Result<bool, Error> {
        let _nobody_looks = self.uses.removing().await;
        if self.is_claimed(image) {
            return Ok(false);
        }
        let mut names = image.names.iter().peekable();
        while let Some(name) = names.next() {
            self.runtime.delete_image(name, names.peek().is_none()).await?;
            collected.names.push(name.clone());
        }
        self.runtime.forget_image(&image.target);
        collected.bytes += image.bytes;
        Ok(true)
    }

    fn is_claimed(&self, image: &Image) -> bool {
        self.uses.is_claimed(&image.id) || image.names.iter().any(|name| self.uses.is_claimed(name))
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for listed in self.runtime.list_images().await? {
            let image = images.entry(listed.target.clone()).or_insert_with(|| Image {
                target: listed.target,
                id: listed.id,
                bytes: listed.size as u64,
                ..Image::default()
            });
            image.names.insert(listed.name);
            image.pinned |= listed.pinned;
        }
        Ok(images.into_values().collect())
    }

    /// Targets of images that containers were made from or pods ask for. A container's name for its image may have moved
    /// on to another; what its record says of the image's digest counts too.
    async fn used(&self, images: &[Image]) -> Result<BTreeSet<String>, Error> {
        let mut mentioned = BTreeSet::new();
        for container in self.runtime.list_containers(&[]).await? {
            mentioned.extend(container.labels.get(label::IMAGE_ID).cloned());
            mentioned.insert(container.image);
        }
        let is_mentioned = |image: &Image| {
            mentioned.contains(&image.id)
                || image.names.iter().any(|name| mentioned.contains(name))
                || mentioned.iter().any(|name| name.ends_with(&format!("@{}", image.target)))
        };
        let used = images.iter().filter(|image| is_mentioned(image) || self.is_claimed(image));
        Ok(used.map(|image| image.target.clone()).collect())
    }
}

impl Runtime {
    /// Where the snapshotter keeps the images, whose disk can fill up.
    pub async fn image_directory(&self) -> runtime::Result<PathBuf> {
        let root = self.plugin_export("io.containerd.snapshotter.v1", self.snapshotter(), "root").await?;
        // Its usual place, for a snapshotter that does not tell.
        Ok(root.map_or_else(|| PathBuf::from("/var/lib/containerd"), PathBuf::from))
    }
}
