//! Pod sandboxes: pinned namespaces, the pod network, and the files every container of the pod shares.
//!
//! A sandbox is known by its record on disk plus the pins in the kernel. Records survive a reboot and pins don't, so a
//! record without its pins is a sandbox that is lost: it is torn down and made again.

pub mod cni;
pub mod etc;
pub mod mend;
pub mod mounts;
pub mod namespaces;
pub mod pid;
mod recover;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    network::{
        self, Range,
        bandwidth::{self, Bandwidth},
        bridge,
        host_ports::{self, HostPorts, Ports},
        range,
    },
    paths::Paths,
    pod::PodId,
};
use namespaces::Namespace;

/// Size of a pod's `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Namespaces(#[from] namespaces::Error),
    #[error(transparent)]
    Network(#[from] cni::Error),
    #[error(transparent)]
    Bridge(#[from] bridge::Error),
    #[error(transparent)]
    Nodes(#[from] network::act::Error),
    #[error(transparent)]
    Range(#[from] range::Error),
    #[error(transparent)]
    HostPorts(#[from] host_ports::Error),
    #[error(transparent)]
    Bandwidth(#[from] bandwidth::Error),
    #[error("the node has no pod address range yet")]
    NoPodRange,
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("sandbox record {}", path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("sandbox record {} has version {version}, which is later than {RECORD_VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("process {process} runs in the host's {namespace} namespace, not in one of the pod")]
    NotItsOwn { process: u32, namespace: String },
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
    #[error(transparent)]
    Pid(#[from] pid::Error),
}

/// Of the record's form. A record of a later version is like one that is lost.
const RECORD_VERSION: u32 = 1;

/// What is kept on disk about a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 0 in records from before there were versions, which have the form of version 1.
    #[serde(default)]
    pub version: u32,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `None` until the sandbox is complete.
    pub ready_at: Option<Timestamp>,
    /// Of the pod network, or the node's for host-network pods.
    pub addresses: Vec<IpAddr>,
    pub hostname: String,
    pub namespaces: Vec<String>,
    /// `None` for host-network pods.
    pub attachment: Option<Attachment>,
}

/// How a pod is attached to the network, with all that is needed to detach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Attachment {
    /// The built-in network, with the pod's host ports.
    Bridge {
        bridge: bridge::Bridge,
        #[serde(default)]
        ports: Vec<cni::PortMapping>,
        #[serde(default)]
        bandwidth: Bandwidth,
        /// How earlier versions opened host ports, for records of theirs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_ports: Option<cni::Attachment>,
    },
    /// What the host's own configuration says.
    Cni(cni::Attachment),
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    version: u32,
}

impl Record {
    pub fn pod_id(&self) -> PodId {
        PodId { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }
}

/// Makes and removes the sandboxes of this node.
#[derive(Clone)]
pub struct Sandboxes {
    paths: Paths,
    plugins: cni::Plugins,
    config_dir: PathBuf,
    bridge: String,
    pause_command: Vec<String>,
    /// Of the link that leads to other nodes.
    mtu: u32,
    /// The node's own pod range; set once known.
    pod_ranges: Arc<Mutex<Vec<String>>>,
    pub host_ports: Arc<HostPorts>,
}

impl Sandboxes {
    pub fn new(options: &Options, paths: Paths) -> Self {
        Self {
            paths,
            plugins: cni::Plugins { directories: options.cni_plugin_dirs.clone() },
            config_dir: options.cni_config_dir.clone(),
            bridge: options.bridge.clone(),
            pause_command: options.pause_command.clone(),
            mtu: network::link_mtu(options),
            pod_ranges: Arc::new(Mutex::new(options.pod_cidrs.clone())),
            host_ports: Arc::new(HostPorts::new(&options.host_port_table, &options.bridge)),
        }
    }

    /// One range or, for pods with two addresses, one of each family. Nothing changes while there are none.
    pub fn set_pod_ranges(&self, ranges: &[String]) {
        if !ranges.is_empty() {
            ranges.clone_into(&mut self.pod_ranges.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Is there a network to attach pods to? What the node's Ready condition reports.
    pub fn network_ready(&self) -> Result<(), Error> {
        match cni::on_host(&self.config_dir)? {
            Some(_) => Ok(()),
            None => self.bridge().map(drop),
        }
    }

    /// Tells of a range that is not the built-in network's alone: its pods may then not be reached.
    pub fn warn_of_rival(&self) {
        let built_in = matches!(cni::on_host(&self.config_dir), Ok(None));
        if built_in
            && let Ok(bridge) = self.bridge()
            && let Some((interface, address)) = bridge.rival()
        {
            tracing::warn!(
                range = %bridge.range, interface, %address,
                "the pod address range of this node is in use by another interface: pods may not be reached; \
                 give each server on a host its own --pod-cidr, and run `keelson cleanup` for servers that are gone"
            );
        }
    }

    fn bridge(&self) -> Result<bridge::Bridge, Error> {
        let ranges = self.pod_ranges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let range = Range::parse(ranges.first().ok_or(Error::NoPodRange)?)?;
        let second = ranges.get(1).map(|range| Range::parse(range)).transpose()?;
        Ok(bridge::Bridge { name: self.bridge.clone(), range, second, directory: self.paths.addresses() })
    }

    /// Plans the attachment of a pod, and reserves its address where that is ours to do.
    fn plan_attachment(&self, pod: cni::Pod) -> Result<(Attachment, Vec<IpAddr>), Error> {
        if let Some(network) = cni::on_host(&self.config_dir)? {
            return Ok((Attachment::Cni(cni::Attachment { network, pod, result: None }), Vec::new()));
        }
        let bridge = self.bridge()?;
        let addresses = bridge.reserve(&pod.uid)?;
        let (ports, bandwidth) = (pod.port_mappings, pod.bandwidth);
        Ok((Attachment::Bridge { bridge, ports, bandwidth, host_ports: None }, addresses))
    }

    /// Gives back addresses of pods that have no directory here.
    pub fn sweep(&self) -> Result<(), Error> {
        match self.bridge() {
            Ok(bridge) => Ok(bridge.sweep(|uid| self.paths.pod(uid).exists())?),
            // Without a range nothing was ever given out by this agent.
            Err(_) => Ok(()),
        }
    }

    /// The sandbox of a pod, if it is complete and its namespaces still exist.
    pub fn load(&self, uid: &str) -> Result<Option<Record>, Error> {
        let Some(record) = self.record(uid)? else { return Ok(None) };
        let directory = self.paths.namespaces(uid);
        let pinned = record.namespaces.iter().all(|name| namespaces::is_pinned(&directory.join(name)));
        Ok((record.ready_at.is_some() && pinned).then_some(record))
    }

    /// The record alone, whatever became of the sandbox.
    pub fn record(&self, uid: &str) -> Result<Option<Record>, Error> {
        let path = self.paths.sandbox_record(uid);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?,
        };
        // Other fields may have changed with the version: it is read first.
        let version = serde_json::from_slice::<Version>(&text).map(|found| found.version).unwrap_or_default();
        if version > RECORD_VERSION {
            return Err(Error::Version { path, version });
        }
        serde_json::from_slice(&text).map(Some).map_err(|source| Error::Record { path, source })
    }

    /// The record, if it can be read. One that cannot be must not keep a pod from leaving its node: the interface goes
    /// with the namespace, at worst an address stays taken.
    fn record_to_take_down(&self, uid: &str) -> Result<Option<Record>, Error> {
        match self.record(uid) {
            Err(error @ (Error::Record { .. } | Error::Version { .. })) => {
                tracing::warn!(error = crate::node::chain(&error), "sandbox taken down without its record");
                Ok(None)
            }
            other => other,
        }
    }

    fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.paths.sandbox_record(&record.uid);
        let text = serde_json::to_vec(record).map_err(|source| Error::Record { path: path.clone(), source })?;
        replace_file(&path, &text).map_err(|source| Error::Io { action: "write", path, source })
    }

    /// Makes the sandbox, newer than what was made at `after`, whatever the clock says. What an interrupted attempt left
    /// is removed first.
    pub async fn create(&self, pod: &core::Pod, node: &etc::Node, after: Option<Timestamp>) -> Result<Record, Error> {
        let id = PodId::of(pod);
        self.tear_down(&id.uid).await?;
        // Before an address is reserved: addresses of pods without a directory are given back.
        let directory = self.paths.pod(&id.uid);
        std::fs::create_dir_all(&directory).map_err(|source| Error::Io {
            action: "create",
            path: directory.clone(),
            source,
        })?;
        let spec = pod.spec.clone().unwrap_or_default();
        let host_network = spec.host_network.unwrap_or(false);
        let wanted = wanted(&spec);
        let mut record = Record {
            version: RECORD_VERSION,
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            uid: id.uid.clone(),
            ready_at: None,
            addresses: node.addresses.clone(),
            hostname: etc::hostname(pod, node),
            namespaces: wanted.iter().map(|namespace| namespace.file().to_owned()).collect(),
            attachment: None,
        };
        if !host_network {
            let pod = cni::Pod {
                namespace: id.namespace,
                name: id.name,
                uid: id.uid.clone(),
                port_mappings: port_mappings(&spec),
                bandwidth: limits(pod)?,
            };
            let (attachment, addresses) = self.plan_attachment(pod)?;
            (record.attachment, record.addresses) = (Some(attachment), addresses);
        }
        // On disk before anything exists, so that whatever follows can be undone.
        self.write(&record)?;
        self.build(pod, &spec, &mut record, wanted, node).await?;
        let after = after.map_or(Timestamp::UNIX_EPOCH, |after| after + SignedDuration::from_nanos(1));
        record.ready_at = Some(Timestamp::now().max(after));
        self.write(&record)?;
        Ok(record)
    }

    async fn build(
        &self,
        pod: &core::Pod,
        spec: &core::PodSpec,
        record: &mut Record,
        wanted: Vec<Namespace>,
        node: &etc::Node,
    ) -> Result<(), Error> {
        let directory = self.paths.namespaces(&record.uid);
        namespaces::pin(namespaces::Request {
            directory: directory.clone(),
            namespaces: wanted,
            hostname: record.hostname.clone(),
            sysctls: sysctls(spec),
            attach: match &record.attachment {
                Some(Attachment::Bridge { bridge, bandwidth, .. }) => Some(bridge::Attach {
                    bridge: bridge.clone(),
                    uid: record.uid.clone(),
                    addresses: record.addresses.clone(),
                    bandwidth: *bandwidth,
                    mtu: self.mtu,
                }),
                _ => None,
            },
        })
        .await?;
        if spec.share_process_namespace.unwrap_or(false) && !spec.host_pid.unwrap_or(false) {
            pid::pin(&directory.join("pid"), &self.pause_command).await?;
            record.namespaces.push("pid".into());
        }
        if !spec.host_ipc.unwrap_or(false) {
            self.mount_shm(&record.uid)?;
        }
        let netns = directory.join(Namespace::Net.file());
        match &mut record.attachment {
            Some(Attachment::Cni(attachment)) => record.addresses = self.plugins.attach(attachment, &netns).await?,
            Some(Attachment::Bridge { ports, .. }) if !ports.is_empty() => {
                let ports = Ports { mappings: ports.clone(), addresses: record.addresses.clone() };
                self.host_ports.open(&ports)?;
            }
            Some(Attachment::Bridge { .. }) | None => {}
        }
        etc::write(pod, record, node, &self.paths).map_err(|source| Error::Io {
            action: "write files below",
            path: self.paths.pod(&record.uid),
            source,
        })
    }

    fn mount_shm(&self, uid: &str) -> Result<(), Error> {
        let path = self.paths.shm(uid);
        let failed = |source| Error::Io { action: "mount shared memory at", path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = format!("mode=1777,size={SHM_BYTES}");
        mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str())).map_err(|errno| failed(errno.into()))
    }

    /// Releases network and namespaces; files, volumes and logs stay. Safe to repeat.
    pub async fn tear_down(&self, uid: &str) -> Result<(), Error> {
        let directory = self.paths.namespaces(uid);
        if let Some(record) = self.record_to_take_down(uid)? {
            self.detach(&record, &directory.join(Namespace::Net.file())).await?;
        } else if let Ok(bridge) = self.bridge() {
            bridge.forget(uid)?;
        }
        pid::release(&directory.join("pid")).await?;
        for namespace in [Namespace::Net, Namespace::Ipc, Namespace::Uts] {
            namespaces::unpin(&directory.join(namespace.file()))?;
        }
        mounts::unmount(&self.paths.shm(uid))?;
        let record = self.paths.sandbox_record(uid);
        match std::fs::remove_file(&record) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path: record, source })
            }
            _ => Ok(()),
        }
    }

    async fn detach(&self, record: &Record, netns: &Path) -> Result<(), Error> {
        match &record.attachment {
            Some(Attachment::Cni(attachment)) => Ok(self.plugins.detach(attachment, netns).await?),
            Some(Attachment::Bridge { bridge, ports, host_ports, .. }) => {
                if let Some(ports) = host_ports {
                    self.plugins.detach(ports, netns).await?;
                }
                if !ports.is_empty() {
                    self.host_ports.close(&record.addresses)?;
                }
                record.addresses.iter().try_for_each(|address| Ok(bridge.release(&record.uid, *address)?))
            }
            None => Ok(()),
        }
    }

    /// Removes the pod's directory; nothing may be mounted below it any more.
    pub fn remove_files(&self, uid: &str) -> Result<(), Error> {
        Ok(mounts::remove_tree(&self.paths.pod(uid))?)
    }

    /// Removes the built-in network and address files. Pods must be gone.
    pub fn remove_network(&self) -> Result<(), Error> {
        self.host_ports.restore(&[])?;
        Ok(network::remove(&self.bridge, &self.paths.addresses())?)
    }
}

/// Namespaces of the pod's own; host-network pods keep the host's name as well.
fn wanted(spec: &core::PodSpec) -> Vec<Namespace> {
    let mut wanted = Vec::new();
    if !spec.host_network.unwrap_or(false) {
        wanted.extend([Namespace::Net, Namespace::Uts]);
    }
    if !spec.host_ipc.unwrap_or(false) {
        wanted.push(Namespace::Ipc);
    }
    wanted
}

fn sysctls(spec: &core::PodSpec) -> Vec<(String, String)> {
    let listed = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    listed.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}

fn limits(pod: &core::Pod) -> Result<Bandwidth, Error> {
    Ok(pod.metadata.annotations.as_ref().map(Bandwidth::of).transpose()?.unwrap_or_default())
}

fn port_mappings(spec: &core::PodSpec) -> Vec<cni::PortMapping> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(cni::PortMapping {
                host_port: u16::try_from(port.host_port.filter(|port| *port > 0)?).ok()?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Readers see the old or the new contents, never a part; survives a crash, not a power cut.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, contents)?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_keeps_no_pod_from_leaving() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { state_dir: directory.path().to_owned(), ..Options::new("node") };
        let sandboxes = Sandboxes::new(&options, Paths::new(&options));
        let path = sandboxes.paths.sandbox_record("u1");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{\"of another time\": true}").unwrap();
        assert!(sandboxes.load("u1").is_err());
        assert_eq!(sandboxes.record_to_take_down("u1").unwrap(), None);
    }

    #[test]
    fn a_record_of_a_later_version_is_not_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { state_dir: directory.path().to_owned(), ..Options::new("node") };
        let sandboxes = Sandboxes::new(&options, Paths::new(&options));
        let path = sandboxes.paths.sandbox_record("u1");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = |version: &str| {
            let rest = r#""namespace":"n","name":"p","uid":"u1","ready_at":null,"addresses":[],"hostname":"p","namespaces":[],"attachment":null"#;
            std::fs::write(&path, format!("{{{version}{rest}}}")).unwrap();
        };
        write("");
        assert_eq!(sandboxes.record("u1").unwrap().unwrap().version, 0, "from before there were versions");
        write("\"version\":2,");
        assert!(matches!(sandboxes.record("u1"), Err(Error::Version { version: 2, .. })));
        assert_eq!(sandboxes.record_to_take_down("u1").unwrap(), None);
    }
}
