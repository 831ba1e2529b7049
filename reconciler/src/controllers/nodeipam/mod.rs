//! Node address ranges: gives every node a part of the cluster's pod addresses. All nodes share one key, because two
//! decisions at a time could give the same range twice.

pub mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use api_client::events::ObjectReference;
use api_client::{Cache, ObjectKey, Patch, Snapshot};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use plan::Range;
use serde_json::json;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::Node;

/// Nodes that are given their ranges at once.
const PATCHES_MAX: usize = 16;

pub struct NodeIpam {
    nodes: Cache<Node>,
    ranges: Vec<Range>,
    /// Uids of nodes for which nothing was left, and who were told.
    told: Mutex<HashSet<String>>,
}

impl NodeIpam {
    /// Ranges that can't be parsed are reported by the caller's configuration check, and ignored here.
    pub fn new(caches: &Caches, cluster_cidrs: &[String]) -> Self {
        let ranges = cluster_cidrs.iter().filter_map(|c| Range::parse(c)).collect();
        Self { nodes: caches.get(), ranges, told: Mutex::default() }
    }
}

#[async_trait]
impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.nodes, |change, wake| {
            // A node that comes needs a range; one that goes may free it for another. Heartbeats of nodes for which
            // nothing was left are no news.
            let waits = |node: &Node| node.spec.pod_cidrs.is_empty() && !node.metadata.is_deleting();
            let waited = change.old.as_ref().is_some_and(|node| waits(node));
            if change.new.as_ref().is_none_or(|node| waits(node) && !waited) {
                wake(ObjectKey::default());
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "nodes")];
        OUTPUTS
    }

    async fn reconcile(&self, _: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let nodes = self.nodes.snapshot();
        let plan = plan::plan(&self.ranges, nodes.iter().map(|n| (&*n.metadata.name, n.spec.pod_cidrs.as_slice())));
        let give = |(name, cidrs): (String, Vec<String>)| async move {
            let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
            match work.patch::<Node>(&ObjectKey::new("", name), &Patch::Strategic(patch)).await {
                Ok(_) => Ok(()),
                // Gone again, or given one by its own kubelet.
                Err(Error::Api(e)) if e.is_not_found() || e.is_invalid() => Ok(()),
                Err(e) => Err(e),
            }
        };
        stream::iter(plan.given).map(give).buffer_unordered(PATCHES_MAX).try_collect::<()>().await?;
        self.tell(&plan.without, &nodes, work);
        Ok(Done::Settled)
    }
}

impl NodeIpam {
    /// Says for which nodes nothing is left, once for each.
    fn tell(&self, without: &[String], nodes: &Snapshot<Node>, work: &Work) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let without = without.iter().filter_map(|name| nodes.get(&ObjectKey::new("", name.as_str())));
        let without: HashMap<&str, &Arc<Node>> = without.map(|node| (node.metadata.uid.as_str(), node)).collect();
        told.retain(|uid| without.contains_key(uid.as_str()));
        for (uid, node) in without {
            if told.insert(uid.to_owned()) {
                let message = format!("Node {} status is now: CIDRNotAvailable", node.metadata.name);
                work.recorder().normal(ObjectReference::to(&**node), "CIDRNotAvailable", message);
            }
        }
    }
}
