//! The simulated container runtime: what really runs where, by pod uid. It outlives the node's agent, as containerd
//! does, and is emptied by a reboot. Invariant: every start is followed by at most one stop, and observers see both in
//! the order they happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use api_client::ObjectKey;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One pod's containers; they start and end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub pod: ObjectKey,
    pub node: String,
    pub started: Instant,
    /// Runs before this one.
    pub restarts: u32,
    /// Exit code and time, once it has ended.
    pub exited: Option<(i32, Instant)>,
    /// When a stop that was asked for is done.
    pub stopping: Option<Instant>,
}

/// What observers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    Started { node: String, uid: String, pod: ObjectKey },
    Ended { node: String, uid: String, pod: ObjectKey },
}

type Observer = dyn Fn(&Happening) + Send + Sync;

#[derive(Default)]
pub struct Runtime {
    containers: Mutex<BTreeMap<String, Container>>,
    /// Pods whose containers changed by themselves since the agent last looked.
    news: Mutex<BTreeSet<String>>,
    changed: Notify,
    observer: Option<Box<Observer>>,
}

impl Runtime {
    pub fn observed(observer: impl Fn(&Happening) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Box::new(observer)), ..Self::default() }
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: &Happening) {
        if let Some(observer) = &self.observer {
            observer(happening);
        }
    }

    pub fn get(&self, uid: &str) -> Option<Container> {
        self.containers().get(uid).cloned()
    }

    /// All pods with containers, running or exited.
    pub fn all(&self) -> Vec<(String, Container)> {
        self.containers().iter().map(|(uid, container)| (uid.clone(), container.clone())).collect()
    }

    pub(crate) fn start(&self, node: &str, uid: &str, pod: &ObjectKey) {
        let mut containers = self.containers();
        let restarts = containers.get(uid).map_or(0, |before| before.restarts + 1);
        let (pod, node) = (pod.clone(), node.to_owned());
        self.tell(&Happening::Started { node: node.clone(), uid: uid.to_owned(), pod: pod.clone() });
        let container = Container { pod, node, started: Instant::now(), restarts, exited: None, stopping: None };
        containers.insert(uid.to_owned(), container);
    }

    /// Notes when a stop will be done; a second wish can only make it earlier.
    pub(crate) fn stop_at(&self, uid: &str, at: Instant) {
        if let Some(container) = self.containers().get_mut(uid) {
            container.stopping = Some(container.stopping.map_or(at, |before| before.min(at)));
        }
    }

    /// Ends a pod's containers: by themselves, or because they were told to.
    pub fn exit(&self, uid: &str, code: i32) {
        {
            let mut containers = self.containers();
            let Some(container) = containers.get_mut(uid).filter(|c| c.exited.is_none()) else { return };
            container.exited = Some((code, Instant::now()));
            self.tell(&ended(uid, container));
        }
        self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        self.changed.notify_one();
    }

    pub(crate) fn remove(&self, uid: &str) {
        let mut containers = self.containers();
        if let Some(container) = containers.remove(uid).filter(|c| c.exited.is_none()) {
            self.tell(&ended(uid, &container));
        }
    }

    /// The host went down: nothing runs any more, and nothing is remembered.
    pub fn reboot(&self) {
        let containers = std::mem::take(&mut *self.containers());
        for (uid, container) in containers.iter().filter(|(_, c)| c.exited.is_none()) {
            self.tell(&ended(uid, container));
        }
    }

    /// The pods whose containers changed by themselves; waits until there are some.
    pub(crate) async fn news(&self) -> BTreeSet<String> {
        loop {
            let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            if !news.is_empty() {
                return news;
            }
            self.changed.notified().await;
        }
    }
}

fn ended(uid: &str, container: &Container) -> Happening {
    Happening::Ended { node: container.node.clone(), uid: uid.to_owned(), pod: container.pod.clone() }
}
