//! A cluster in one process: the real API server on the memory store, the real controllers, and nodes whose kubelet and
//! scheduler are a few lines. Time is paused, so waiting for a minute takes none; a test that waits for something that
//! never comes fails at [`PATIENCE`].

use std::sync::Arc;
use std::time::Duration;

use api_client::transport::InProcess;
use api_client::{Cache, Client, DeleteParams, ListParams, Object, ObjectKey, Patch, Snapshot};
use apiserver::{ApiServer, Peer, User};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long (in paused time) a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(3600);

pub struct World {
    pub client: Client,
    pub server: ApiServer,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl World {
    /// Server and controllers.
    pub async fn start() -> Self {
        let world = Self::without_controllers().await;
        let options = reconciler::Options {
            cluster_cidrs: vec!["10.244.0.0/16".into()],
            root_ca: Some("the root".into()),
            ..reconciler::Options::default()
        };
        let client = world.client.with_user_agent("reconciler");
        let run = reconciler::run(client, options, world.shutdown.clone());
        world.tasks.spawn(async move { run.await.expect("the controllers end in good order") });
        world
    }

    pub async fn without_controllers() -> Self {
        let store = Arc::new(store_client::memory::Memory::new());
        let server = ApiServer::start(apiserver::Options::default(), store).await.expect("the server starts");
        let callee = server.clone();
        let call = move |request: http::Request<bytes::Bytes>| {
            let server = callee.clone();
            let body = |bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
            let peer = Peer::Component(User::new("system:admin", &["system:masters"]));
            async move { server.call(request.map(body), peer).await }.boxed()
        };
        let client = Client::new(Arc::new(InProcess::new(Arc::new(call))), "tests");
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let world = Self { client, server, tasks, shutdown };
        world
            .until::<k8s_openapi::api::core::v1::Namespace>("default", |n| {
                n.get(&ObjectKey::new("", "default")).is_some()
            })
            .await;
        world
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.server.stop().await;
    }

    pub fn cache<T: Object>(&self) -> Cache<T> {
        Cache::start(&self.client, ListParams::default(), &self.tasks, self.shutdown.clone())
    }

    /// Waits until all objects of a kind are as wanted; `what` names it in the failure.
    pub async fn until<T: Object>(&self, what: &str, wanted: impl Fn(&Snapshot<T>) -> bool) {
        let cache = self.cache::<T>();
        let reached = cache.wait_until(wanted);
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            let names: Vec<String> = cache.snapshot().keys().map(ToString::to_string).collect();
            panic!("{what}: not reached; there are {} {}: {names:?}", names.len(), T::PLURAL);
        }
    }

    pub async fn create(&self, object: Value) {
        let (group, version) = api::meta::split_api_version(object["apiVersion"].as_str().unwrap());
        let kind = object["kind"].as_str().unwrap();
        let discovery = api_client::discovery::read(&self.client).await.expect("discovery");
        let served = discovery.of_kind(group, kind).unwrap_or_else(|| panic!("{group}/{version} {kind} is served"));
        let api = self.client.api_at::<api_client::PartialObject>(served.gvr.clone());
        api.create_value(&object).await.unwrap_or_else(|e| panic!("create {kind}: {e}"));
    }

    pub async fn patch<T: Object>(&self, key: &ObjectKey, patch: Value) {
        self.client.api::<T>().patch(key, &Patch::Strategic(patch)).await.expect("the patch applies");
    }

    pub async fn delete<T: Object>(&self, key: &ObjectKey, params: DeleteParams) {
        self.client.api::<T>().delete(key, &params).await.expect("the deletion is accepted");
    }

    /// A ready node whose kubelet runs every pod that is bound to it, and a scheduler that binds all pods to it.
    pub async fn node(&self, name: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})).await;
        let conditions = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]);
        let status = json!({"status": {"conditions": conditions}});
        let nodes = self.client.api::<k8s_openapi::api::core::v1::Node>();
        nodes.patch_status(&ObjectKey::new("", name), &Patch::Strategic(status)).await.expect("the node is ready");
        self.tasks.spawn({
            let (pods, client, node) = (self.cache::<Pod>(), self.client.clone(), name.to_owned());
            let shutdown = self.shutdown.clone();
            async move { shutdown.run_until_cancelled(kubelet(pods, client, node)).await }
        });
    }
}

/// Binds, runs and ends pods.
async fn kubelet(pods: Cache<Pod>, client: Client, node: String) {
    let mut changes = pods.subscribe();
    let mut addresses = 0u32;
    loop {
        for pod in pods.snapshot().iter() {
            serve(pod, &client, &node, &mut addresses).await;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

async fn serve(pod: &Pod, client: &Client, node: &str, addresses: &mut u32) {
    let api = client.api::<Pod>();
    let key = pod.key();
    let assigned = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    // Any of these may lose a race with a deletion; the next change shows what is left to do.
    if pod.metadata.deletion_timestamp.is_some() && assigned == Some(node) {
        let now = DeleteParams::uid(pod.metadata.uid.clone().unwrap()).grace_period_seconds(0);
        drop(api.delete(&key, &now).await);
    } else if assigned.is_none() {
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": key.name}, "target": target});
        drop(api.post_subresource::<Value>(&key, "binding", &binding).await);
    } else if assigned == Some(node) && phase == "Pending" {
        *addresses += 1;
        let ip = format!("10.244.{}.{}", *addresses / 250, *addresses % 250 + 1);
        let status = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        drop(api.patch_status(&key, &Patch::Strategic(json!({"status": status}))).await);
    }
}

impl World {
    /// All objects of a kind, now.
    pub async fn cache_synced<T: Object>(&self) -> Arc<Snapshot<T>> {
        let cache = self.cache::<T>();
        cache.synced().await;
        cache.snapshot()
    }

    /// Renews a node's lease until the returned token is cancelled.
    pub fn renew_lease(&self, node: &str) -> CancellationToken {
        let token = self.shutdown.child_token();
        let (client, key) = (self.client.clone(), ObjectKey::new("kube-node-lease", node));
        let renew = async move {
            let leases = client.api::<k8s_openapi::api::coordination::v1::Lease>();
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": key.name, "namespace": key.namespace}, "spec": {"holderIdentity": key.name},
            });
            leases.create_value(&lease).await.expect("the lease is made");
            for beat in 0u64.. {
                tokio::time::sleep(Duration::from_secs(10)).await;
                let time = format!("2026-01-01T{:02}:{:02}:{:02}.000000Z", beat / 3600 % 24, beat / 60 % 60, beat % 60);
                let patch = Patch::Merge(json!({"spec": {"renewTime": time}}));
                leases.patch(&key, &patch).await.expect("the lease is renewed");
            }
        };
        let ended = token.clone();
        self.tasks.spawn(async move { ended.run_until_cancelled_owned(renew).await });
        token
    }
}
