//! What the scheduler watches, as one stream of changes in the order the caches saw them.
//!
//! The stream has no limit of its own: it holds what the caches hold already, and its only reader takes everything
//! before each decision, without waiting for anything.

use std::time::Duration;

use api_client::{Cache, Change, Client, ListParams, Object};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::objects::{
    Claim, CsiDriver, CsiNode, CsiStorageCapacity, DeviceClass, Namespace, Node, Pod, PodDisruptionBudget,
    ResourceClaim, ResourceSlice, Service, StorageClass, Volume, VolumeAttachment,
};

/// How long decisions wait for resources that a server may not have.
const OPTIONAL_WAIT: Duration = Duration::from_secs(5);

/// One change of anything.
pub enum Update {
    Node(Change<Node>),
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
    Service(Change<Service>),
    Budget(Change<PodDisruptionBudget>),
    Claim(Change<Claim>),
    Volume(Change<Volume>),
    Class(Change<StorageClass>),
    CsiNode(Change<CsiNode>),
    Driver(Change<CsiDriver>),
    Capacity(Change<CsiStorageCapacity>),
    Attachment(Change<VolumeAttachment>),
    DeviceClaim(Change<ResourceClaim>),
    DeviceClass(Change<DeviceClass>),
    DeviceSlice(Change<ResourceSlice>),
}

/// The caches behind the stream.
pub struct Feed {
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
    pub claims: Cache<Claim>,
    namespaces: Cache<Namespace>,
    services: Cache<Service>,
    budgets: Cache<PodDisruptionBudget>,
    volumes: Cache<Volume>,
    classes: Cache<StorageClass>,
    csi_nodes: Cache<CsiNode>,
    drivers: Cache<CsiDriver>,
    capacities: Cache<CsiStorageCapacity>,
    attachments: Cache<VolumeAttachment>,
    device_claims: Cache<ResourceClaim>,
    device_classes: Cache<DeviceClass>,
    device_slices: Cache<ResourceSlice>,
    pub updates: mpsc::UnboundedReceiver<Update>,
}

struct Start<'a> {
    client: &'a Client,
    tasks: &'a TaskTracker,
    shutdown: CancellationToken,
    sender: mpsc::UnboundedSender<Update>,
}

impl Start<'_> {
    fn cache<T: Object>(&self, update: fn(Change<T>) -> Update) -> Cache<T> {
        let cache = Cache::start(self.client, ListParams::default(), self.tasks, self.shutdown.clone());
        let sender = self.sender.clone();
        cache.observe(move |change| {
            // The reader is gone: the scheduler is stopping.
            drop(sender.send(update(change.clone())));
        });
        cache
    }
}

impl Feed {
    pub fn start(client: &Client, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let (sender, updates) = mpsc::unbounded_channel();
        let start = Start { client, tasks, shutdown, sender };
        Self {
            nodes: start.cache(Update::Node),
            namespaces: start.cache(Update::Namespace),
            services: start.cache(Update::Service),
            budgets: start.cache(Update::Budget),
            claims: start.cache(Update::Claim),
            volumes: start.cache(Update::Volume),
            classes: start.cache(Update::Class),
            csi_nodes: start.cache(Update::CsiNode),
            drivers: start.cache(Update::Driver),
            capacities: start.cache(Update::Capacity),
            attachments: start.cache(Update::Attachment),
            device_claims: start.cache(Update::DeviceClaim),
            device_classes: start.cache(Update::DeviceClass),
            device_slices: start.cache(Update::DeviceSlice),
            pods: start.cache(Update::Pod),
            updates,
        }
    }

    /// Returns when the first complete state of everything is in the stream. Storage drivers' objects are not waited
    /// for endlessly: an older server has not all of them.
    pub async fn synced(&self) {
        tokio::join!(
            self.nodes.synced(),
            self.pods.synced(),
            self.namespaces.synced(),
            self.services.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced(),
        );
        let optional = async {
            tokio::join!(
                self.budgets.synced(),
                self.csi_nodes.synced(),
                self.drivers.synced(),
                self.capacities.synced(),
                self.attachments.synced(),
                self.device_claims.synced(),
                self.device_classes.synced(),
                self.device_slices.synced(),
            )
        };
        if tokio::time::timeout(OPTIONAL_WAIT, optional).await.is_err() {
            warn!("scheduling starts without some of budgets, CSI objects, volume attachments and device objects");
        }
    }
}
