//! What all pod owners of an agent share.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{admit::Capacity, inbox::Inbox, view::Views};
use crate::{
    Options, cgroup,
    cluster::Cluster,
    guard::Guard,
    image::Images,
    logs::Streams,
    paths::Paths,
    runtime::Runtime,
    sandbox::{Sandboxes, etc},
    spec, volume,
};

/// Everything a pod's owner acts through.
pub struct Shared {
    pub node_name: String,
    pub paths: Paths,
    pub runtime: Runtime,
    pub sandboxes: Sandboxes,
    pub cgroups: cgroup::Tree,
    pub streams: Streams,
    pub cluster: Arc<dyn Cluster>,
    pub guard: Option<Arc<dyn Guard>>,
    pub images: Images,
    pub views: Views,
    pub host: spec::Host,
    /// Replaced when the host's address changes.
    node: Mutex<Arc<etc::Node>>,
    pub node_cpu_milli: i64,
    pub capacity: Capacity,
    /// Changes with every boot of the host.
    pub boot_id: String,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    /// User databases of images by their top layer. Grows with the images used on this node.
    users: Mutex<HashMap<String, Arc<spec::security::UserDatabase>>>,
    /// Whose container an exit event is about.
    containers: Mutex<HashMap<String, Arc<Inbox>>>,
    /// Inboxes of all owners, by pod uid.
    inboxes: Mutex<HashMap<String, Arc<Inbox>>>,
}

impl Shared {
    pub fn new(
        options: &Options,
        runtime: Runtime,
        cluster: Arc<dyn Cluster>,
        node_ips: Vec<IpAddr>,
        shutdown: CancellationToken,
    ) -> Self {
        let paths = Paths::new(options);
        let cgroups = cgroup::Tree::new(&options.cgroup_parent);
        let tasks = TaskTracker::new();
        let images = Images::new(options, &runtime, tasks.clone(), shutdown.clone());
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let host = spec::Host::read(cgroups.version(), options.state_dir.join("seccomp"));
        let node_cpu_milli = cpus as i64 * 1000;
        let kept_free = options.thresholds.memory.of(host.memory_bytes as u64) as i64;
        let memory_bytes = host.memory_bytes - kept_free;
        let capacity = Capacity { pods: options.max_pods.into(), cpu_milli: node_cpu_milli, memory_bytes };
        Self {
            node_name: options.node_name.clone(),
            runtime,
            sandboxes: Sandboxes::new(options, paths.clone()),
            streams: Streams::default(),
            cluster,
            guard: options.guard.clone(),
            images,
            views: Views::new(options.unready.clone()),
            host,
            cgroups,
            node: Mutex::new(Arc::new(etc::Node {
                name: options.node_name.clone(),
                addresses: node_ips,
                cluster_domain: options.cluster_domain.clone(),
                cluster_dns: options.cluster_dns.clone(),
            })),
            node_cpu_milli,
            capacity,
            boot_id: std::fs::read_to_string(&options.boot_id_file).unwrap_or_default().trim().to_owned(),
            tasks,
            shutdown,
            users: Mutex::default(),
            containers: Mutex::default(),
            inboxes: Mutex::default(),
            paths,
        }
    }

    /// This node as it is now.
    pub fn node(&self) -> Arc<etc::Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host has other addresses now.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        *node = Arc::new(etc::Node { addresses, ..etc::Node::clone(&node) });
    }

    pub fn volume_context(&self, pod_ips: &[IpAddr]) -> volume::Context {
        volume::Context {
            paths: self.paths.clone(),
            cluster: self.cluster.clone(),
            node_name: self.node_name.clone(),
            pod_ips: pod_ips.to_vec(),
            host_ips: self.node().addresses.clone(),
            node_cpu_milli: self.node_cpu_milli,
            node_memory_bytes: self.host.memory_bytes,
        }
    }

    pub(super) fn register(&self, container_id: &str, inbox: &Arc<Inbox>) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).insert(container_id.to_owned(), inbox.clone());
    }

    pub(super) fn unregister(&self, container_id: &str) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).remove(container_id);
    }

    pub(super) fn open_inbox(&self, uid: &str, inbox: &Arc<Inbox>) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), inbox.clone());
    }

    pub(super) fn close_inbox(&self, uid: &str) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    pub(super) fn each_inbox(&self, tell: impl Fn(&Inbox)) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|inbox| tell(inbox));
    }

    pub(super) fn owner_of(&self, container_id: &str) -> Option<Arc<Inbox>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).get(container_id).cloned()
    }

    pub(super) fn users(
        &self,
        chain_id: &str,
        rootfs: &[containerd_client::types::Mount],
    ) -> Arc<spec::security::UserDatabase> {
        let known = self.users.lock().unwrap_or_else(PoisonError::into_inner).get(chain_id).cloned();
        known.unwrap_or_else(|| {
            let read = Arc::new(spec::user_database(rootfs));
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.insert(chain_id.to_owned(), read.clone());
            read
        })
    }
}
