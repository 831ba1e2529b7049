//! Keeps running pods attached to the built-in network: what somebody else removed, an interface, the bridge, rules of
//! host ports, is put back when the kernel tells of it. Pods themselves are not touched.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Attachment, Error, Record, Sandboxes, namespaces::Namespace};
use crate::{
    network::{
        bridge,
        host_ports::Ports,
        mend::{self, Found, Lack},
        netlink::{self, Socket},
    },
    node,
};

/// A look without any news: a safety net.
const AUDIT: Duration = Duration::from_secs(300);
/// After a failed change.
const RETRY: Duration = Duration::from_secs(5);
/// News are gathered for this long: a started pod alone brings a dozen.
const GATHER: Duration = Duration::from_millis(200);

/// Until shutdown.
pub async fn keep(sandboxes: Sandboxes, shutdown: CancellationToken) {
    let work = async {
        loop {
            if let Err(error) = follow(&sandboxes).await {
                tracing::warn!(error, "the attachments of pods are not watched");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

async fn follow(sandboxes: &Sandboxes) -> Result<(), String> {
    let links = netlink::Monitor::open().map_err(|error| format!("listen for changes of interfaces: {error}"))?;
    let ports = sandboxes.host_ports.listen().map_err(|error| node::chain(&error))?;
    // What happened before there were ears.
    let mut host_ports = true;
    loop {
        let mut pause = AUDIT;
        let at_work = sandboxes.clone();
        let mended = tokio::task::spawn_blocking(move || at_work.mend(host_ports)).await;
        if let Err(error) = mended.unwrap_or_else(|_panic| Err(Error::NoPodRange)) {
            tracing::warn!(error = node::chain(&error), "pods are not attached as they should be");
            pause = RETRY;
        }
        host_ports = pause == RETRY;
        tokio::select! {
            changed = links.changed() => changed.map_err(|error| error.to_string())?,
            changed = sandboxes.host_ports.changed(&ports) => {
                changed.map_err(|error| node::chain(&error))?;
                tracing::warn!("somebody else changed the table of host ports: making it again");
                host_ports = true;
            }
            () = tokio::time::sleep(pause) => {}
        }
        // Rules come back at once, interfaces when the news have ended.
        if !host_ports {
            tokio::time::sleep(GATHER).await;
        }
    }
}

impl Sandboxes {
    /// Puts back what pods lack of the built-in network. `host_ports`: their rules, too.
    pub fn mend(&self, host_ports: bool) -> Result<(), Error> {
        let mut socket = Socket::open().map_err(|source| Error::Io {
            action: "open netlink beside",
            path: self.paths.pods(),
            source,
        })?;
        let found = Found::look(&mut socket, &self.bridge)?;
        let (mut bridge, mut lacking) = (None, Vec::new());
        for uid in self.paths.pod_uids() {
            let lack = found.lack(&uid);
            // One record tells of the bridge; the others are read where something is missing.
            if lack.is_none() && bridge.is_some() {
                continue;
            }
            // Incomplete: somebody is at work on it. Ended: its namespaces are gone.
            let Ok(Some(record)) = self.load(&uid) else { continue };
            if let Some(Attachment::Bridge { bridge: of_pod, .. }) = &record.attachment {
                bridge.get_or_insert(of_pod.clone());
                lacking.extend(lack.map(|lack| (record, lack)));
            }
        }
        // Records of pods that are at their start or their end count, too.
        let Some(bridge) = bridge else { return if host_ports { self.restore_host_ports() } else { Ok(()) } };
        let bridge_lacks = found.bridge_lacks(&mut socket, &bridge)?;
        if bridge_lacks {
            tracing::warn!(bridge = bridge.name, "the bridge of pods was removed or changed: putting it back");
            mend::bridge(&mut socket, &bridge, self.mtu)?;
        }
        let mut failure = None;
        for (record, lack) in lacking {
            tracing::warn!(pod = %record.pod_id(), ?lack, "a pod's interface was removed or changed: putting it back");
            // The others are to have theirs, whatever is the matter with one.
            failure = self.mend_one(&mut socket, record, lack).err().or(failure);
        }
        // A parameter of the bridge goes with it.
        if host_ports || bridge_lacks {
            self.restore_host_ports()?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Opens the host ports of all sandboxes on record, and closes all others.
    fn restore_host_ports(&self) -> Result<(), Error> {
        let uids = self.paths.pod_uids();
        let ports = uids.iter().filter_map(|uid| self.record(uid).ok()?).filter_map(|record| match record.attachment {
            Some(Attachment::Bridge { ports, .. }) if !ports.is_empty() => {
                Some(Ports { mappings: ports, addresses: record.addresses })
            }
            _ => None,
        });
        Ok(self.host_ports.restore(&ports.collect::<Vec<_>>())?)
    }

    fn mend_one(&self, socket: &mut Socket, record: Record, lack: Lack) -> Result<(), Error> {
        let netns: PathBuf = self.paths.namespaces(&record.uid).join(Namespace::Net.file());
        let Some(Attachment::Bridge { bridge, bandwidth, .. }) = record.attachment else { return Ok(()) };
        let attach = bridge::Attach { bridge, uid: record.uid, addresses: record.addresses, bandwidth, mtu: self.mtu };
        Ok(mend::pod(socket, attach, lack, &netns)?)
    }
}
