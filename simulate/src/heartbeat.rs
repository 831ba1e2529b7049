//! Nodes as such: they are registered, say that they are ready, and renew their leases, spread evenly over the
//! heartbeat so that thousands of nodes make a steady stream of small writes.

use std::collections::BTreeMap;
use std::time::Duration;

use api_client::{Api, Cache, Client, Error, ListParams, Metadata, ObjectKey, Patch};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::objects;
use crate::options::{Options, Shape, Timing};

/// Requests on their way at once.
const REQUESTS_MAX: usize = 32;
/// Shortest pause between two rounds of renewals; one round renews as many leases as are due.
const ROUND_MIN: Duration = Duration::from_millis(100);
/// Pause before a registration that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Node {
    name: String,
    /// Empty until registered.
    uid: String,
    address: std::net::Ipv4Addr,
    /// An operator removed it: it stays away, as a kubelet's does until it starts again.
    removed: bool,
}

pub struct Nodes {
    nodes: Vec<Node>,
    writer: Writer,
}

struct Writer {
    shape: Shape,
    timing: Timing,
    node_api: Api<v1::Node>,
    lease_api: Api<Lease>,
    /// What the API server has of the nodes: others may have judged them while their leases went unseen.
    seen: Cache<objects::Node>,
    _end_cache: DropGuard,
}

impl Nodes {
    pub fn new(client: &Client, options: &Options) -> Self {
        let node = |(index, name): (usize, &String)| Node {
            name: name.clone(),
            uid: String::new(),
            address: options.node_address(index),
            removed: false,
        };
        let stop = CancellationToken::new();
        let params = match options.names.as_slice() {
            [name] => ListParams::default().fields(format!("metadata.name={name}")),
            _ => ListParams::default(),
        };
        Self {
            nodes: options.names.iter().enumerate().map(node).collect(),
            writer: Writer {
                seen: Cache::start(client, params, &TaskTracker::new(), stop.clone()),
                _end_cache: stop.drop_guard(),
                shape: options.shape.clone(),
                timing: options.timing.clone(),
                node_api: client.api(),
                lease_api: client.api(),
            },
        }
    }

    /// Registers all nodes and renews their leases for ever.
    pub async fn run(self) {
        let Self { mut nodes, writer } = self;
        stream::iter(&mut nodes).for_each_concurrent(REQUESTS_MAX, |node| writer.register(node)).await;
        let count = u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX);
        let pause = (writer.timing.heartbeat / count).max(ROUND_MIN);
        let share = pause.as_secs_f64() / writer.timing.heartbeat.as_secs_f64().max(f64::MIN_POSITIVE);
        let per_round = (f64::from(count) * share).ceil().clamp(1.0, f64::from(count)) as usize;
        let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for round in nodes.chunks_mut(per_round) {
                rounds.tick().await;
                stream::iter(round).for_each_concurrent(REQUESTS_MAX, |node| writer.renew(node)).await;
            }
            if nodes.is_empty() {
                rounds.tick().await;
            }
        }
    }
}

impl Writer {
    async fn register(&self, node: &mut Node) {
        while let Err(error) = self.try_register(node).await {
            debug!(node = node.name, %error, "registration failed; will try again");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_register(&self, node: &mut Node) -> Result<(), Error> {
        let key = ObjectKey::new("", node.name.as_str());
        let present = match self.node_api.create_value(&self.node(node)).await {
            Ok((created, _)) => created,
            Err(error) if error.is_already_exists() => self.node_api.get(&key).await?,
            Err(error) => return Err(error),
        };
        node.uid = present.metadata.uid().to_owned();
        let fresh = present.status.as_ref().and_then(|s| s.conditions.as_ref()).is_none_or(Vec::is_empty);
        if fresh || !is_ready(&present) {
            self.node_api.patch_status(&key, &Patch::Strategic(self.status(node))).await?;
        }
        match self.lease_api.create_value(&self.lease(node)).await {
            Err(error) if error.is_already_exists() => self.touch(node).await,
            other => other.map(drop),
        }
    }

    async fn renew(&self, node: &mut Node) {
        if node.removed {
            return;
        }
        if let Err(error) = self.try_renew(node).await {
            debug!(node = node.name, %error, "renewal failed");
        }
    }

    async fn try_renew(&self, node: &mut Node) -> Result<(), Error> {
        match self.touch(node).await {
            Err(error) if error.is_not_found() => {
                let key = ObjectKey::new("", node.name.as_str());
                node.removed = self.node_api.find(&key).await?.is_none_or(|n| n.metadata.uid() != node.uid);
                if node.removed {
                    return Ok(());
                }
                self.lease_api.create_value(&self.lease(node)).await?;
            }
            other => other?,
        }
        let key = ObjectKey::new("", node.name.as_str());
        if self.seen.get(&key).is_some_and(|seen| !seen.is_ready && seen.metadata.uid == node.uid) {
            self.node_api.patch_status(&key, &Patch::Strategic(self.status(node))).await?;
        }
        Ok(())
    }

    async fn touch(&self, node: &Node) -> Result<(), Error> {
        let key = ObjectKey::new("kube-node-lease", node.name.as_str());
        let patch =
            Patch::Merge(json!({ "spec": { "holderIdentity": node.name, "renewTime": micro(Timestamp::now()) } }));
        self.lease_api.patch(&key, &patch).await.map(drop)
    }

    fn node(&self, node: &Node) -> Value {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), node.name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ]);
        labels.extend(self.shape.labels.clone());
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": node.name, "labels": labels },
            "spec": { "taints": self.shape.taints },
        })
    }

    fn status(&self, node: &Node) -> Value {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "simulated",
                "lastHeartbeatTime": time, "lastTransitionTime": time,
            })
        };
        json!({ "status": {
            "capacity": self.shape.resources, "allocatable": self.shape.resources,
            "addresses": [
                { "type": "InternalIP", "address": node.address },
                { "type": "Hostname", "address": node.name },
            ],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "simulated", "osImage": "simulated",
                "containerRuntimeVersion": "simulated://1", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        } })
    }

    /// Owned by its node, so that it goes with it.
    fn lease(&self, node: &Node) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": node.name, "namespace": "kube-node-lease",
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid }],
            },
            "spec": {
                "holderIdentity": node.name, "renewTime": micro(Timestamp::now()),
                "leaseDurationSeconds": self.timing.lease_duration.as_secs(),
            },
        })
    }
}

fn is_ready(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
