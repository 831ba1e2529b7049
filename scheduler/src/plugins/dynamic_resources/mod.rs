//! DynamicResources: pods run where the devices they claim are, or can be had (structured parameters).
//!
//! Not understood, and so refused: tainted devices, devices made up from shared counters, and extended resources backed
//! by device classes.

mod allocate;

use std::sync::Arc;

use api_client::Object;

use super::{Plugin, node_affinity, refuse_for_good};
use crate::cluster::{Devices, Grant};
use crate::objects::{Node, Pod, PodClaim, ResourceClaim};
use crate::verdict::{Refusal, Rejection, Verdict};

/// Most pods that one claim serves (`ResourceClaimReservedForMaxSize`).
const USERS_MAX: usize = 256;

/// The pod's claims.
#[derive(Clone, Default)]
pub struct State {
    allocated: Vec<Arc<ResourceClaim>>,
    unallocated: Vec<Arc<ResourceClaim>>,
}

impl State {
    pub fn new(pod: &Pod, devices: &Devices) -> Result<Self, Rejection> {
        let reject = |message: String| Rejection { plugin: Plugin::DynamicResources, message };
        let mut state = Self::default();
        for claim in &pod.claims {
            let Some(name) = name(pod, claim).map_err(reject)? else { continue };
            let found = devices.claim(&pod.metadata.namespace, &name);
            let claim = found.ok_or_else(|| reject(format!("resourceclaim.resource.k8s.io {name:?} not found")))?;
            if claim.metadata.is_deleting() {
                return Err(reject(format!("resourceclaim {name:?} is being deleted")));
            }
            if claim.allocation.is_some() {
                let is_ours = claim.reserved_for.contains(&pod.metadata.uid);
                if !is_ours && claim.reserved_for.len() >= USERS_MAX {
                    return Err(reject("resourceclaim in use".to_owned()));
                }
                state.allocated.push(Arc::clone(claim));
                continue;
            }
            if devices.is_pending(claim) {
                return Err(reject(format!("resource claim {} is in the process of being allocated", claim.key())));
            }
            for alternative in claim.requests.iter().flat_map(|r| &r.alternatives) {
                if devices.class(&alternative.class).is_none() {
                    let (request, class) = (&alternative.name, &alternative.class);
                    return Err(reject(format!("request {request}: device class {class} does not exist")));
                }
            }
            state.unallocated.push(Arc::clone(claim));
        }
        Ok(state)
    }

    pub fn is_empty(&self) -> bool {
        self.allocated.is_empty() && self.unallocated.is_empty()
    }

    /// Claims the pod is to be entered in.
    pub fn allocated(&self) -> &[Arc<ResourceClaim>] {
        &self.allocated
    }
}

/// The name of a pod's claim; `None` where its template made none on purpose (`resourceclaim.Name`).
fn name(pod: &Pod, claim: &PodClaim) -> Result<Option<String>, String> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some(name.clone()));
    }
    pod.claim_names.get(&claim.name).cloned().ok_or_else(|| {
        format!("pod \"{}/{}\": ResourceClaim not created yet", pod.metadata.namespace, pod.metadata.name)
    })
}

pub fn filter(state: &State, devices: &Devices, node: &Node) -> Verdict {
    if state.is_empty() {
        return Ok(());
    }
    grants(state, devices, node).map(drop)
}

/// The devices the pod gets on `node`.
pub fn grants(state: &State, devices: &Devices, node: &Node) -> Result<Vec<Grant>, Refusal> {
    let reaches = |claim: &Arc<ResourceClaim>| {
        let nodes = claim.allocation.as_ref().and_then(|a| a.nodes.as_ref());
        nodes.is_none_or(|nodes| node_affinity::selector_matches(nodes, node))
    };
    if !state.allocated.iter().all(reaches) {
        refuse_for_good(Plugin::DynamicResources, "resourceclaim not available on the node")?;
    }
    match allocate::all(&state.unallocated, devices, node) {
        Ok(grants) => Ok(grants),
        Err(reason) => Err(Refusal { plugin: Plugin::DynamicResources, reasons: vec![reason], resolvable: false }),
    }
}

#[cfg(test)]
mod tests;
