//! Taint eviction: deletes pods from nodes with NoExecute taints that they don't, or no longer, tolerate. A pod's time
//! is set when it is first looked at under its taints, and runs on this process's own clock from there: a clock that
//! jumps by an hour must not evict what has minutes left.

pub mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_client::events::ObjectReference;
use api_client::{Cache, DeleteParams, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Taint;
use plan::Stay;
use serde_json::json;
use tokio::time::Instant;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_NODE, Node, Pod};

pub struct TaintEviction {
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    waits: Waits,
}

/// Pods whose time runs, by key.
type Waits = Arc<Mutex<HashMap<ObjectKey, Wait>>>;

struct Wait {
    uid: String,
    /// Other taints start another wait.
    taints: Vec<Taint>,
    end: Instant,
}

impl TaintEviction {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.get(), nodes: caches.get(), waits: Waits::default() }
    }
}

#[async_trait]
impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn queue(&self) -> &'static str {
        "noexec_taint_pod"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        let (nodes, waits) = (self.nodes.clone(), self.waits.clone());
        inputs.watch(&self.pods, move |change, wake| {
            if change.new.is_none() {
                waits.lock().unwrap_or_else(PoisonError::into_inner).remove(&change.key);
            }
            let Some(pod) = change.new.as_ref().filter(|pod| !pod.spec.node_name.is_empty()) else { return };
            let node = nodes.get(&ObjectKey::new("", pod.spec.node_name.as_str()));
            if node.is_some_and(|node| executing(&node).next().is_some()) {
                wake(change.key.clone());
            }
        });
        let pods = self.pods.clone();
        inputs.watch(&self.nodes, move |change, wake| {
            let taints = |node: &Option<Arc<Node>>| -> Vec<Taint> {
                node.iter().flat_map(|node| executing(node).cloned().collect::<Vec<_>>()).collect()
            };
            if taints(&change.old) != taints(&change.new) {
                let pods = pods.snapshot();
                pods.indexed(BY_NODE, &change.key.name).for_each(|pod| wake(pod.metadata.key()));
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods"), Output::shared("", "pods/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(pod) = self.pods.get(key).filter(|p| !p.metadata.is_deleting()) else { return Ok(Done::Settled) };
        let Some(node) = self.nodes.get(&ObjectKey::new("", pod.spec.node_name.as_str())) else {
            return Ok(Done::Settled);
        };
        let left = match plan::stay(&node.spec.taints, &pod.spec.tolerations, work.now()) {
            Stay::Forever => {
                self.forget(key);
                return Ok(Done::Settled);
            }
            Stay::For(left) => self.left(key, &pod, &node, left),
            Stay::No => Duration::ZERO,
        };
        if !left.is_zero() {
            return Ok(Done::After(left));
        }
        evict(&pod, key, work).await?;
        self.forget(key);
        Ok(Done::Settled)
    }
}

impl TaintEviction {
    /// What is left of a wait that has begun; `left` of one that begins now.
    fn left(&self, key: &ObjectKey, pod: &Pod, node: &Node, left: Duration) -> Duration {
        let taints: Vec<Taint> = executing(node).cloned().collect();
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match waits.get(key).filter(|wait| wait.uid == pod.metadata.uid && wait.taints == taints) {
            Some(wait) => wait.end.saturating_duration_since(now),
            None => {
                waits.insert(key.clone(), Wait { uid: pod.metadata.uid.clone(), taints, end: now + left });
                left
            }
        }
    }

    fn forget(&self, key: &ObjectKey) {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

fn executing(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|t| t.effect == "NoExecute")
}

async fn evict(pod: &Pod, key: &ObjectKey, work: &Work) -> Result<(), Error> {
    let message = format!("Marking for deletion Pod {key}");
    work.recorder().normal(ObjectReference::to(pod), "TaintManagerEviction", message);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": work.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    match work.patch_status::<Pod>(key, &Patch::Strategic(patch)).await {
        Ok(_) => {}
        Err(Error::Api(e)) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(e),
    }
    work.delete::<Pod>(key, &pod.metadata.uid, DeleteParams::default()).await
}
