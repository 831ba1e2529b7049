//! Attaching volumes to the nodes whose pods need them, and detaching them: VolumeAttachments, which a driver's
//! attacher acts on, and `volumesAttached` of nodes, which their agents wait for. Two controllers, one by volume and
//! one by node, so that an exclusive volume is never decided on twice at a time.

pub mod plan;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, DeleteParams, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use plan::{Attachment, NodeView, Step, Volume};
use serde_json::json;
use tokio::time::Instant;

use super::{claim_of, claims_of, key_of};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_NODE, BY_VOLUME, Node, Pod};

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What both controllers read.
#[derive(Clone)]
struct Seen {
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    attachments: Cache<VolumeAttachment>,
    drivers: Cache<CSIDriver>,
    nodes: Cache<Node>,
    /// Since when no pod has needed a volume (first) on a node (second) that has it.
    unneeded: Arc<Mutex<HashMap<(String, String), Instant>>>,
}

impl Seen {
    fn new(caches: &Caches) -> Self {
        Self {
            pods: caches.get(),
            claims: caches.get(),
            volumes: caches.get(),
            attachments: caches.get(),
            drivers: caches.get(),
            nodes: caches.get(),
            unneeded: Arc::default(),
        }
    }

    /// The volume, if its driver attaches. One whose CSIDriver is missing is attached, as upstream does.
    fn volume(&self, volume: &PersistentVolume) -> Option<Volume> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let driver = self.drivers.get(&ObjectKey::new("", csi.driver.as_str()));
        if driver.is_some_and(|d| d.spec.attach_required == Some(false)) {
            return None;
        }
        let shared = |mode: &String| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
        Some(Volume {
            name: volume.metadata.name.clone().unwrap_or_default(),
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            exclusive: !spec.access_modes.iter().flatten().any(shared),
        })
    }

    /// The pods on nodes that need the volume, the oldest first.
    fn needing(&self, volume: &PersistentVolume) -> Vec<Arc<Pod>> {
        let Some(reference) = claim_of(volume) else { return Vec::new() };
        let key = key_of(reference);
        let bound = |claim: &PersistentVolumeClaim| {
            claim.metadata.uid == reference.uid
                && claim.spec.as_ref().and_then(|s| s.volume_name.as_ref()) == volume.metadata.name.as_ref()
        };
        if !self.claims.get(&key).is_some_and(|claim| bound(&claim)) {
            return Vec::new();
        }
        let pods = self.pods.snapshot();
        let needs = |pod: &&Arc<Pod>| {
            !pod.spec.node_name.is_empty() && !pod.is_terminal() && claims_of(pod).any(|name| name == key.name)
        };
        let mut pods: Vec<Arc<Pod>> = pods.namespace(&key.namespace).filter(needs).cloned().collect();
        pods.sort_by(|a, b| {
            let age = |pod: &Pod| (pod.metadata.creation_timestamp, pod.metadata.name.clone());
            age(a).cmp(&age(b))
        });
        pods
    }

    /// Those of the volume that were made here, by node.
    fn attachments(&self, volume: &Volume) -> BTreeMap<String, Attachment> {
        let all = self.attachments.snapshot();
        let own = all
            .indexed(BY_VOLUME, &volume.name)
            .filter(|a| a.metadata.name.as_deref() == Some(&volume.attachment_name(&a.spec.node_name)));
        own.map(|a| {
            let attachment = Attachment {
                uid: a.metadata.uid.clone().unwrap_or_default(),
                attached: a.status.as_ref().is_some_and(|s| s.attached),
                deleting: a.metadata.deletion_timestamp.is_some(),
            };
            (a.spec.node_name.clone(), attachment)
        })
        .collect()
    }

    fn view(&self, node: &Node, volume: &Volume, needed: bool) -> NodeView {
        let unique = volume.unique_name();
        let mut unneeded = self.unneeded.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (volume.name.clone(), node.metadata.name.clone());
        let since = match needed {
            true => {
                unneeded.remove(&key);
                Duration::ZERO
            }
            false => unneeded.entry(key).or_insert_with(Instant::now).elapsed(),
        };
        NodeView {
            managed: node.metadata.annotations.managed_attach.is_some(),
            healthy: node.condition("Ready").is_some_and(|c| c.status == "True"),
            out_of_service: node.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE),
            mounted: node.status.volumes_in_use.contains(&unique),
            reported: node.status.volumes_attached.iter().any(|v| v.name == unique),
            unneeded: since,
        }
    }

    /// The volumes of a pod's claims.
    fn volumes_of(&self, pod: &Pod) -> Vec<ObjectKey> {
        let names = claims_of(pod).filter_map(|name| {
            let claim = self.claims.get(&ObjectKey::new(pod.metadata.namespace.as_str(), name))?;
            claim.spec.as_ref()?.volume_name.clone().filter(|name| !name.is_empty())
        });
        names.map(|name| ObjectKey::new("", name)).collect()
    }
}

fn volume_of(attachment: &VolumeAttachment) -> Option<ObjectKey> {
    attachment.spec.source.persistent_volume_name.as_deref().map(|name| ObjectKey::new("", name))
}

/// A change of a pod that can change what is attached where.
fn moves(change: &Change<Pod>) -> bool {
    let told = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| (pod.spec.node_name.clone(), pod.is_terminal()));
    let has_claims = [&change.old, &change.new].into_iter().flatten().any(|pod| !pod.spec.volumes.is_empty());
    has_claims && told(&change.old) != told(&change.new)
}

/// By volume: makes and deletes VolumeAttachments.
pub struct Attachments {
    seen: Seen,
}

impl Attachments {
    pub fn new(caches: &Caches) -> Self {
        Self { seen: Seen::new(caches) }
    }
}

#[async_trait]
impl Controller for Attachments {
    fn name(&self) -> &'static str {
        "persistentvolume-attach-detach-controller"
    }

    fn queue(&self) -> &'static str {
        "attach_detach"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.seen.volumes);
        let seen = self.seen.clone();
        inputs.watch(&self.seen.pods, move |change, wake| {
            if moves(change) {
                [&change.old, &change.new].into_iter().flatten().flat_map(|pod| seen.volumes_of(pod)).for_each(wake);
            }
        });
        inputs.watch(&self.seen.claims, |change, wake| {
            let volumes = [&change.old, &change.new].into_iter().flatten();
            let names = volumes.filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
            names.for_each(|name| wake(ObjectKey::new("", name)));
        });
        inputs.watch(&self.seen.attachments, |change, wake| {
            [&change.old, &change.new].into_iter().flatten().filter_map(|a| volume_of(a)).for_each(wake);
        });
        inputs.read(&self.seen.drivers);
        let attachments = self.seen.attachments.clone();
        inputs.watch(&self.seen.nodes, move |change, wake| {
            if !counts(change) {
                return;
            }
            let all = attachments.snapshot();
            all.indexed(BY_NODE, &change.key.name).filter_map(|a| volume_of(a)).for_each(wake);
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("storage.k8s.io", "volumeattachments")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        // Without its volume nobody knows whether an attachment is still needed; upstream leaves it, too.
        let Some(object) = self.seen.volumes.get(key) else { return Ok(Done::Settled) };
        let Some(volume) = self.seen.volume(&object) else { return Ok(Done::Settled) };
        let pods = self.seen.needing(&object);
        let mut wanted: Vec<String> = Vec::new();
        for pod in &pods {
            if !wanted.contains(&pod.spec.node_name) {
                wanted.push(pod.spec.node_name.clone());
            }
        }
        let attachments = self.seen.attachments(&volume);
        let nodes = self.seen.nodes.snapshot();
        let views = wanted.iter().chain(attachments.keys()).filter_map(|name| {
            let node = nodes.get(&ObjectKey::new("", name.as_str()))?;
            Some((name.clone(), self.seen.view(node, &volume, wanted.contains(name))))
        });
        let views: BTreeMap<String, NodeView> = views.collect();
        let mut again = None;
        for step in plan::plan(&volume, &wanted, &attachments, &views) {
            match step {
                Step::Attach { node } => attach(work, &volume, &node).await?,
                Step::Detach { node, uid } => {
                    let key = ObjectKey::new("", volume.attachment_name(&node));
                    work.delete::<VolumeAttachment>(&key, &uid, DeleteParams::default()).await?;
                }
                Step::Refuse { node, elsewhere } => refuse(work, &volume, &pods, &node, &elsewhere),
                Step::WaitForUnmount(time) => again = Some(again.map_or(time, |t: Duration| t.min(time))),
            }
        }
        Ok(Done::after(again))
    }
}

/// A change of a node that can change what is attached to it; heartbeats do not.
fn counts(change: &Change<Node>) -> bool {
    let told = |node: &Option<Arc<Node>>| {
        node.as_ref().map(|node| {
            let ready = node.condition("Ready").is_some_and(|c| c.status == "True");
            let status = (node.status.volumes_attached.clone(), node.status.volumes_in_use.clone());
            (ready, node.spec.taints.clone(), status, node.metadata.annotations.managed_attach.is_some())
        })
    };
    told(&change.old) != told(&change.new)
}

async fn attach(work: &Work, volume: &Volume, node: &str) -> Result<(), Error> {
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": volume.attachment_name(node)},
        "spec": {"attacher": volume.driver, "nodeName": node, "source": {"persistentVolumeName": volume.name}},
    });
    match work.create::<VolumeAttachment>("", &object).await {
        Err(Error::Api(e)) if e.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// Tells the pods on `node` who has their volume.
fn refuse(work: &Work, volume: &Volume, pods: &[Arc<Pod>], node: &str, elsewhere: &[String]) {
    let holders: Vec<&Arc<Pod>> = pods.iter().filter(|pod| elsewhere.contains(&pod.spec.node_name)).collect();
    for pod in pods.iter().filter(|pod| pod.spec.node_name == node) {
        let near = holders.iter().filter(|p| p.metadata.namespace == pod.metadata.namespace);
        let near: Vec<&str> = near.map(|p| p.metadata.name.as_str()).collect();
        let why = match near.as_slice() {
            [] => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
            near => format!("Volume is already used by pod(s) {}", near.join(", ")),
        };
        let message = format!("Multi-Attach error for volume {:?} {why}", volume.name);
        work.recorder().warning(ObjectReference::to(&**pod), "FailedAttachVolume", message);
    }
}

/// By node: writes which volumes are attached to it.
pub struct NodeVolumes {
    seen: Seen,
}

impl NodeVolumes {
    pub fn new(caches: &Caches) -> Self {
        Self { seen: Seen::new(caches) }
    }
}

#[async_trait]
impl Controller for NodeVolumes {
    fn name(&self) -> &'static str {
        "attached-volumes-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary_when(&self.seen.nodes, counts);
        inputs.watch(&self.seen.attachments, |change, wake| {
            let nodes = [&change.old, &change.new].into_iter().flatten();
            nodes.for_each(|a| wake(ObjectKey::new("", a.spec.node_name.as_str())));
        });
        inputs.watch(&self.seen.pods, |change, wake| {
            if moves(change) {
                let nodes = [&change.old, &change.new].into_iter().flatten().map(|pod| pod.spec.node_name.as_str());
                nodes.filter(|name| !name.is_empty()).for_each(|name| wake(ObjectKey::new("", name)));
            }
        });
        inputs.read(&self.seen.claims);
        inputs.read(&self.seen.volumes);
        inputs.read(&self.seen.drivers);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "nodes/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(node) = self.seen.nodes.get(key) else { return Ok(Done::Settled) };
        let attachments = self.seen.attachments.snapshot();
        let mut names = Vec::new();
        for attachment in attachments.indexed(BY_NODE, &key.name) {
            let Some(object) = volume_of(attachment).and_then(|key| self.seen.volumes.get(&key)) else { continue };
            let Some(volume) = self.seen.volume(&object) else { continue };
            let needed = self.seen.needing(&object).iter().any(|pod| pod.spec.node_name == key.name);
            let view = self.seen.view(&node, &volume, needed);
            let own = self.seen.attachments(&volume).remove(&key.name).unwrap_or_default();
            if plan::is_reported(&own, needed, &view) {
                let path = device_path(attachment);
                names.push(json!({"name": volume.unique_name(), "devicePath": path}));
            }
        }
        names.sort_by_key(|name| name["name"].as_str().unwrap_or_default().to_owned());
        let have: Vec<&str> = node.status.volumes_attached.iter().map(|v| v.name.as_str()).collect();
        // What other plugins attached is not ours to take back.
        let foreign = node.status.volumes_attached.iter().filter(|v| !v.name.starts_with("kubernetes.io/csi/"));
        let foreign = foreign.map(|v| json!({"name": v.name, "devicePath": v.device_path}));
        let wanted: Vec<serde_json::Value> = foreign.chain(names).collect();
        if wanted.iter().map(|w| w["name"].as_str().unwrap_or_default()).eq(have.iter().copied()) {
            return Ok(Done::Settled);
        }
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"volumesAttached": wanted}});
        work.patch_status::<Node>(key, &Patch::Merge(patch)).await?;
        Ok(Done::Settled)
    }
}

/// Where the driver says the device is; empty for most.
fn device_path(attachment: &VolumeAttachment) -> String {
    let metadata = attachment.status.as_ref().and_then(|s| s.attachment_metadata.as_ref());
    metadata.and_then(|m| m.get("devicePath")).cloned().unwrap_or_default()
}
