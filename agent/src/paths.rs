//! Where everything of a pod lies on disk. No other module joins these paths by hand.

use std::path::{Path, PathBuf};

use crate::{Options, pod::PodId};

#[derive(Clone, Debug)]
pub struct Paths {
    state: PathBuf,
    logs: PathBuf,
    container_logs: PathBuf,
}

impl Paths {
    pub fn new(options: &Options) -> Self {
        Self {
            state: options.state_dir.clone(),
            logs: options.log_dir.clone(),
            container_logs: options.container_log_dir.clone(),
        }
    }

    pub fn state(&self) -> &Path {
        &self.state
    }
    /// One file per pod address in use.
    pub fn addresses(&self) -> PathBuf {
        self.state.join("addresses")
    }
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }
    /// Of all pods that have a directory here.
    pub fn pod_uids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.pods()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }
    /// Pinned namespaces: `net`, `ipc`, `uts`, `pid`.
    pub fn namespaces(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("ns")
    }
    /// The sandbox's record; see `sandbox::Record`.
    pub fn sandbox_record(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("sandbox.json")
    }
    pub fn hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }
    pub fn hostname(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hostname")
    }
    pub fn resolv_conf(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("resolv.conf")
    }
    /// Memory-backed, shared by the containers of a pod.
    pub fn shm(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("shm")
    }
    /// `volumes/PLUGIN/NAME`, as the kubelet lays them out (`~` in place of `/` in plugin names).
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(plugin.replace('/', "~")).join(name)
    }
    pub fn volume_subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }
    /// Per-container files: termination messages and fifos.
    pub fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }
    pub fn termination_message(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.container(uid, container).join(format!("termination-{attempt}"))
    }
    pub fn fifo(&self, uid: &str, container: &str, attempt: u32, stream: &str) -> PathBuf {
        self.container(uid, container).join(format!("{stream}-{attempt}"))
    }
    /// Where `exec` fifos of any container live; a session takes a directory of its own below it.
    pub fn exec(&self) -> PathBuf {
        self.state.join("exec")
    }

    /// `LOGS/NAMESPACE_NAME_UID`
    pub fn pod_logs(&self, pod: &PodId) -> PathBuf {
        self.logs.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }
    /// `LOGS/NAMESPACE_NAME_UID/CONTAINER/N.log`
    pub fn log(&self, pod: &PodId, container: &str, attempt: u32) -> PathBuf {
        self.pod_logs(pod).join(container).join(format!("{attempt}.log"))
    }
    pub fn logs(&self) -> &Path {
        &self.logs
    }
    pub fn container_logs(&self) -> &Path {
        &self.container_logs
    }
    /// `CONTAINER_LOGS/NAME_NAMESPACE_CONTAINER-ID.log`, a symlink to the log file.
    pub fn log_link(&self, pod: &PodId, container: &str, container_id: &str) -> PathBuf {
        self.container_logs.join(format!("{}_{}_{container}-{container_id}.log", pod.name, pod.namespace))
    }
}
