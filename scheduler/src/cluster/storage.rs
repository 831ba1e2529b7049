//! Claims, volumes and what is known of storage drivers, with what pods on their way to a node have reserved of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api_client::ObjectKey;

use crate::objects::{Claim, CsiDriver, CsiNode, CsiStorageCapacity, Pod, StorageClass, Volume, VolumeAttachment};

/// What a pod needs done before it can be bound to its node (`volumebinding.PodVolumes`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    /// Volumes to be bound to claims.
    pub volumes: Vec<(Arc<Volume>, Arc<Claim>)>,
    /// Claims whose provisioner is to be told the node.
    pub provisions: Vec<Arc<Claim>>,
}

impl Bindings {
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.provisions.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Storage {
    claims: HashMap<ObjectKey, Arc<Claim>>,
    volumes: BTreeMap<String, Arc<Volume>>,
    volumes_by_class: BTreeMap<String, BTreeSet<String>>,
    classes: BTreeMap<String, Arc<StorageClass>>,
    csi_nodes: BTreeMap<String, Arc<CsiNode>>,
    drivers: BTreeMap<String, Arc<CsiDriver>>,
    capacities: BTreeMap<ObjectKey, Arc<CsiStorageCapacity>>,
    /// By node, then by name of the attachment.
    attachments: BTreeMap<String, BTreeMap<String, Arc<VolumeAttachment>>>,
    /// How many placed pods use a claim.
    users: HashMap<ObjectKey, usize>,
    /// By pod uid.
    reserved: HashMap<String, (String, Bindings)>,
}

impl Storage {
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<Claim>> {
        self.claims.get(&ObjectKey::new(namespace, name))
    }

    pub fn volume(&self, name: &str) -> Option<&Arc<Volume>> {
        self.volumes.get(name)
    }

    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    pub fn driver(&self, name: &str) -> Option<&Arc<CsiDriver>> {
        self.drivers.get(name)
    }

    pub fn csi_node(&self, node: &str) -> Option<&Arc<CsiNode>> {
        self.csi_nodes.get(node)
    }

    pub fn capacities(&self) -> impl Iterator<Item = &Arc<CsiStorageCapacity>> {
        self.capacities.values()
    }

    pub fn attachments(&self, node: &str) -> impl Iterator<Item = &Arc<VolumeAttachment>> {
        self.attachments.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// Volumes of a class that no pod on its way has reserved for another claim than `claim`.
    pub fn volumes_for<'a>(&'a self, class: &str, claim: &'a Claim) -> impl Iterator<Item = &'a Arc<Volume>> {
        let names = self.volumes_by_class.get(class).into_iter().flatten();
        names.filter_map(|name| self.volumes.get(name)).filter(move |volume| {
            let mut reserved = self.reserved.values().flat_map(|(_, bindings)| &bindings.volumes);
            !reserved.any(|(v, c)| v.metadata.name == volume.metadata.name && c.metadata.uid != claim.metadata.uid)
        })
    }

    /// The node a claim is to be provisioned for, decided or written already.
    pub fn selected_node<'a>(&'a self, claim: &'a Claim) -> Option<&'a str> {
        let decided = self
            .reserved
            .values()
            .find(|(_, bindings)| bindings.provisions.iter().any(|c| c.metadata.uid == claim.metadata.uid));
        decided.map(|(node, _)| node.as_str()).or(claim.metadata.annotations.selected_node.as_deref())
    }

    /// Whether a placed pod uses the claim.
    pub fn is_used(&self, namespace: &str, claim: &str) -> bool {
        self.users.contains_key(&ObjectKey::new(namespace, claim))
    }

    pub fn reserve(&mut self, pod: &str, node: &str, bindings: Bindings) {
        if !bindings.is_empty() {
            self.reserved.insert(pod.to_owned(), (node.to_owned(), bindings));
        }
    }

    pub fn release(&mut self, pod: &str) {
        self.reserved.remove(pod);
    }

    pub fn pod_placed(&mut self, pod: &Pod) {
        for claim in pod.volume_claims() {
            *self.users.entry(ObjectKey::new(&*pod.metadata.namespace, claim)).or_default() += 1;
        }
    }

    pub fn pod_gone(&mut self, pod: &Pod) {
        for claim in pod.volume_claims() {
            let key = ObjectKey::new(&*pod.metadata.namespace, claim);
            if let Some(users) = self.users.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(&key);
                }
            }
        }
    }

    pub fn set_claim(&mut self, key: &ObjectKey, claim: Option<Arc<Claim>>) {
        match claim {
            Some(claim) => drop(self.claims.insert(key.clone(), claim)),
            None => drop(self.claims.remove(key)),
        }
    }

    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<Volume>>) {
        if let Some(old) = self.volumes.remove(name)
            && let Some(names) = self.volumes_by_class.get_mut(&old.class)
        {
            names.remove(name);
            if names.is_empty() {
                self.volumes_by_class.remove(&old.class);
            }
        }
        if let Some(volume) = volume {
            self.volumes_by_class.entry(volume.class.clone()).or_default().insert(name.to_owned());
            self.volumes.insert(name.to_owned(), volume);
        }
    }

    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        set(&mut self.classes, name.to_owned(), class);
    }

    pub fn set_csi_node(&mut self, name: &str, node: Option<Arc<CsiNode>>) {
        set(&mut self.csi_nodes, name.to_owned(), node);
    }

    pub fn set_driver(&mut self, name: &str, driver: Option<Arc<CsiDriver>>) {
        set(&mut self.drivers, name.to_owned(), driver);
    }

    pub fn set_capacity(&mut self, key: &ObjectKey, capacity: Option<Arc<CsiStorageCapacity>>) {
        set(&mut self.capacities, key.clone(), capacity);
    }

    /// An attachment never changes its node, so the old one names it when the new one is gone.
    pub fn set_attachment(&mut self, old: Option<&VolumeAttachment>, new: Option<Arc<VolumeAttachment>>) {
        if let Some(old) = old
            && let Some(of_node) = self.attachments.get_mut(&old.spec.node_name)
        {
            of_node.remove(&old.metadata.name);
            if of_node.is_empty() {
                self.attachments.remove(&old.spec.node_name);
            }
        }
        if let Some(new) = new {
            let of_node = self.attachments.entry(new.spec.node_name.clone()).or_default();
            of_node.insert(new.metadata.name.clone(), new);
        }
    }
}

fn set<K: Ord, T>(map: &mut BTreeMap<K, Arc<T>>, key: K, value: Option<Arc<T>>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
