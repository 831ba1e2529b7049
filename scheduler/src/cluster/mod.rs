//! Everything a decision looks at: nodes with their pods, kept by applying changes one by one, so that a change costs
//! what changed and a decision copies nothing.
//!
//! Invariant: a pod is on at most one node here. An assumed pod (decided, not yet seen bound) counts like a bound one
//! until the watch confirms it or the binding fails.

mod affinity;
mod counts;
mod devices;
mod nominated;
mod storage;
mod topology;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api_client::ObjectKey;

pub use affinity::Affinities;
pub use counts::{Clause, NodeCounts, PodQuery};
pub use devices::{Devices, Grant};
pub use nominated::Nominated;
pub use storage::{Bindings, Storage};
pub use topology::Topology;

use crate::node::{NodeInfo, Slot};
use crate::objects::{Node, Pod, PodDisruptionBudget, Service};
use crate::selector::Selector;
use counts::{Counts, FewCounts};

type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug)]
struct Placed {
    pod: Arc<Pod>,
    slot: Slot,
}

#[derive(Clone, Debug, Default)]
pub struct Cluster {
    slots: Vec<NodeInfo>,
    free: Vec<Slot>,
    by_name: HashMap<String, Slot>,
    /// Nodes that exist, zones taking turns; made again when nodes came or went.
    order: Arc<[Slot]>,
    is_order_stale: bool,
    /// By uid.
    pods: HashMap<String, Placed>,
    /// Uids of placed pods.
    by_namespace: HashMap<String, HashSet<String>>,
    /// Per uid of a replica controller, where its pods are that are not on their way out.
    by_controller: HashMap<String, FewCounts>,
    /// Uids of pods that are decided but not seen bound.
    assumed: HashSet<String>,
    counts: Counts,
    /// By label; forgotten when nodes come, go or change their labels.
    topologies: HashMap<String, Arc<Topology>>,
    /// What placed pods want to be near to or away from.
    pub affinities: Affinities,
    /// How many nodes have an image.
    images: HashMap<String, i64>,
    namespaces: HashMap<String, Labels>,
    services: HashMap<String, BTreeMap<String, Arc<Service>>>,
    pub nominated: Nominated,
    pub budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
    pub storage: Storage,
    pub devices: Devices,
}

/// Kinds whose pods the default constraints spread (`helper.DefaultSelector`).
const SPREAD_KINDS: [(&str, &str); 3] =
    [("v1", "ReplicationController"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet")];

/// The uid of the replica controller of a pod.
pub fn replica_controller(pod: &Pod) -> Option<&str> {
    let owner = pod.metadata.controller()?;
    SPREAD_KINDS.contains(&(owner.api_version.as_str(), owner.kind.as_str())).then_some(owner.uid.as_str())
}

impl Cluster {
    /// Nodes that exist, zones taking turns (`nodeTree.list`).
    pub fn order(&mut self) -> Arc<[Slot]> {
        if self.is_order_stale {
            self.is_order_stale = false;
            let mut zones: BTreeMap<(&str, &str), Vec<(&str, Slot)>> = BTreeMap::new();
            for info in &self.slots {
                if let Some(node) = &info.node {
                    zones.entry(node.zone()).or_default().push((&node.metadata.name, info.slot));
                }
            }
            zones.values_mut().for_each(|nodes| nodes.sort_unstable());
            let longest = zones.values().map(Vec::len).max().unwrap_or_default();
            let turn = |turn: usize| zones.values().filter_map(move |nodes| nodes.get(turn)).map(|(_, slot)| *slot);
            self.order = (0..longest).flat_map(turn).collect();
        }
        Arc::clone(&self.order)
    }

    pub fn info(&self, slot: Slot) -> &NodeInfo {
        &self.slots[slot as usize]
    }

    /// Nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &NodeInfo)> {
        self.slots.iter().filter_map(|info| Some((info.node.as_ref()?, info)))
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|slot| self.info(*slot)).filter(|info| info.node.is_some())
    }

    fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = Slot::try_from(self.slots.len()).expect("fewer than 4 billion nodes");
            self.slots.push(NodeInfo { slot, ..NodeInfo::default() });
            slot
        });
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let slot = self.slot(&node.metadata.name);
        let old = self.slots[slot as usize].node.replace(Arc::clone(&node));
        self.is_order_stale |= old.as_ref().is_none_or(|old| old.zone() != node.zone());
        if old.as_ref().is_none_or(|old| old.metadata.labels != node.metadata.labels) {
            self.topologies.clear();
        }
        self.count_images(old.as_deref(), Some(&node));
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        let old = self.slots[slot as usize].node.take();
        self.count_images(old.as_deref(), None);
        self.is_order_stale = true;
        self.topologies.clear();
        self.free_if_unused(slot, name);
    }

    fn free_if_unused(&mut self, slot: Slot, name: &str) {
        let info = &mut self.slots[slot as usize];
        if info.node.is_none() && info.pods.is_empty() {
            *info = NodeInfo { slot, ..NodeInfo::default() };
            self.by_name.remove(name);
            self.free.push(slot);
        }
    }

    fn count_images(&mut self, old: Option<&Node>, new: Option<&Node>) {
        if old.map(|n| &n.images) == new.map(|n| &n.images) {
            return;
        }
        for image in old.iter().flat_map(|n| n.images.keys()) {
            if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
        for image in new.iter().flat_map(|n| n.images.keys()) {
            *self.images.entry(image.clone()).or_default() += 1;
        }
    }

    /// How many nodes have an image.
    pub fn nodes_with_image(&self, image: &str) -> i64 {
        self.images.get(image).copied().unwrap_or_default()
    }

    /// A pod as the watch shows it. One without a node keeps its assumed place; a terminal one holds nothing.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.metadata.uid;
        if pod.is_terminal {
            self.remove_pod(uid);
        } else if !pod.node_name.is_empty() {
            self.remove_pod(uid);
            self.place(pod, &pod.node_name);
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.assumed.remove(uid);
        let Some(Placed { pod, slot }) = self.pods.remove(uid) else { return };
        if let Some(uids) = self.by_namespace.get_mut(&pod.metadata.namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_namespace.remove(&pod.metadata.namespace);
            }
        }
        if let Some(controller) = spread_controller(&pod)
            && let Some(places) = self.by_controller.get_mut(controller)
        {
            places.remove(slot);
            if places.is_empty() {
                self.by_controller.remove(controller);
            }
        }
        self.counts.pod_gone(&pod, slot);
        self.storage.pod_gone(&pod);
        self.affinities.pod_gone(&pod, slot);
        self.slots[slot as usize].remove(uid);
        let name = self.slots[slot as usize].node.is_none().then(|| self.name_of(slot)).flatten();
        if let Some(name) = name {
            self.free_if_unused(slot, &name);
        }
    }

    /// Only for nodes that are not there: their name is nowhere else.
    fn name_of(&self, slot: Slot) -> Option<String> {
        self.by_name.iter().find(|(_, s)| **s == slot).map(|(name, _)| name.clone())
    }

    /// Counts a decided pod on its node before the binding is written.
    pub fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        self.assumed.insert(pod.metadata.uid.clone());
        self.nominated.remove(&pod.metadata.uid);
        self.place(pod, node);
    }

    /// Takes an assumption back after a failed binding; a pod that was seen bound meanwhile stays.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains(uid) {
            self.remove_pod(uid);
        }
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Where a pod is, by its uid.
    pub fn place_of(&self, uid: &str) -> Option<&NodeInfo> {
        self.pods.get(uid).map(|placed| self.info(placed.slot))
    }

    fn place(&mut self, pod: &Arc<Pod>, node: &str) {
        let slot = self.slot(node);
        let uid = &pod.metadata.uid;
        self.by_namespace.entry(pod.metadata.namespace.clone()).or_default().insert(uid.clone());
        if let Some(controller) = spread_controller(pod) {
            match self.by_controller.get_mut(controller) {
                Some(places) => places.add(slot),
                None => self.by_controller.entry(controller.to_owned()).or_default().add(slot),
            }
        }
        self.counts.pod_placed(pod, slot);
        self.storage.pod_placed(pod);
        self.affinities.pod_placed(pod, slot);
        self.slots[slot as usize].add(pod);
        self.pods.insert(uid.clone(), Placed { pod: Arc::clone(pod), slot });
    }

    /// How many pods of each node `query` selects.
    pub fn count(&mut self, query: PodQuery) -> Arc<NodeCounts> {
        let Self { counts, pods, by_namespace, .. } = self;
        counts.get(query, |query| {
            let mut found = NodeCounts::default();
            let mut add = |placed: &Placed| {
                if query.selects(&placed.pod) {
                    found.add(placed.slot);
                }
            };
            match query.namespaces() {
                Some(names) => {
                    let uids = names.iter().filter_map(|name| by_namespace.get(name)).flatten();
                    uids.filter_map(|uid| pods.get(uid)).for_each(&mut add);
                }
                None => pods.values().for_each(&mut add),
            }
            found
        })
    }

    /// The domains of a label.
    pub fn topology(&mut self, key: &str) -> Arc<Topology> {
        if let Some(known) = self.topologies.get(key) {
            return Arc::clone(known);
        }
        let value = |info: &NodeInfo| info.node.as_ref().map(|n| (info.slot, n.metadata.labels.get(key).cloned()));
        let values: Vec<_> = self.slots.iter().filter_map(value).collect();
        let topology = Arc::new(Topology::of(values.iter().map(|(slot, value)| (*slot, value.as_deref()))));
        self.topologies.insert(key.to_owned(), Arc::clone(&topology));
        topology
    }

    /// How many pods of a replica controller each node has, not counting those on their way out.
    pub fn controller_count(&self, controller: &str) -> Arc<NodeCounts> {
        Arc::new(self.by_controller.get(controller).map(NodeCounts::from).unwrap_or_default())
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    /// Whether a namespace's labels match.
    pub fn namespace_matches(&self, name: &str, selector: &Selector) -> bool {
        static NONE: Labels = Labels::new();
        selector.matches(self.namespaces.get(name).unwrap_or(&NONE))
    }

    /// Names of the namespaces whose labels match.
    pub fn namespaces_matching<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a String> {
        self.namespaces.iter().filter(|(_, labels)| selector.matches(labels)).map(|(name, _)| name)
    }

    pub fn set_service(&mut self, key: &ObjectKey, service: Option<Arc<Service>>) {
        let of_namespace = self.services.entry(key.namespace.clone()).or_default();
        match service {
            Some(service) => drop(of_namespace.insert(key.name.clone(), service)),
            None => drop(of_namespace.remove(&key.name)),
        }
        if of_namespace.is_empty() {
            self.services.remove(&key.namespace);
        }
    }

    /// What the Services that select the pod ask for, together; `None` when there are none.
    pub fn service_selector(&self, pod: &Pod) -> Option<Selector> {
        let services = self.services.get(&pod.metadata.namespace).into_iter().flat_map(BTreeMap::values);
        let selecting = services.filter(|s| {
            !s.spec.selector.is_empty() && s.spec.selector.iter().all(|(k, v)| pod.metadata.labels.get(k) == Some(v))
        });
        let selector = Selector::of_labels(selecting.flat_map(|s| &s.spec.selector));
        (!selector.is_empty()).then_some(selector)
    }
}

/// The controller a placed pod is counted under.
fn spread_controller(pod: &Pod) -> Option<&str> {
    replica_controller(pod).filter(|_| !pod.metadata.is_deleting())
}
