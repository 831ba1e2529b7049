//! VolumeBinding: a pod runs where its volumes are, or can be made. Claims whose class waits for the first consumer are
//! matched with volumes here, or given to their provisioner with the node's name.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySelectorTerm;

use super::{Plugin, node_affinity};
use crate::cluster::{Bindings, Storage};
use crate::objects::{Claim, Node, Pod, PodVolume, StorageClass, Volume};
use crate::verdict::{Refusal, Rejection, Verdict};

/// Names no provisioner (`volume.NotSupportedProvisioner`).
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The pod's claims.
#[derive(Clone, Default)]
pub struct State {
    bound: Vec<Arc<Claim>>,
    /// To be bound once the pod has a node.
    delayed: Vec<Arc<Claim>>,
}

impl State {
    pub fn new(pod: &Pod, storage: &Storage) -> Result<Self, Rejection> {
        let reject = |message: String| Err(Rejection { plugin: Plugin::VolumeBinding, message });
        let mut state = Self::default();
        let mut is_waiting = false;
        for volume in &pod.volumes {
            let Some(name) = volume.claim() else { continue };
            let claim = match usable_claim(pod, volume, name, storage) {
                Ok(claim) => claim,
                Err(message) => return reject(message),
            };
            if claim.is_bound {
                state.bound.push(Arc::clone(claim));
            } else if claim.volume_name.is_empty()
                && storage.class(&claim.class).is_some_and(|c| c.waits_for_consumer())
            {
                state.delayed.push(Arc::clone(claim));
            } else {
                is_waiting = true;
            }
        }
        if is_waiting {
            return reject("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        // Small claims first, so that each gets the smallest volume that fits.
        state.delayed.sort_by_key(|claim| claim.requested);
        Ok(state)
    }

    pub fn is_empty(&self) -> bool {
        self.bound.is_empty() && self.delayed.is_empty()
    }

    /// Whether something is to be done before the pod is bound.
    pub fn has_delayed(&self) -> bool {
        !self.delayed.is_empty()
    }
}

/// The claim of a pod's volume, or what is wrong with it (`podHasPVCs`).
fn usable_claim<'a>(pod: &Pod, volume: &PodVolume, name: &str, storage: &'a Storage) -> Result<&'a Arc<Claim>, String> {
    let is_ephemeral = matches!(volume, PodVolume::Ephemeral(_));
    let Some(claim) = storage.claim(&pod.metadata.namespace, name) else {
        return Err(if is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if claim.is_lost {
        let volume = &claim.volume_name;
        return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
    }
    if claim.metadata.is_deleting() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if is_ephemeral && claim.metadata.controller().is_none_or(|owner| owner.uid != pod.metadata.uid) {
        let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
        return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    Ok(claim)
}

pub fn filter(state: &State, storage: &Storage, node: &Node) -> Verdict {
    if state.is_empty() {
        return Ok(());
    }
    bindings(state, storage, node).map(drop)
}

/// What is to be bound or made if the pod goes to `node` (`FindPodVolumes`).
pub fn bindings(state: &State, storage: &Storage, node: &Node) -> Result<Bindings, Refusal> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    for claim in &state.bound {
        match storage.volume(&claim.volume_name) {
            None => {
                reasons.push("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".into());
                break;
            }
            Some(volume) if !reaches(volume, node) => {
                reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
                break;
            }
            Some(_) => {}
        }
    }
    match delayed(&state.delayed, storage, node) {
        Ok(bindings) if reasons.is_empty() => return Ok(bindings),
        Ok(_) => {}
        Err(reason) => reasons.push(reason),
    }
    Err(Refusal { plugin: Plugin::VolumeBinding, reasons, resolvable: false })
}

fn delayed(claims: &[Arc<Claim>], storage: &Storage, node: &Node) -> Result<Bindings, Cow<'static, str>> {
    const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
    let mut found = Bindings::default();
    let mut chosen = BTreeSet::new();
    for claim in claims {
        if let Some(selected) = storage.selected_node(claim) {
            if selected != node.metadata.name {
                return Err(NO_VOLUME.into());
            }
            found.provisions.push(Arc::clone(claim));
        } else if let Some(volume) = best(claim, storage, node, &chosen) {
            chosen.insert(volume.metadata.name.clone());
            found.volumes.push((Arc::clone(volume), Arc::clone(claim)));
        } else {
            found.provisions.push(Arc::clone(claim));
        }
    }
    for claim in &found.provisions {
        let Some(class) = storage.class(&claim.class) else {
            return Err(format!("failed to find storage class {:?}", claim.class).into());
        };
        if class.provisioner.is_empty()
            || class.provisioner == NO_PROVISIONER
            || !topology_allows(&class.allowed_topologies, node)
        {
            return Err(NO_VOLUME.into());
        }
        if !has_capacity(class, claim, storage, node) {
            return Err("node(s) did not have enough free storage".into());
        }
    }
    Ok(found)
}

/// Whether a volume can be used on a node.
fn reaches(volume: &Volume, node: &Node) -> bool {
    volume.node_affinity.as_ref().is_none_or(|affinity| node_affinity::selector_matches(affinity, node))
}

/// The volume that is reserved for the claim, or the smallest that fits (`FindMatchingVolume`).
fn best<'a>(claim: &'a Claim, storage: &'a Storage, node: &Node, chosen: &BTreeSet<String>) -> Option<&'a Arc<Volume>> {
    let could_hold = |volume: &&Arc<Volume>| {
        !chosen.contains(&volume.metadata.name)
            && (volume.claim.is_none() || volume.is_for(claim))
            && claim.requested.is_none_or(|wanted| volume.capacity >= wanted)
            && volume.volume_mode == claim.volume_mode
            && volume.attributes_class == claim.attributes_class
            && !volume.metadata.is_deleting()
    };
    let volumes: Vec<&Arc<Volume>> = storage.volumes_for(&claim.class, claim).filter(could_hold).collect();
    if let Some(reserved) = volumes.iter().find(|volume| volume.is_for(claim)) {
        return reaches(reserved, node).then_some(*reserved);
    }
    let fits = |volume: &&Arc<Volume>| {
        volume.is_available
            && claim.selector.as_ref().is_none_or(|s| s.matches(&volume.metadata.labels))
            && claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
            && reaches(volume, node)
    };
    volumes
        .into_iter()
        .filter(fits)
        .min_by(|a, b| a.capacity.cmp(&b.capacity).then_with(|| a.metadata.name.cmp(&b.metadata.name)))
}

/// `MatchTopologySelectorTerms`.
fn topology_allows(terms: &[TopologySelectorTerm], node: &Node) -> bool {
    let matches = |term: &TopologySelectorTerm| {
        let mut labels = term.match_label_expressions.iter().flatten();
        labels.all(|l| node.metadata.labels.get(&l.key).is_some_and(|value| l.values.contains(value)))
    };
    terms.is_empty() || terms.iter().any(matches)
}

/// Drivers that publish how much space is left must have enough where the node can reach it.
fn has_capacity(class: &StorageClass, claim: &Claim, storage: &Storage, node: &Node) -> bool {
    let (Some(wanted), Some(driver)) = (claim.requested, storage.driver(&class.provisioner)) else { return true };
    !driver.spec.storage_capacity
        || storage.capacities().any(|capacity| {
            capacity.class == class.metadata.name
                && capacity.volume_max.is_some_and(|max| max >= wanted)
                && capacity.nodes.matches(&node.metadata.labels)
        })
}
