//! The pods of this node as the rest of the agent sees them: owners publish, the node API and others look up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

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
    readiness: Arc<Mutex<Readiness>>,
    unready: watch::Sender<Arc<BTreeSet<IpAddr>>>,
}

/// Which pods were seen ready, and which of them are no longer. A pod that was never ready here is none of either: after
/// a restart of the agent nothing is known yet.
#[derive(Default)]
struct Readiness {
    /// With the addresses of their own.
    ready: HashMap<String, Vec<IpAddr>>,
    /// Kept until the pod is gone, also when its addresses were given back: the cluster may not know yet.
    unready: HashMap<String, Vec<IpAddr>>,
}

impl Readiness {
    fn see(&mut self, uid: &str, is_ready: bool, addresses: &[IpAddr]) {
        if is_ready {
            self.unready.remove(uid);
            // Whoever had them before, they are this pod's now.
            self.unready.values_mut().for_each(|others| others.retain(|address| !addresses.contains(address)));
            self.ready.insert(uid.to_owned(), addresses.to_vec());
        } else if let Some(addresses) = self.ready.remove(uid) {
            self.unready.insert(uid.to_owned(), addresses);
        }
    }

    fn forget(&mut self, uid: &str) {
        self.ready.remove(uid);
        self.unready.remove(uid);
    }
}

impl PodView {
    fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    /// Addresses that no other pod has.
    fn own_addresses(&self) -> &[IpAddr] {
        if self.netns.is_some() { &self.addresses } else { &[] }
    }
}

impl Views {
    pub(super) fn new(unready: watch::Sender<Arc<BTreeSet<IpAddr>>>) -> Self {
        Self { unready, ..Self::default() }
    }

    fn tell(&self, change: impl FnOnce(&mut Readiness)) {
        let mut readiness = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut readiness);
        let now = readiness.unready.values().flatten().copied().collect::<BTreeSet<_>>();
        self.unready.send_if_modified(|told| {
            let differs = **told != now;
            if differs {
                *told = Arc::new(now);
            }
            differs
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<PodView>>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, view: PodView) {
        self.tell(|readiness| readiness.see(&view.id.uid, view.is_ready(), view.own_addresses()));
        self.lock().insert(view.id.uid.clone(), Arc::new(view));
    }

    pub(super) fn remove(&self, uid: &str) {
        self.lock().remove(uid);
        self.tell(|readiness| readiness.forget(uid));
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

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn pods_that_were_ready_are_told_until_they_are_gone_or_replaced() {
        let mut readiness = Readiness::default();
        let unready = |readiness: &Readiness| {
            let mut all = readiness.unready.values().flatten().map(ToString::to_string).collect::<Vec<_>>();
            all.sort();
            all
        };
        let (a, b) = ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap());
        readiness.see("u1", false, &[a]);
        assert!(unready(&readiness).is_empty(), "it was never ready");
        readiness.see("u1", true, &[a]);
        readiness.see("u2", true, &[b]);
        readiness.see("u1", false, &[a]);
        assert_eq!(unready(&readiness), ["10.0.0.2"]);
        // Its sandbox is taken down.
        readiness.see("u1", false, &[]);
        assert_eq!(unready(&readiness), ["10.0.0.2"]);
        readiness.see("u3", true, &[a]);
        assert!(unready(&readiness).is_empty(), "another pod has the address");
        readiness.see("u2", false, &[b]);
        readiness.forget("u2");
        assert!(unready(&readiness).is_empty());
    }
}
