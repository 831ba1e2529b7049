//! Cgroups of the node, its quality-of-service classes and its pods, by direct I/O on cgroupfs. Containers' own cgroups
//! below a pod's are made by the OCI runtime.
//!
//! Version 1 has a tree per controller, version 2 one tree; both have the same shape below the parent:
//! `kubepods/[burstable/|besteffort/]podUID`. A hybrid host counts as version 1.

pub mod usage;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use usage::Usage;

use crate::pod::resources::{CPU_PERIOD_US, Qos, Resources};

/// Controllers whose limits we set; on version 1 the other trees get our directories from the OCI runtime.
const CONTROLLERS_V1: [&str; 3] = ["cpu", "memory", "pids"];
const CONTROLLERS_V2: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];
const BEST_EFFORT_SHARES: u64 = 2;

#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// Processes are still in the cgroup.
    pub fn is_busy(&self) -> bool {
        self.source.kind() == io::ErrorKind::ResourceBusy
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// Where this agent's cgroups lie.
#[derive(Clone, Debug)]
pub struct Tree {
    version: Version,
    mount: PathBuf,
    /// Relative to a controller's root; empty or like `/keelson-test`.
    parent: String,
}

impl Tree {
    pub fn new(parent: &str) -> Self {
        Self::at(Path::new("/sys/fs/cgroup"), parent)
    }

    /// For tests, with any directory in place of cgroupfs.
    pub fn at(mount: &Path, parent: &str) -> Self {
        let version = if mount.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        let parent = parent.trim_matches('/');
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        Self { version, mount: mount.to_owned(), parent }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// `cgroupsPath` of a pod; a container's lies below it.
    pub fn pod_path(&self, qos: Qos, uid: &str) -> String {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{class}/pod{uid}", self.parent)
    }

    fn directory(&self, controller: &str, path: &str) -> PathBuf {
        let root = match self.version {
            Version::V1 => self.mount.join(controller),
            Version::V2 => self.mount.clone(),
        };
        root.join(path.trim_start_matches('/'))
    }

    /// Makes `kubepods` and the classes below it.
    pub fn ensure_classes(&self, node_cpu_milli: i64) -> Result<(), Error> {
        let node = Resources { cpu_request_milli: Some(node_cpu_milli), ..Resources::default() };
        let root = format!("{}/kubepods", self.parent);
        self.create(&root)?;
        self.set_shares(&root, node.cpu_shares())?;
        self.create(&format!("{root}/besteffort"))?;
        self.set_shares(&format!("{root}/besteffort"), BEST_EFFORT_SHARES)?;
        self.create(&format!("{root}/burstable"))
    }

    /// The class as a whole competes with what its pods request together.
    pub fn set_burstable_shares(&self, requested_milli: i64) -> Result<(), Error> {
        let sum = Resources { cpu_request_milli: Some(requested_milli), ..Resources::default() };
        self.set_shares(&format!("{}/kubepods/burstable", self.parent), sum.cpu_shares())
    }

    /// Makes the pod's cgroup and sets its limits. Safe to repeat.
    pub fn create_pod(&self, qos: Qos, uid: &str, resources: Resources) -> Result<(), Error> {
        let path = self.pod_path(qos, uid);
        self.create(&path)?;
        self.set_shares(&path, resources.cpu_shares())?;
        let quota = resources.cpu_quota_us();
        let memory = resources.memory_limit();
        match self.version {
            Version::V1 => {
                let quota = quota.unwrap_or(-1).to_string();
                self.write("cpu", &path, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                self.write("cpu", &path, "cpu.cfs_quota_us", &quota)?;
                self.write("memory", &path, "memory.limit_in_bytes", &memory.unwrap_or(-1).to_string())
            }
            Version::V2 => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                self.write("cpu", &path, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
                let memory = memory.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
                self.write("memory", &path, "memory.max", &memory)
            }
        }
    }

    fn create(&self, path: &str) -> Result<(), Error> {
        match self.version {
            Version::V1 => CONTROLLERS_V1.iter().try_for_each(|controller| {
                // A kernel without this controller has no limit to set either.
                if self.mount.join(controller).is_dir() { make(&self.directory(controller, path)) } else { Ok(()) }
            }),
            Version::V2 => {
                // Every level must hand its controllers down before the next level can use them.
                let mut at = self.mount.clone();
                for part in path.split('/').filter(|part| !part.is_empty()) {
                    self.delegate(&at)?;
                    at.push(part);
                    make(&at)?;
                }
                self.delegate(&at)
            }
        }
    }

    fn delegate(&self, directory: &Path) -> Result<(), Error> {
        let read = |file: &str| {
            let path = directory.join(file);
            std::fs::read_to_string(&path).map_err(|source| Error { action: "read", path, source })
        };
        let (available, enabled) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
        let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
        let missing = CONTROLLERS_V2.iter().filter(|name| has(&available, name) && !has(&enabled, name));
        let missing = missing.map(|name| format!("+{name}")).collect::<Vec<_>>();
        if missing.is_empty() {
            return Ok(());
        }
        let path = directory.join("cgroup.subtree_control");
        std::fs::write(&path, missing.join(" ")).map_err(|source| Error {
            action: "enable controllers in",
            path,
            source,
        })
    }

    fn set_shares(&self, path: &str, shares: u64) -> Result<(), Error> {
        match self.version {
            Version::V1 => self.write("cpu", path, "cpu.shares", &shares.to_string()),
            Version::V2 => self.write("cpu", path, "cpu.weight", &weight(shares).to_string()),
        }
    }

    fn write(&self, controller: &str, path: &str, file: &str, value: &str) -> Result<(), Error> {
        let path = self.directory(controller, path).join(file);
        if !path.exists() {
            // Controller not mounted or not enabled: the kernel can't enforce this limit.
            return Ok(());
        }
        std::fs::write(&path, value).map_err(|source| Error { action: "write", path, source })
    }

    /// Removes a pod's cgroup in every tree, whatever its class. Containers must be gone; a process that is in it all
    /// the same (of a start that an agent's end interrupted) is killed, and the call fails once more as busy.
    pub fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let path = self.pod_path(qos, uid);
            let removed = self.remove(&path);
            if removed.as_ref().is_err_and(Error::is_busy) {
                self.roots().iter().for_each(|root| kill_tree(&root.join(path.trim_start_matches('/'))));
            }
            removed?;
        }
        Ok(())
    }

    /// Removes `kubepods` and, if it is ours alone, the parent.
    pub fn remove_all(&self) -> Result<(), Error> {
        self.remove(&format!("{}/kubepods", self.parent))?;
        if self.parent.is_empty() { Ok(()) } else { self.remove(&self.parent) }
    }

    fn remove(&self, path: &str) -> Result<(), Error> {
        for root in self.roots() {
            remove_tree(&root.join(path.trim_start_matches('/')))?;
        }
        Ok(())
    }

    /// All trees: on version 1 the OCI runtime makes our directories under controllers we don't use as well.
    fn roots(&self) -> Vec<PathBuf> {
        if self.version == Version::V2 {
            return vec![self.mount.clone()];
        }
        let entries = std::fs::read_dir(&self.mount).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
    }

    /// Fails when the processes of a container use more memory than the limit it shall get: on version 2 the kernel would
    /// kill them, on version 1 it refuses.
    pub fn check_memory(&self, path: &str, resources: Resources) -> Result<(), Error> {
        let Some(limit) = resources.memory_limit() else { return Ok(()) };
        let file = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let path = self.directory("memory", path).join(file);
        let used = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        if used <= limit {
            return Ok(());
        }
        let source = io::Error::other(format!("{used} bytes are in use, the new limit is {limit}"));
        Err(Error { action: "lower the memory limit of", path, source })
    }

    /// How many processes of a container the kernel has killed for memory; the cgroup must still exist.
    pub fn oom_kills(&self, cgroup_path: &str) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = std::fs::read_to_string(self.directory("memory", cgroup_path).join(file)).unwrap_or_default();
        let count = |line: &str| line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse().ok());
        text.lines().find_map(count).unwrap_or(0)
    }
}

/// The weight version 2 has for shares of version 1, as OCI runtimes convert them.
fn weight(shares: u64) -> u64 {
    1 + (shares.saturating_sub(2) * 9999) / 262_142
}

fn make(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error { action: "create cgroup", path: path.to_owned(), source })
}

/// Directories only, deepest first: files of cgroupfs vanish with theirs.
fn remove_tree(path: &Path) -> Result<(), Error> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| Error { action: "list cgroup", path: path.to_owned(), source })?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error { action: "remove cgroup", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Kills every process in the cgroup and below it.
fn kill_tree(path: &Path) {
    // What cannot be read is gone.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_tree(&entry.path());
        }
    }
    let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        tracing::warn!(pid, cgroup = %path.display(), "killing a process that no container accounts for");
        if let Err(error) = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL) {
            tracing::debug!(pid, %error, "not killed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Tree, weight};
    use crate::pod::resources::{Qos, Resources};

    fn read(root: &Path, file: &str) -> String {
        fs::read_to_string(root.join(file)).unwrap()
    }

    #[test]
    fn version_1_writes_limits_of_a_pod_into_each_tree() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::at(root.path(), "/test");
        let path = tree.pod_path(Qos::Burstable, "u1");
        assert_eq!(path, "/test/kubepods/burstable/podu1");
        for (controller, files) in [
            ("cpu", vec!["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"]),
            ("memory", vec!["memory.limit_in_bytes"]),
        ] {
            let directory = root.path().join(controller).join(&path[1..]);
            fs::create_dir_all(&directory).unwrap();
            for file in files {
                fs::write(directory.join(file), "").unwrap();
            }
        }
        let resources = Resources {
            cpu_request_milli: Some(500),
            cpu_limit_milli: Some(1500),
            memory_request_bytes: None,
            memory_limit_bytes: Some(64 << 20),
        };
        tree.create_pod(Qos::Burstable, "u1", resources).unwrap();
        assert_eq!(read(root.path(), "cpu/test/kubepods/burstable/podu1/cpu.shares"), "512");
        assert_eq!(read(root.path(), "cpu/test/kubepods/burstable/podu1/cpu.cfs_quota_us"), "150000");
        assert_eq!(read(root.path(), "memory/test/kubepods/burstable/podu1/memory.limit_in_bytes"), "67108864");
    }

    #[test]
    fn shares_and_weights_meet_at_the_ends() {
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }
}
