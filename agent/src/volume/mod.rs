//! Volumes of a pod: prepared before its first container, refreshed while it runs, removed after its last.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use crate::{cluster::Cluster, paths::Paths};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("volume {volume:?}: {problem}")]
    Unsupported { volume: String, problem: String },
    #[error("volume {volume:?}: {action} {}", path.display())]
    Io { volume: String, action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("volume {volume:?}")]
    Cluster { volume: String, source: crate::cluster::Error },
    /// A referenced object is missing; retried until it appears.
    #[error("volume {volume:?}: {kind} {name:?} not found")]
    Missing { volume: String, kind: &'static str, name: String },
}

/// What volumes need to know besides the pod.
#[derive(Clone)]
pub struct Context {
    pub paths: Paths,
    pub cluster: Arc<dyn Cluster>,
    pub node_name: String,
    pub pod_ips: Vec<std::net::IpAddr>,
    pub host_ips: Vec<std::net::IpAddr>,
}

/// One prepared volume: what a container's `volumeMounts` bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub host_path: PathBuf,
    /// Nothing may write through it, whatever the mount asks for (configMap, secret, projected, downward API).
    pub read_only: bool,
}

/// Prepared volumes by name.
pub type Volumes = BTreeMap<String, Volume>;

/// Makes every volume of the pod ready. Safe to repeat; also called to refresh contents.
pub async fn prepare(_pod: &Pod, _context: &Context) -> Result<Volumes, Error> {
    Ok(Volumes::new())
}

/// Unmounts and removes every volume of the pod. Safe to repeat; the pod may be known by its uid only.
pub async fn remove(_uid: &str, _paths: &Paths) -> Result<(), Error> {
    Ok(())
}
