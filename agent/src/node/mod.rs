//! The Node object: registered once, its status kept true, its lease renewed. Pods are not this module's business.

pub mod facts;
pub mod lease;
pub mod plan;
pub mod thresholds;

use std::{net::IpAddr, sync::Arc, time::Duration};

use api_client::{Api, Cache, Client, ListParams, ObjectKey, Patch, Received, Subscription, events::ObjectReference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{Options, network::netlink::Monitor, pod::Shared};
use facts::Facts;
pub use thresholds::Thresholds;

/// An unchanged status is written this often, so that readers see it is alive (kubelet's `nodeStatusReportFrequency`).
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// How often conditions are looked at (kubelet's `nodeStatusUpdateFrequency`).
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// …and while the node is not ready, because everything waits for it then.
const NOT_READY_LOOK_EVERY: Duration = Duration::from_millis(500);
/// News of addresses are gathered for this long.
const ADDRESS_GATHER: Duration = Duration::from_millis(200);
/// Between tries to register.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("node {node:?}: {action}")]
    Call { node: String, action: &'static str, source: api_client::Error },
    #[error("{0}")]
    Taken(String),
    #[error("no address of this host found; give one with --node-ip")]
    NoAddress,
}

/// Keeps this node's object.
pub struct NodeKeeper {
    api: Api<Node>,
    name: String,
    options: Options,
    shared: Arc<Shared>,
    facts: Facts,
}

impl NodeKeeper {
    pub fn new(client: &Client, options: &Options, shared: Arc<Shared>) -> Self {
        Self {
            api: client.api(),
            name: options.node_name.clone(),
            options: options.clone(),
            facts: Facts::read(shared.runtime.oci_runtime()),
            shared,
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new("", &self.name)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(api_client::Error) -> Error {
        let node = self.name.clone();
        move |source| Error::Call { node, action, source }
    }

    /// Creates the node or takes over the one there is, and writes its first status. Tries until it works, or the name is another's.
    pub async fn register(&self) -> Result<Node, Error> {
        loop {
            match self.try_register().await {
                Ok(node) => return Ok(node),
                // Trying again cannot help, and would go on taking the other's place.
                Err(error @ Error::Taken(_)) => return Err(error),
                Err(error) => {
                    let error = chain(&error);
                    self.options.progress.waits_for(format!("the node to be registered: {error}"));
                    tracing::warn!(error, "node is not registered yet");
                }
            }
            tokio::time::sleep(REGISTER_RETRY).await;
        }
    }

    /// Whether the Node that is there is this machine's.
    async fn check_name(&self, node: &Node) -> Result<(), Error> {
        let renewed =
            lease::renewed_at(self.api.client(), &self.name).await.map_err(self.failed("read the lease of"))?;
        let key = self.own_key();
        match plan::taken(node, key.as_deref(), &self.facts.machine_id, renewed, Timestamp::now()) {
            Some(why) => Err(Error::Taken(why)),
            None => Ok(()),
        }
    }

    /// The hash of the client key of a node that joined by token.
    fn own_key(&self) -> Option<String> {
        let certificates = self.options.certificates.as_ref()?;
        certificates.files.client().pin().map(|pin| pin.to_string())
    }

    async fn try_register(&self) -> Result<Node, Error> {
        let labels = plan::labels(&self.name, &self.options.labels);
        let annotations = plan::annotations(self.own_key().as_deref());
        let node = match self.api.find(&self.key()).await.map_err(self.failed("get"))? {
            Some(node) => {
                self.check_name(&node).await?;
                let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
                let answer = self.api.patch(&self.key(), &Patch::Strategic(patch)).await;
                answer.map(|(updated, _)| updated).or_else(
                    |error| {
                        if error.is_not_found() { Ok(node) } else { Err(error) }
                    },
                )
            }
            None => {
                let object = json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": self.name, "labels": labels, "annotations": annotations},
                    "spec": {"taints": self.options.taints},
                    // With the object, so that schedulers never see a node without resources.
                    "status": self.status(None, Timestamp::now()).await,
                });
                self.api.create_value(&object).await.map(|(node, _)| node)
            }
        };
        let node = node.map_err(self.failed("register"))?;
        // Before the status: a node that has its range already must not be reported as not ready after a restart.
        self.shared.sandboxes.set_pod_ranges(&pod_ranges(&node));
        self.write(&self.status(Some(&node), Timestamp::now()).await).await
    }

    async fn write(&self, status: &Value) -> Result<Node, Error> {
        let patch = json!({"status": status});
        let answer = self.api.patch_status(&self.key(), &Patch::Strategic(patch)).await;
        answer.map(|(node, _)| node).map_err(self.failed("write status"))
    }

    async fn status(&self, before: Option<&Node>, now: Timestamp) -> Value {
        let runtime = &self.shared.runtime;
        let version = runtime.version().await;
        let images = runtime.list_images().await.unwrap_or_default();
        let health = plan::Health {
            runtime: version.as_ref().err().map(|error| chain(error)),
            network: self.shared.sandboxes.network_ready().err().map(|error| chain(&error)),
            memory_available_bytes: facts::memory_available_bytes(),
            disk: facts::disk(&self.options.state_dir),
            pids: facts::pids(),
        };
        plan::status(&plan::Input {
            name: &self.name,
            addresses: &self.shared.node().addresses,
            port: self.options.bind.port(),
            max_pods: self.options.max_pods,
            thresholds: &self.options.thresholds,
            facts: &self.facts,
            runtime_version: version.as_deref().unwrap_or("unknown"),
            images: &images,
            health: &health,
            before: before.and_then(|node| node.status.as_ref()),
            now,
        })
    }

    /// Writes the status when it changes, and every five minutes. The node's own object is watched: pods wait for the
    /// address range a controller gives it, and a node that was deleted is registered again.
    pub async fn keep(self, client: Client, mut node: Node, tasks: TaskTracker) {
        let shutdown = self.shared.shutdown.clone();
        let this = ListParams::default().fields(format!("metadata.name={}", self.name));
        let cache = Cache::<Node>::start(&client, this, &tasks, shutdown.clone());
        let mut changes = cache.subscribe();
        let mut written_at = Instant::now();
        let monitor =
            Monitor::open().map_err(|error| tracing::warn!(%error, "changes of addresses are found late")).ok();
        loop {
            self.take_addresses();
            self.take_range(&node);
            let mut unwritten = None;
            let now = Timestamp::now();
            let status = self.status(Some(&node), now).await;
            if plan::differs(node.status.as_ref(), &status) || written_at.elapsed() >= REPORT_EVERY {
                match self.write(&status).await {
                    Ok(fresh) => (node, written_at) = (fresh, Instant::now()),
                    Err(Error::Call { source, .. }) if source.is_not_found() => {
                        match shutdown.run_until_cancelled(self.register()).await {
                            Some(Ok(fresh)) => (node, written_at) = (fresh, Instant::now()),
                            Some(Err(error)) => tracing::error!("{error}"),
                            None => return,
                        }
                    }
                    Err(error) => {
                        let error = chain(&error);
                        tracing::warn!(error, "node status not written");
                        unwritten = Some(format!("the API server: {error}"));
                    }
                }
            }
            match unwritten.or_else(|| not_ready(&node)) {
                Some(cause) => self.options.progress.waits_for(cause),
                None => self.options.progress.ready(),
            }
            let ranges = pod_ranges(&node);
            // Pods wait for a ready node: until it is, look often.
            let pause = if not_ready(&node).is_none() { LOOK_EVERY } else { NOT_READY_LOOK_EVERY };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = changed(&mut changes, &ranges) => {}
                () = self.moved(monitor.as_ref()) => {}
            }
            if let Some(fresh) = cache.get(&self.key()) {
                node = (*fresh).clone();
            }
        }
    }

    /// Returns when this host has other addresses than its Node.
    async fn moved(&self, monitor: Option<&Monitor>) {
        let Some(monitor) = monitor else { return std::future::pending().await };
        loop {
            if monitor.changed().await.is_err() {
                return std::future::pending().await;
            }
            // A change of addresses is several messages.
            tokio::time::sleep(ADDRESS_GATHER).await;
            if self.new_addresses().is_some() {
                return;
            }
        }
    }

    /// Addresses that differ from those the Node tells. A host that reaches nobody keeps the last one, by which others
    /// know it, and one that was told its address keeps that.
    fn new_addresses(&self) -> Option<Vec<IpAddr>> {
        if self.options.node_ip.is_some() {
            return None;
        }
        let addresses = vec![facts::routed_address()?];
        (addresses != self.shared.node().addresses).then_some(addresses)
    }

    fn take_addresses(&self) {
        if let Some(addresses) = self.new_addresses() {
            tracing::info!(?addresses, "this host has another address");
            self.shared.set_addresses(addresses);
        }
    }

    fn take_range(&self, node: &Node) {
        self.shared.sandboxes.set_pod_ranges(&pod_ranges(node));
    }
}

/// Returns when the node has another address range, or is gone. Other changes, our own status among them, are nothing
/// to act on.
async fn changed(changes: &mut Subscription<Node>, ranges: &[String]) {
    loop {
        match changes.recv().await {
            Some(Received::Change(change)) => match change.new {
                Some(node) if pod_ranges(&node) == ranges => {}
                _ => return,
            },
            Some(Received::Rescan) => return,
            // The cache ends at shutdown only, which the caller waits for as well.
            None => std::future::pending().await,
        }
    }
}

/// The address ranges of a node's pods, the primary first.
pub fn pod_ranges(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.clone().unwrap_or_default();
    if all.is_empty() { spec.pod_cidr.clone().into_iter().collect() } else { all }
}

/// Why the node is not ready, by the status that the server has; absent when it is.
fn not_ready(node: &Node) -> Option<String> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_else(|| "the node to be ready".to_owned())),
        None => Some("the node's first status".to_owned()),
    }
}

/// What events about the node refer to; its name stands in for its uid, as with the kubelet.
pub fn reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        ..ObjectReference::default()
    }
}

/// The address of the interface that leads out of this host.
pub fn own_addresses(options: &Options) -> Result<Vec<IpAddr>, Error> {
    if let Some(address) = options.node_ip {
        return Ok(vec![address]);
    }
    facts::outward_address().map(|address| vec![address]).ok_or(Error::NoAddress)
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
