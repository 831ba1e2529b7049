//! The node lifecycle controller: a node that falls silent becomes Unknown, is tainted, and its pods count as unready.
//! Silence is measured on this process's own clock, from the moment a lease or status was seen to change. What times
//! they carry is of no interest, only that they change: a clock that is set back must not silence a node.

pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, ObjectKey, Patch};
use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use plan::{Eviction, Ready, Zones};
use serde_json::json;
use tokio::time::Instant;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_NODE, Node, NodeLease, Pod};

pub struct NodeLifecycle {
    nodes: Cache<Node>,
    leases: Cache<NodeLease>,
    pods: Cache<Pod>,
    seen: Arc<Mutex<Seen>>,
}

/// What this process noticed, and when.
#[derive(Default)]
struct Seen {
    nodes: HashMap<String, Health>,
    /// The last tainting per zone.
    tainted: HashMap<String, Instant>,
    zones: Zones,
}

impl Seen {
    /// Counts a node where it is now; gives whether that changes how fast any nodes are tainted.
    fn count(&mut self, change: &Change<Node>) -> bool {
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        if !Zones::is_moved(old, new) {
            return false;
        }
        let mut zones = self.zones.clone();
        old.iter().for_each(|node| zones.remove(node));
        new.iter().for_each(|node| zones.add(node));
        let before = std::mem::replace(&mut self.zones, zones);
        before.eviction_rates() != self.zones.eviction_rates()
    }
}

struct Health {
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    /// When either was last seen to change.
    alive: Instant,
}

impl NodeLifecycle {
    pub fn new(caches: &Caches) -> Self {
        Self { nodes: caches.get(), leases: caches.get(), pods: caches.get(), seen: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn queue(&self) -> &'static str {
        "node_lifecycle_controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.nodes);
        let (nodes, seen) = (self.nodes.clone(), self.seen.clone());
        // The state of a zone bears on how fast all of its nodes are tainted.
        inputs.watch(&self.nodes, move |change, wake| {
            let changes_rates = seen.lock().unwrap_or_else(PoisonError::into_inner).count(change);
            if changes_rates {
                nodes.snapshot().iter().filter(|n| Ready::of(n) != Ready::True).for_each(|n| wake(n.metadata.key()));
            }
        });
        let seen = self.seen.clone();
        // A renewed lease is noted without waking anything: the node is looked at when its time would be up.
        inputs.watch(&self.leases, move |change, _| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(lease), Some(health)) = (&change.new, seen.nodes.get_mut(&change.key.name))
                && lease.spec.renew_time != health.renewed
            {
                health.renewed = lease.spec.renew_time;
                health.alive = Instant::now();
            }
        });
        inputs.read(&self.pods);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] =
            &[Output::shared("", "nodes"), Output::shared("", "nodes/status"), Output::shared("", "pods/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(node) = self.nodes.get(key) else {
            if self.seen().nodes.remove(&key.name).is_some() {
                event(work, &key.name, "", "RemovingNode", format!("Removing Node {} from Controller", key.name));
            }
            return Ok(Done::Settled);
        };
        let silent_for = self.note(&node, work);
        let grace = plan::grace(&node);
        let silent = silent_for > grace;
        let ready = if silent { Ready::Unknown } else { Ready::of(&node) };
        let now = work.now();
        if silent && let Some(patch) = plan::silence(&node, now) {
            work.patch_status::<Node>(key, &Patch::Strategic(patch)).await?;
            work.recorder().normal(
                reference(&node),
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", key.name),
            );
        }
        let (eviction, wait) = self.eviction(&node, ready);
        if let Some(taints) = plan::taints(&node, ready, eviction, now) {
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            // The status patch above raised the version; the next round taints.
            match work.patch::<Node>(key, &Patch::Merge(patch)).await {
                Err(Error::Api(e)) if e.is_conflict() && silent => return Ok(Done::Later),
                other => drop(other?),
            }
        }
        if ready != Ready::True {
            self.mark_pods_unready(&node, work).await?;
        }
        let left = grace.saturating_sub(silent_for) + Duration::from_millis(100);
        Ok(if silent { Done::after(wait) } else { Done::After(wait.map_or(left, |w| w.min(left))) })
    }
}

impl NodeLifecycle {
    /// Notes what the node and its lease say; gives how long it has been silent.
    fn note(&self, node: &Node, work: &Work) -> Duration {
        let name = &node.metadata.name;
        let heartbeat = node.condition("Ready").and_then(|c| c.last_heartbeat_time);
        let renewed =
            self.leases.get(&ObjectKey::new(NodeLease::NAMESPACE, name.as_str())).and_then(|l| l.spec.renew_time);
        let mut seen = self.seen();
        let known = seen.nodes.contains_key(name);
        let alive = Instant::now();
        let health = seen.nodes.entry(name.clone()).or_insert(Health { heartbeat, renewed, alive });
        if !known {
            event(work, name, &node.metadata.uid, "RegisteredNode", format!("Registered Node {name} in Controller"));
        }
        if health.heartbeat != heartbeat || renewed != health.renewed {
            (health.heartbeat, health.renewed, health.alive) = (heartbeat, renewed, alive);
        }
        health.alive.elapsed()
    }

    /// Whether the node may be tainted now, and if not, when to ask again.
    fn eviction(&self, node: &Node, ready: Ready) -> (Eviction, Option<Duration>) {
        if ready == Ready::True {
            return (Eviction::Now, None);
        }
        let mut seen = self.seen();
        let zone = plan::zone_key(node);
        let Some(rates) = seen.zones.eviction_rates() else { return (Eviction::Never, None) };
        if node.has_taint(plan::NOT_READY, "NoExecute") || node.has_taint(plan::UNREACHABLE, "NoExecute") {
            return (Eviction::Now, None);
        }
        let rate = rates.get(zone.as_str()).copied().unwrap_or_default();
        if rate <= 0.0 {
            // Woken when the state of a node changes.
            return (Eviction::Later, None);
        }
        let pause = Duration::from_secs_f64(1.0 / rate);
        match seen.tainted.get(&zone).map(|last| pause.saturating_sub(last.elapsed())).filter(|left| !left.is_zero()) {
            Some(left) => (Eviction::Later, Some(left)),
            None => {
                seen.tainted.insert(zone, Instant::now());
                (Eviction::Now, None)
            }
        }
    }

    async fn mark_pods_unready(&self, node: &Node, work: &Work) -> Result<(), Error> {
        // Only once the node's own condition tells since when.
        if Ready::of(node) == Ready::True {
            return Ok(());
        }
        let pods = self.pods.snapshot();
        let stale = plan::to_mark_unready(node, pods.indexed(BY_NODE, &node.metadata.name));
        let now = work.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let marked = join_all(stale.iter().map(|pod| {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            async move { (pod, work.patch_status::<Pod>(&pod.metadata.key(), &Patch::Strategic(patch)).await) }
        }));
        for (pod, result) in marked.await {
            match result {
                Ok(_) => work.recorder().warning(ObjectReference::to(&**pod), "NodeNotReady", "Node is not ready"),
                Err(e) if e.is_race() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn reference(node: &Node) -> ObjectReference {
    ObjectReference::to(node)
}

/// `RecordNodeEvent`.
fn event(work: &Work, name: &str, uid: &str, reason: &str, message: String) {
    let regarding = ObjectReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..ObjectReference::default()
    };
    work.recorder().normal(regarding, reason, format!("Node {name} event: {message}"));
}
