//! The pods of this node as the rest of the agent sees them: owners publish, the node API and others look up.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::PodId;

/// A pod as its owner last saw it.
#[derive(Clone, Debug)]
pub struct PodView {
    pub id: PodId,
    pub pod: Arc<Pod>,
    pub status: Arc<PodStatus>,
    pub addresses: Vec<IpAddr>,
    /// The pinned network namespace; `None` for host-network pods and before there is a sandbox.
    pub netns: Option<PathBuf>,
    /// By container name.
    pub containers: BTreeMap<String, ContainerView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    pub id: String,
    pub number: u32,
    /// While it runs.
    pub pid: Option<u32>,
    pub started_at: Option<Timestamp>,
    pub log: PathBuf,
    /// Log of the attempt before, if there was one.
    pub previous_log: Option<PathBuf>,
    pub cgroup: String,
    pub tty: bool,
    pub stdin: bool,
}

#[derive(Clone, Default)]
pub struct Views {
    by_uid: Arc<Mutex<HashMap<String, Arc<PodView>>>>,
}

impl Views {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<PodView>>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, view: PodView) {
        self.lock().insert(view.id.uid.clone(), Arc::new(view));
    }

    pub(super) fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The pod of this name; with two of one name (the older one is ending) the one that is not being deleted.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<PodView>> {
        let pods = self.lock();
        let mut found = pods.values().filter(|view| {
            view.id.namespace == namespace && view.id.name == name && uid.is_none_or(|uid| view.id.uid == uid)
        });
        let first = found.next()?;
        let alive = |view: &&Arc<PodView>| view.pod.metadata.deletion_timestamp.is_none();
        Some(std::iter::once(first).chain(found).find(alive).unwrap_or(first).clone())
    }

    pub fn list(&self) -> Vec<Arc<PodView>> {
        self.lock().values().cloned().collect()
    }
}
