//! The last state on disk, so that names are answered after a restart of the agent while no server can be reached.
//!
//! Written some time after a change, never without one. A file that cannot be read is as good as none: the caches fill
//! from the server.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api_client::Snapshot;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::objects::{EndpointSlice, Pod, Service};
use crate::resolve::Sources;

/// Of the file's form. Another version's file is not read.
const VERSION: u32 = 1;
/// Changes are gathered for this long: flash wears out, and a state of a minute ago still names most things.
const GATHER: Duration = Duration::from_secs(60);
/// A larger file is neither written nor read: some 50,000 Services with an endpoint each.
const FILE_BYTES_MAX: u64 = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    #[error("it would have more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
}

#[derive(Default, Deserialize)]
pub(crate) struct Kept {
    version: u32,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub pods: Vec<Pod>,
}

#[derive(Serialize)]
struct Keep<'a> {
    version: u32,
    services: Vec<&'a Service>,
    slices: Vec<&'a EndpointSlice>,
    pods: Vec<&'a Pod>,
}

/// What an earlier run kept, if there is anything of use.
pub(crate) fn load(path: &Path) -> Option<Kept> {
    match read(path) {
        Ok(kept) if kept.version == VERSION => {
            info!(services = kept.services.len(), "names are answered from the last state until the server is heard");
            Some(kept)
        }
        Ok(_) => None,
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(path = %path.display(), %error, "the last state of cluster DNS is not used");
            None
        }
    }
}

fn read(path: &Path) -> Result<Kept, Error> {
    let file = File::open(path)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    Ok(serde_json::from_reader(BufReader::new(file))?)
}

/// Fails at the limit instead of going on.
struct Limited<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Readers see the old or the new state, never a part.
fn write(
    path: &Path,
    services: &Snapshot<Service>,
    slices: &Snapshot<EndpointSlice>,
    pods: &Snapshot<Pod>,
) -> Result<(), Error> {
    let keep = Keep {
        version: VERSION,
        services: services.iter().map(|service| &**service).collect(),
        slices: slices.iter().map(|slice| &**slice).collect(),
        pods: pods.iter().map(|pod| &**pod).collect(),
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension("new");
    let mut file = Limited { to: BufWriter::new(File::create(&draft)?), left: FILE_BYTES_MAX };
    let written = serde_json::to_writer(&mut file, &keep).map_err(Error::from);
    match written.and_then(|()| Ok(file.flush()?)) {
        Ok(()) => Ok(std::fs::rename(&draft, path)?),
        Err(error) => {
            // What is there stays; half a draft is of no use.
            drop(std::fs::remove_file(&draft));
            Err(error)
        }
    }
}

/// Writes the state after changes, as long as it is polled.
pub(crate) async fn keep(path: PathBuf, sources: Arc<Sources>) {
    let (mut services, mut slices) = (sources.services.subscribe(), sources.slices.subscribe());
    loop {
        tokio::select! {
            change = services.recv() => if change.is_none() { return },
            change = slices.recv() => if change.is_none() { return },
        }
        tokio::time::sleep(GATHER).await;
        // What came meanwhile is in the snapshots; the subscriptions start anew.
        (services, slices) = (sources.services.subscribe(), sources.slices.subscribe());
        let (path, sources) = (path.clone(), sources.clone());
        let done = tokio::task::spawn_blocking(move || store(&path, &sources)).await;
        if let Err(error) = done {
            warn!(%error, "the state of cluster DNS is not kept");
        }
    }
}

/// Writes the state as it is now.
pub(crate) fn store(path: &Path, sources: &Sources) {
    if !sources.services.is_synced() || !sources.slices.is_synced() {
        return;
    }
    let (services, slices, pods) = (sources.services.snapshot(), sources.slices.snapshot(), sources.pods.snapshot());
    if let Err(error) = write(path, &services, &slices, &pods) {
        warn!(path = %path.display(), %error, "the state of cluster DNS is not kept");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/dns.json");
        assert!(load(&path).is_none());
        let service = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"a": "b"}, "resourceVersion": "7"},
            "spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.7"], "ports": [{"name": "http", "port": 80}]}});
        let slice = json!({"metadata": {"name": "web-1", "namespace": "n",
            "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.0.0.1"], "hostname": "a", "conditions": {"ready": false}}, {"addresses": []}]});
        let services = Snapshot::of([serde_json::from_value(service).unwrap()], &[]);
        let slices = Snapshot::of([serde_json::from_value(slice).unwrap()], &[]);
        write(&path, &services, &slices, &Snapshot::empty(&[])).unwrap();
        let kept = load(&path).unwrap();
        let (service, slice) = (&kept.services[0], &kept.slices[0]);
        assert_eq!((service.spec.cluster_ips[0].as_str(), service.spec.ports[0].port), ("10.96.0.7", Some(80)));
        assert_eq!(service.metadata.resource_version, "7");
        assert!(service.metadata.labels.is_empty(), "labels of others are not kept");
        assert_eq!(slice.metadata.labels["kubernetes.io/service-name"], "web");
        assert_eq!((slice.endpoints[0].conditions.ready, slice.endpoints[1].conditions.ready), (Some(false), None));
        std::fs::write(&path, "{\"version\": 2, \"services\": [], \"slices\": [], \"pods\": []}").unwrap();
        assert!(load(&path).is_none());
        std::fs::write(&path, "nonsense").unwrap();
        assert!(load(&path).is_none());
    }

    #[test]
    fn a_writer_ends_at_its_limit() {
        let mut limited = Limited { to: Vec::new(), left: 3 };
        assert!(limited.write(b"abc").is_ok() && limited.write(b"d").is_err());
        assert_eq!(limited.to, b"abc");
    }
}
