//! NodeVolumeLimits: how many volumes of a driver a node can attach.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plugin, refuse, refuse_for_good};
use crate::cluster::Storage;
use crate::node::NodeInfo;
use crate::objects::{Claim, Node, Pod};
use crate::verdict::Verdict;

/// Driver and handle.
type Attached = (String, String);

pub fn filter(pod: &Pod, storage: &Storage, node: &Node, info: &NodeInfo) -> Verdict {
    if pod.volume_claims().next().is_none() {
        return Ok(());
    }
    let mut wanted = BTreeSet::new();
    for name in pod.volume_claims() {
        let namespace = &pod.metadata.namespace;
        let Some(claim) = storage.claim(namespace, name) else {
            let reason = format!("looking up PVC {namespace}/{name}: persistentvolumeclaim {name:?} not found");
            return refuse_for_good(Plugin::NodeVolumeLimits, reason);
        };
        wanted.extend(attached_for(claim, storage));
    }
    let limits: BTreeMap<&String, i64> = storage
        .csi_node(&node.metadata.name)
        .iter()
        .flat_map(|n| &n.limits)
        .filter_map(|(d, n)| Some((d, (*n)?)))
        .collect();
    if wanted.is_empty() || limits.is_empty() {
        return Ok(());
    }
    let mut here = attached(node, info, storage);
    let new: Vec<Attached> = wanted.into_iter().filter(|volume| !here.contains(volume)).collect();
    let drivers: BTreeSet<String> = new.iter().map(|(driver, _)| driver.clone()).collect();
    here.extend(new);
    let is_over = |driver: &String| {
        let count = here.iter().filter(|(d, _)| d == driver).count() as i64;
        limits.get(driver).is_some_and(|limit| count > *limit)
    };
    if drivers.iter().any(is_over) {
        return refuse(Plugin::NodeVolumeLimits, "node(s) exceed max volume count");
    }
    Ok(())
}

/// What the node has attached: volumes of its pods, and what is attached beside them.
fn attached(node: &Node, info: &NodeInfo, storage: &Storage) -> BTreeSet<Attached> {
    let claims = info
        .pods
        .iter()
        .flat_map(|pod| pod.volume_claims().filter_map(|name| storage.claim(&pod.metadata.namespace, name)));
    let mut here: BTreeSet<Attached> = claims.filter_map(|claim| attached_for(claim, storage)).collect();
    let volumes = storage.attachments(&node.metadata.name).filter_map(|attachment| {
        storage.volume(attachment.spec.source.persistent_volume_name.as_deref()?)?.csi.clone()
    });
    here.extend(volumes);
    here
}

/// The volume of a claim; one that is still to be made counts under the claim's own name (`getCSIDriverInfo`).
fn attached_for(claim: &Claim, storage: &Storage) -> Option<Attached> {
    if let Some(volume) = storage.volume(&claim.volume_name) {
        return volume.csi.clone();
    }
    let driver = storage.class(&claim.class)?.provisioner.clone();
    Some((driver, format!("{}/{}", claim.metadata.namespace, claim.metadata.name)))
}
