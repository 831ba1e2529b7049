//! A sandbox found again by the processes that live in it: its record was lost, or is of a version this agent does not
//! read, or its pins are gone, while containers run. What they run in is what counts; they are not disturbed.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use nix::sched::{CloneFlags, setns};

use super::{Attachment, Error, RECORD_VERSION, Record, Sandboxes, cni, etc, namespaces, pid, port_mappings, wanted};
use crate::{network::bandwidth::Bandwidth, node::facts, pod::PodId};

/// The pod's interface.
const INTERFACE: &str = "eth0";

impl Sandboxes {
    /// `process` runs in the sandbox, which is at least as old as `since`.
    pub fn recover(&self, pod: &core::Pod, node: &etc::Node, process: u32, since: Timestamp) -> Result<Record, Error> {
        let id = PodId::of(pod);
        let spec = pod.spec.clone().unwrap_or_default();
        let directory = self.paths.namespaces(&id.uid);
        let mut names = wanted(&spec).iter().map(|namespace| namespace.file().to_owned()).collect::<Vec<_>>();
        let shares_pid = spec.share_process_namespace.unwrap_or(false) && !spec.host_pid.unwrap_or(false);
        if shares_pid {
            names.push("pid".to_owned());
        }
        for name in &names {
            if !is_own(process, name)? {
                return Err(Error::NotItsOwn { process, namespace: name.clone() });
            }
            namespaces::pin_of(process, name, &directory)?;
        }
        if shares_pid {
            pid::find_first(&directory.join("pid"))?;
        }
        let (attachment, addresses) = match names.iter().any(|name| name == "net") {
            true => self.recover_attachment(&id, &spec, &directory.join("net"))?,
            false => (None, node.addresses.clone()),
        };
        let record = Record {
            version: RECORD_VERSION,
            namespace: id.namespace,
            name: id.name,
            uid: id.uid,
            ready_at: Some(since),
            addresses,
            hostname: etc::hostname(pod, node),
            namespaces: names,
            attachment,
        };
        etc::write(pod, &record, node, &self.paths).map_err(|source| Error::Io {
            action: "write files below",
            path: self.paths.pod(&record.uid),
            source,
        })?;
        self.write(&record)?;
        Ok(record)
    }

    /// How the namespace is connected, and its addresses, as the kernel shows them.
    fn recover_attachment(
        &self,
        id: &PodId,
        spec: &core::PodSpec,
        netns: &Path,
    ) -> Result<(Option<Attachment>, Vec<IpAddr>), Error> {
        let addresses = addresses(netns)?;
        let pod = cni::Pod {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            uid: id.uid.clone(),
            port_mappings: port_mappings(spec),
            // Interfaces have their limits already.
            bandwidth: Bandwidth::default(),
        };
        let bridge = self.bridge().ok().filter(|bridge| bridge.has(&id.uid));
        if let Some(bridge) = bridge.filter(|_| !addresses.is_empty()) {
            addresses.iter().try_for_each(|address| bridge.hold(&id.uid, *address))?;
            let (ports, bandwidth) = (pod.port_mappings, pod.bandwidth);
            return Ok((Some(Attachment::Bridge { bridge, ports, bandwidth, host_ports: None }), addresses));
        }
        let network = cni::on_host(&self.config_dir)?;
        let attachment = network.map(|network| Attachment::Cni(cni::Attachment { network, pod, result: None }));
        Ok((attachment, addresses))
    }
}

/// Whether a process has a namespace other than this agent's.
fn is_own(process: u32, namespace: &str) -> Result<bool, Error> {
    let inode = |path: PathBuf| match fs::metadata(&path) {
        Ok(found) => Ok(found.ino()),
        Err(source) => Err(Error::Io { action: "look at namespace", path, source }),
    };
    let theirs = inode(format!("/proc/{process}/ns/{namespace}").into())?;
    Ok(theirs != inode(format!("/proc/self/ns/{namespace}").into())?)
}

/// Addresses of the pod's interface in a namespace, without those of the link alone.
fn addresses(netns: &Path) -> Result<Vec<IpAddr>, Error> {
    let failed = |source: io::Error| Error::Io { action: "read addresses in", path: netns.to_owned(), source };
    let namespace = File::open(netns).map_err(failed)?;
    // A thread that has entered a namespace can't go back.
    let read = move || -> io::Result<Vec<IpAddr>> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let interfaces = nix::ifaddrs::getifaddrs()?.filter(|interface| interface.interface_name == INTERFACE);
        let found = interfaces.filter_map(|interface| facts::ip(&interface));
        Ok(found.filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
    };
    let ended = std::thread::spawn(read).join();
    ended.unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into())).map_err(failed)
}
