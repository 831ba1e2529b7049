//! Node address ranges: gives every node a part of the cluster's pod addresses. All nodes share one key, because two
//! decisions at a time could give the same range twice.

pub mod plan;

use api_client::events::ObjectReference;
use api_client::{Cache, ObjectKey, Patch};
use async_trait::async_trait;
use plan::Range;
use serde_json::json;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::Node;

pub struct NodeIpam {
    nodes: Cache<Node>,
    ranges: Vec<Range>,
}

impl NodeIpam {
    /// Ranges that can't be parsed are reported by the caller's configuration check, and ignored here.
    pub fn new(caches: &Caches, cluster_cidrs: &[String]) -> Self {
        Self { nodes: caches.get(), ranges: cluster_cidrs.iter().filter_map(|c| Range::parse(c)).collect() }
    }
}

#[async_trait]
impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.nodes, |change, wake| {
            // A node that comes needs a range; one that goes may free it for another.
            let waits = |node: &Node| node.spec.pod_cidrs.is_empty() && !node.metadata.is_deleting();
            if change.new.as_ref().is_none_or(|node| waits(node)) {
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
        for (name, cidrs) in plan.given {
            let key = ObjectKey::new("", name);
            let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
            match work.patch::<Node>(&key, &Patch::Strategic(patch)).await {
                Ok(_) => {}
                // Gone again, or given one by its own kubelet.
                Err(Error::Api(e)) if e.is_not_found() || e.is_invalid() => {}
                Err(e) => return Err(e),
            }
        }
        for name in plan.without {
            if let Some(node) = nodes.get(&ObjectKey::new("", name.as_str())) {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                work.recorder().normal(ObjectReference::to(&**node), "CIDRNotAvailable", message);
            }
        }
        Ok(Done::Settled)
    }
}
