//! Volumes of a pod: prepared before its first container, refreshed while it runs, removed after its last.
//!
//! Everything is derived from the pod and from what lies on disk, so preparing again after a restart changes nothing
//! that is right already. What a secret or token says is kept in memory-backed mounts only.

mod atomic;
mod content;
mod host_path;
mod ownership;
mod scratch;
mod token;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, Volume as Declared};

use crate::{
    cluster::Cluster,
    paths::Paths,
    sandbox::mounts::{self, remove_tree},
};

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
    #[error("remove volumes of pod {uid}")]
    Remove { uid: String, source: mounts::Error },
}

/// What volumes need to know besides the pod.
#[derive(Clone)]
pub struct Context {
    pub paths: Paths,
    pub cluster: Arc<dyn Cluster>,
    pub node_name: String,
    pub pod_ips: Vec<std::net::IpAddr>,
    pub host_ips: Vec<std::net::IpAddr>,
    /// What a container's limit is when it has none.
    pub node_cpu_milli: i64,
    pub node_memory_bytes: i64,
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
pub async fn prepare(pod: &Pod, context: &Context) -> Result<Volumes, Error> {
    let mut prepared = Volumes::new();
    for declared in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        prepared.insert(declared.name.clone(), prepare_one(pod, declared, context).await?);
    }
    Ok(prepared)
}

async fn prepare_one(pod: &Pod, declared: &Declared, context: &Context) -> Result<Volume, Error> {
    let name = declared.name.as_str();
    if let Some(host_path) = &declared.host_path {
        let host_path = host_path::prepare(name, host_path)?;
        return Ok(Volume { host_path, read_only: false });
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group);
    if let Some(empty_dir) = &declared.empty_dir {
        let path = context.paths.volume(uid, "kubernetes.io/empty-dir", name);
        scratch::prepare_empty_dir(name, &path, empty_dir, group)?;
        return Ok(Volume { host_path: path, read_only: false });
    }
    let Some((plugin, content)) = content::of(pod, declared, context).await? else {
        let problem = format!("its type is not supported by this agent: {}", type_name(declared));
        return Err(Error::Unsupported { volume: name.to_owned(), problem });
    };
    let path = context.paths.volume(uid, plugin, name);
    scratch::prepare_memory_dir(name, &path)?;
    let files = content.files;
    atomic::write(&path, &files, group).map_err(|(action, path, source)| Error::Io {
        volume: name.to_owned(),
        action,
        path,
        source,
    })?;
    Ok(Volume { host_path: path, read_only: true })
}

/// The field of the volume that is set, for the message about one that is not supported.
fn type_name(declared: &Declared) -> String {
    let value = serde_json::to_value(declared).unwrap_or_default();
    let keys = value.as_object().into_iter().flat_map(|fields| fields.keys());
    keys.filter(|key| *key != "name").map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Unmounts and removes every volume of the pod. Safe to repeat; the pod may be known by its uid only.
pub async fn remove(uid: &str, paths: &Paths) -> Result<(), Error> {
    let volumes = paths.pod(uid).join("volumes");
    remove_tree(&volumes).map_err(|source| Error::Remove { uid: uid.to_owned(), source })
}

#[cfg(test)]
mod tests;
