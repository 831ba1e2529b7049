//! Changes become part of the picture, and wake the pods they could help.

use std::sync::Arc;

use api_client::Change;

use super::{Scheduler, Update};
use crate::objects::{Node, Pod};
use crate::queue::Event;

impl Scheduler {
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Node(change) => self.node_changed(change),
            Update::Pod(change) => self.pod_changed(change),
            Update::Namespace(change) => {
                let labels = |n: &Arc<crate::objects::Namespace>| n.metadata.labels.clone();
                let (old, new) = (change.old.as_ref().map(labels), change.new.as_ref().map(labels));
                self.cluster.set_namespace(&change.key.name, new.clone());
                if old != new {
                    self.wake(&Event::Namespace);
                }
            }
            Update::Service(change) => self.cluster.set_service(&change.key, change.new),
            Update::Budget(change) => match change.new {
                Some(budget) => drop(self.cluster.budgets.insert(change.key, budget)),
                None => drop(self.cluster.budgets.remove(&change.key)),
            },
            Update::DeviceClaim(change) => {
                self.cluster.devices.set_claim(&change.key, change.new);
                self.wake(&Event::Devices);
            }
            Update::DeviceClass(change) => {
                self.cluster.devices.set_class(&change.key.name, change.new);
                self.wake(&Event::Devices);
            }
            Update::DeviceSlice(change) => {
                self.cluster.devices.set_slice(&change.key.name, change.new);
                self.wake(&Event::Devices);
            }
            other => self.storage_changed(other),
        }
    }

    fn storage_changed(&mut self, update: Update) {
        let storage = &mut self.cluster.storage;
        match update {
            Update::Claim(Change { key, old, new }) => {
                storage.set_claim(&key, new.clone());
                if let Some(new) = new.filter(|new| old.as_ref() != Some(new)) {
                    self.wake(&Event::Claim { old: old.as_deref(), new: &new });
                }
            }
            Update::Volume(Change { key, new, .. }) => {
                storage.set_volume(&key.name, new.clone());
                if let Some(new) = new {
                    self.wake(&Event::Volume(&new));
                }
            }
            Update::Class(Change { key, old, new }) => {
                storage.set_class(&key.name, new.clone());
                if let Some(new) = new {
                    self.wake(&Event::Class { old: old.as_deref(), new: &new });
                }
            }
            Update::CsiNode(Change { key, old, new }) => {
                storage.set_csi_node(&key.name, new.clone());
                if let Some(new) = new {
                    self.wake(&Event::CsiNode { old: old.as_deref(), new: &new });
                }
            }
            Update::Driver(Change { key, old, new }) => {
                storage.set_driver(&key.name, new.clone());
                if let Some(new) = new {
                    self.wake(&Event::Driver { old: old.as_deref(), new: &new });
                }
            }
            Update::Capacity(Change { key, old, new }) => {
                storage.set_capacity(&key, new.clone());
                if let Some(new) = new {
                    self.wake(&Event::Capacity { old: old.as_deref(), new: &new });
                }
            }
            Update::Attachment(Change { old, new, .. }) => {
                storage.set_attachment(old.as_deref(), new.clone());
                if let (Some(old), None) = (old, new) {
                    self.wake(&Event::AttachmentGone(&old));
                }
            }
            // Handled by the caller.
            _ => {}
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let Some(node) = change.new else {
            self.cluster.remove_node(&change.key.name);
            if let Some(old) = change.old {
                self.wake(&Event::NodeGone(&old));
            }
            return;
        };
        self.cluster.set_node(Arc::clone(&node));
        // Heartbeats change nothing that a pod could care about.
        let matters = change.old.as_ref().is_none_or(|old| {
            old.metadata.labels != node.metadata.labels
                || old.taints != node.taints
                || old.unschedulable != node.unschedulable
                || old.allocatable != node.allocatable
                || old.pods_max != node.pods_max
        });
        if matters {
            self.wake(&Event::Node { old: change.old.as_deref(), new: &node });
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let Change { old, new, .. } = change;
        match new {
            Some(new) if self.is_waiting(&new) => self.waiting_pod_changed(old.as_deref(), new),
            Some(new) if !new.is_terminal && !new.node_name.is_empty() => self.placed_pod_changed(old.as_deref(), &new),
            // Gone, ended, on its way out without a node, held by its gates, or somebody else's.
            new => {
                let Some(pod) = new.or(old) else { return };
                self.pod_gone(&pod);
            }
        }
    }

    /// Whether the pod is ours to find a node for.
    pub(super) fn is_waiting(&self, pod: &Pod) -> bool {
        pod.node_name.is_empty()
            && !pod.is_terminal
            && !pod.metadata.is_deleting()
            && self.config.profile(pod).is_some_and(|profile| !profile.holds_gated || pod.gates.is_empty())
    }

    fn pod_gone(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.metadata.uid;
        self.queue.remove(uid);
        let place = self.cluster.place_of(uid).and_then(|info| info.node.as_ref()).map(|n| n.metadata.name.clone());
        let nominated = self.cluster.nominated.node_of(uid).map(str::to_owned);
        self.cluster.nominated.remove(uid);
        self.cluster.remove_pod(uid);
        if let Some(node) = place.or(nominated) {
            self.wake(&Event::PodGone { pod, node: &node });
        }
    }

    fn placed_pod_changed(&mut self, old: Option<&Pod>, new: &Arc<Pod>) {
        let uid = &new.metadata.uid;
        self.queue.remove(uid);
        self.cluster.nominated.remove(uid);
        self.cluster.set_pod(new);
        let old = old.filter(|old| !old.node_name.is_empty());
        let matters = old.is_none_or(|old| {
            old.metadata.labels != new.metadata.labels
                || old.request != new.request
                || old.metadata.is_deleting() != new.metadata.is_deleting()
        });
        if matters {
            self.wake(&Event::Pod { old, new });
        }
    }

    fn waiting_pod_changed(&mut self, old: Option<&Pod>, new: Arc<Pod>) {
        let uid = &new.metadata.uid;
        if self.cluster.is_placed(uid) {
            return;
        }
        self.cluster.nominated.seen(old, &new);
        // A nomination that somebody took away frees the pod to look elsewhere; our own reports change nothing.
        let is_news = old.is_none_or(|old| {
            !old.asks_the_same_as(&new) || (!old.nominated_node.is_empty() && new.nominated_node.is_empty())
        });
        if is_news || !self.queue.contains(uid) {
            self.queue.add(&new);
        } else {
            self.queue.update(&new);
        }
    }
}
