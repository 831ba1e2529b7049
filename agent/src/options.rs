//! What an agent is told at start. Everything two agents on one host must not share is an option here.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Taint;
use tokio::sync::watch;

use crate::{certificates::Certificates, guard::Guard, node::Thresholds};

/// Where the node API listens; the kubelet's own port.
pub const NODE_API_PORT: u16 = 10250;
/// The kubelet pulls one by one unless told otherwise, from times when container runtimes could not do more. A large
/// image should not hold up the small one that everything waits for; more than a few only share the same line.
pub const MAX_PARALLEL_IMAGE_PULLS: usize = 4;

#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// containerd's socket.
    pub containerd_address: PathBuf,
    /// containerd namespace that holds our containers, images and snapshots.
    pub containerd_namespace: String,
    pub snapshotter: String,
    /// OCI runtime binary; `None` chooses (see `runtime::options::choose_binary`).
    pub oci_runtime: Option<String>,
    /// Tells one boot of the host from the next.
    pub boot_id_file: PathBuf,
    /// Our own files: pinned namespaces, volumes, pod records.
    pub state_dir: PathBuf,
    /// `NAMESPACE_NAME_UID/CONTAINER/N.log` below it.
    pub log_dir: PathBuf,
    /// Flat symlinks that log collectors read.
    pub container_log_dir: PathBuf,
    /// Address the node registers; `None` takes the address of the default route's interface.
    pub node_ip: Option<IpAddr>,
    /// Set on the Node when it registers.
    pub labels: Vec<(String, String)>,
    /// Set on the Node when it is created; later they are others' affair.
    pub taints: Vec<Taint>,
    /// Pod addresses for the built-in network, used until `spec.podCIDRs` of the Node is set.
    pub pod_cidrs: Vec<String>,
    /// A conflist found here takes over pod networking.
    pub cni_config_dir: PathBuf,
    pub cni_plugin_dirs: Vec<PathBuf>,
    /// Bridge of the built-in network.
    pub bridge: String,
    /// nftables table of pods' host ports on the built-in network.
    pub host_port_table: String,
    /// Below this cgroup (relative to each controller's mount) lies `kubepods`; empty is the top.
    pub cgroup_parent: String,
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
    /// Static pod manifests (YAML or JSON).
    pub manifest_dir: Option<PathBuf>,
    pub max_pods: u32,
    /// Less than this available is a pressure, and the node takes no new pods.
    pub thresholds: Thresholds,
    /// containerd's `certs.d`: mirrors, plain HTTP and certificates of registries.
    pub registry_config_dir: PathBuf,
    /// Registry credentials of the node, in the form of docker's `config.json`; `None` looks where the kubelet does.
    pub registry_credentials: Option<PathBuf>,
    /// Images pulled at the same time; one after the other when 1.
    pub max_parallel_image_pulls: usize,
    /// Archives that appear here are imported.
    pub image_dir: Option<PathBuf>,
    pub image_gc: crate::image::gc::plan::Policy,
    /// Where the node API listens.
    pub bind: SocketAddr,
    /// The certificates of a node that joined by token; they come before the two below.
    pub certificates: Option<Certificates>,
    /// PEM. Certificate and key of the node API; made by the agent itself when absent.
    pub serving_certificate: Option<PathBuf>,
    pub serving_key: Option<PathBuf>,
    /// PEM. Client certificates signed by it are accepted on the node API.
    pub client_ca: Option<PathBuf>,
    /// Program and arguments that run as PID 1 of a shared PID namespace.
    /// `agent::pause()` must be what runs then.
    pub pause_command: Vec<String>,
    /// Protects pods' addresses before containers start.
    pub guard: Option<Arc<dyn Guard>>,
    /// Where the agent tells addresses of its pods that were ready and are no longer, for whoever sends them connections.
    pub unready: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    /// Where the agent tells how far it is.
    pub progress: crate::Progress,
}

impl Options {
    pub fn new(node_name: impl Into<String>) -> Self {
        let pause = std::env::current_exe().map(|exe| exe.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            node_name: node_name.into(),
            containerd_address: "/run/containerd/containerd.sock".into(),
            containerd_namespace: "k8s.io".into(),
            snapshotter: "overlayfs".into(),
            oci_runtime: None,
            boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
            state_dir: "/var/lib/keelson/agent".into(),
            log_dir: "/var/log/pods".into(),
            container_log_dir: "/var/log/containers".into(),
            node_ip: None,
            labels: Vec::new(),
            taints: Vec::new(),
            pod_cidrs: Vec::new(),
            cni_config_dir: "/etc/cni/net.d".into(),
            cni_plugin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into(), "/usr/libexec/cni".into()],
            bridge: "keelson0".into(),
            host_port_table: "keelson-host-ports".into(),
            cgroup_parent: String::new(),
            cluster_domain: "cluster.local".into(),
            cluster_dns: Vec::new(),
            manifest_dir: None,
            max_pods: 110,
            thresholds: Thresholds::default(),
            registry_config_dir: "/etc/containerd/certs.d".into(),
            registry_credentials: None,
            max_parallel_image_pulls: MAX_PARALLEL_IMAGE_PULLS,
            image_dir: None,
            image_gc: crate::image::gc::plan::Policy::default(),
            bind: SocketAddr::from(([0, 0, 0, 0], NODE_API_PORT)),
            certificates: None,
            serving_certificate: None,
            serving_key: None,
            client_ca: None,
            pause_command: vec![pause, "pause".into()],
            guard: None,
            unready: watch::Sender::default(),
            progress: crate::Progress::default(),
        }
    }
}
