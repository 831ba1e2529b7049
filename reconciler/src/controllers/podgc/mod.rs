//! Pod garbage collection: pods without a node, pods that will never be removed by one, and too many ended ones. One
//! key for all, looked at once a period while there are pods, and when a node is in question: a look walks all pods.

pub mod plan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_client::{Cache, DeleteParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use plan::Why;
use serde_json::json;
use tokio::time::Instant;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{Node, Pod};

/// Pause between two looks (`gcCheckPeriod`).
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must have been missing before its pods are deleted (`quarantineTime`): it may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

pub struct PodGarbage {
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    /// Since when nodes are missed.
    missing: Mutex<HashMap<String, Instant>>,
    /// The last look.
    looked_at: Mutex<Option<Instant>>,
    /// A node went, or was declared dead: not to wait for the period's end.
    has_node_news: Arc<AtomicBool>,
}

impl PodGarbage {
    pub fn new(caches: &Caches) -> Self {
        Self {
            pods: caches.get(),
            nodes: caches.get(),
            missing: Mutex::default(),
            looked_at: Mutex::default(),
            has_node_news: Arc::default(),
        }
    }

    /// How long the next look has time, if it has.
    fn wait_for_period(&self) -> Option<Duration> {
        let last = *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let has_news = self.has_node_news.swap(false, Ordering::Relaxed);
        last.map(|last| PERIOD.saturating_sub(last.elapsed())).filter(|left| !has_news && !left.is_zero())
    }

    /// True when the node has been missing for the quarantine.
    fn is_long_missing(&self, node: &str) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.entry(node.to_owned()).or_insert_with(Instant::now).elapsed() >= QUARANTINE
    }

    fn forget_found(&self, gone: &[&str]) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|node, _| gone.contains(&node.as_str()));
    }
}

#[async_trait]
impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.pods, |change, wake| {
            // The first pod starts the period. A pod that is being deleted without a node mostly goes by itself.
            if change.new.is_some() && change.old.is_none() {
                wake(ObjectKey::default());
            }
        });
        let has_news = self.has_node_news.clone();
        inputs.watch(&self.nodes, move |change, wake| {
            let lost = |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| plan::is_out_of_service(node));
            if change.new.is_none() || lost(&change.new) && !lost(&change.old) {
                has_news.store(true, Ordering::Relaxed);
                wake(ObjectKey::default());
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods"), Output::shared("", "pods/status")];
        OUTPUTS
    }

    async fn reconcile(&self, _: &ObjectKey, work: &Work) -> Result<Done, Error> {
        if let Some(left) = self.wait_for_period() {
            return Ok(Done::After(left));
        }
        let (pods, nodes) = (self.pods.snapshot(), self.nodes.snapshot());
        let node = |name: &str| nodes.get(&ObjectKey::new("", name)).cloned();
        let garbage = plan::garbage(pods.iter(), node, plan::ENDED_PODS_MAX);
        let gone: Vec<&str> =
            garbage.iter().filter(|(_, why)| *why == Why::NoNode).map(|(pod, _)| pod.spec.node_name.as_str()).collect();
        self.forget_found(&gone);
        let mut absent: HashMap<&str, bool> = HashMap::new();
        for (pod, why) in &garbage {
            if *why == Why::NoNode {
                let name = pod.spec.node_name.as_str();
                if !self.is_long_missing(name) {
                    continue;
                }
                if !absent.contains_key(name) {
                    let found = work.live::<Node>().find(&ObjectKey::new("", name)).await?;
                    absent.insert(name, found.is_none());
                }
                if absent.get(name) != Some(&true) {
                    continue;
                }
            }
            delete(pod, *why, work).await?;
        }
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(if pods.is_empty() { Done::Settled } else { Done::After(PERIOD) })
    }
}

/// Ends a pod for good: nobody else will, so it must not wait for a kubelet.
async fn delete(pod: &Pod, why: Why, work: &Work) -> Result<(), Error> {
    let key = pod.key();
    tracing::info!(pod = %key, ?why, "deleting garbage pod");
    if why != Why::Ended && !pod.is_terminal() {
        let mut status = json!({"phase": "Failed"});
        if why == Why::NoNode {
            status["conditions"] = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": work.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }]);
        }
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
        match work.patch_status::<Pod>(&key, &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(Error::Api(e)) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    work.delete::<Pod>(&key, &pod.metadata.uid, DeleteParams::default().grace_period_seconds(0)).await
}
