//! All pods of the node: one owner each, fed with what they should be and with what ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::sync::mpsc;

use super::{
    PodId,
    admit::{Rejection, admit},
    inbox::{Desired, Inbox},
    observe::Found,
    observed::{attempt, label},
    owner::Owner,
    resize::{self, Allocation, Pending},
    resources::{Qos, Resources, qos},
    shared::Shared,
};
use crate::runtime::{self, events::Event};

/// Exit events not yet handed to their owners; a full queue makes containerd's stream wait.
const EVENTS: usize = 256;

/// Feeds owners. Owners end by themselves, when their pod is gone or the agent stops.
pub struct Pods {
    shared: Arc<Shared>,
    owners: HashMap<String, Entry>,
    /// What an earlier agent left, by pod uid, until its pod shows up or is known not to.
    found: HashMap<String, Vec<Found>>,
    ended: (mpsc::Sender<String>, mpsc::Receiver<String>),
}

struct Entry {
    id: PodId,
    inbox: Arc<Inbox>,
    /// As the server wants it.
    desired: Arc<Pod>,
    /// With the resources that are allocated to it: what the node counts with.
    pod: Arc<Pod>,
    resize_pending: Option<Pending>,
    gone: bool,
    /// It has no place here.
    rejected: bool,
}

impl Pods {
    /// Looks at what there is. Fails without containerd; nothing may be started before that is known.
    pub async fn new(shared: Arc<Shared>) -> Result<Self, runtime::Error> {
        let mut tasks = BTreeMap::new();
        for task in shared.runtime.list_tasks().await? {
            tasks.insert(task.container_id.clone(), task);
        }
        let mut found: HashMap<String, Vec<Found>> = HashMap::new();
        for record in shared.runtime.list_containers(&[(label::NODE, &shared.node_name)]).await? {
            let Some(uid) = record.labels.get(label::POD_UID).cloned() else { continue };
            let task = tasks.remove(&record.id);
            found.entry(uid).or_default().push((record, task));
        }
        Ok(Self { shared, owners: HashMap::new(), found, ended: mpsc::channel(EVENTS) })
    }

    /// Sends exit events to owners until shutdown.
    pub fn follow_exits(&self) {
        let shared = self.shared.clone();
        let (sender, mut receiver) = mpsc::channel(EVENTS);
        self.shared.tasks.spawn(async move {
            let watch = shared.runtime.watch_exits(sender, shared.shutdown.clone());
            let deliver = async {
                while let Some(event) = receiver.recv().await {
                    shared.deliver(event);
                }
            };
            tokio::join!(watch, deliver);
        });
    }

    /// A pod is wanted on this node, or has changed.
    pub fn put(&mut self, pod: Arc<Pod>) {
        let id = PodId::of(&pod);
        match self.owners.get_mut(&id.uid) {
            Some(entry) => {
                entry.desired = pod;
                self.allocate(&id.uid);
            }
            None => {
                let given = self.found.get(&id.uid).map(|found| given(found)).unwrap_or_default();
                let allocated = resize::allocated(&pod, &given);
                let rejection = self.admit(&id, &allocated).err();
                let asks = !Arc::ptr_eq(&allocated, &pod);
                self.start(id.clone(), allocated, pod, rejection, false);
                if asks {
                    self.allocate(&id.uid);
                }
            }
        }
        self.allocate_waiting();
        self.share_burstable();
    }

    /// Somebody may have got smaller, or have left.
    fn allocate_waiting(&mut self) {
        let waiting = self.owners.iter().filter(|(_, entry)| entry.resize_pending.is_some());
        for uid in waiting.map(|(uid, _)| uid.clone()).collect::<Vec<_>>() {
            self.allocate(&uid);
        }
    }

    /// Gives the pod what it asks for, if the node has it, and tells its owner.
    fn allocate(&mut self, uid: &str) {
        let Some(entry) = self.owners.get(uid) else { return };
        let before = entry.pod.spec.as_ref().map(resize::allocation).unwrap_or_default();
        let kept = resize::allocated(&entry.desired, &before);
        let asks = !Arc::ptr_eq(&kept, &entry.desired) && self.has_place(entry);
        let pending = asks.then(|| {
            let others = self.owners.values().filter(|other| other.id != entry.id && self.has_place(other));
            let others = others.map(|other| &*other.pod).collect::<Vec<_>>();
            resize::allocate(&entry.desired, &others, self.shared.capacity).err()
        });
        let Some(entry) = self.owners.get_mut(uid) else { return };
        entry.resize_pending = pending.flatten();
        entry.pod = if entry.resize_pending.is_some() { kept } else { entry.desired.clone() };
        let desired = Desired { pod: entry.pod.clone(), resize_pending: entry.resize_pending.clone() };
        entry.inbox.put(|letters| letters.desired = Some(desired));
    }

    /// The server has no such pod any more.
    pub fn gone(&mut self, id: &PodId) {
        if let Some(entry) = self.owners.get_mut(&id.uid) {
            entry.gone = true;
            entry.inbox.put(|letters| letters.gone = true);
        }
    }

    /// All pods that should be here have been put: what else was found, or has files here, is ended and removed.
    pub fn complete(&mut self) {
        let mut orphans = self.found.values().filter_map(|found| orphan(found)).collect::<Vec<_>>();
        let mut known = self.owners.keys().cloned().collect::<HashSet<_>>();
        known.extend(orphans.iter().map(|pod| PodId::of(pod).uid));
        for entry in std::fs::read_dir(self.shared.paths.pods()).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if known.contains(&uid) {
                continue;
            }
            let record = self.shared.sandboxes.record(&uid).ok().flatten();
            let nameless = || PodId { namespace: String::new(), name: uid.clone(), uid: uid.clone() };
            orphans.push(stand_in(&record.map_or_else(nameless, |record| record.pod_id()), Vec::new()));
        }
        if let Err(error) = self.shared.sandboxes.sweep() {
            tracing::warn!(%error, "addresses of pods that are gone stay reserved");
        }
        for pod in orphans {
            let id = PodId::of(&pod);
            tracing::info!(pod = %id, "removing what a pod left that is not on this node any more");
            let pod = Arc::new(pod);
            self.start(id, pod.clone(), pod, None, true);
        }
    }

    /// Waits for the next owner to end; ends never by itself. Safe to cancel.
    pub async fn reap(&mut self) {
        if let Some(uid) = self.ended.1.recv().await {
            self.owners.remove(&uid);
            self.shared.close_inbox(&uid);
            self.allocate_waiting();
            self.share_burstable();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Ids of the pods that have an owner and are still on the server as far as is known.
    pub fn ids(&self) -> Vec<PodId> {
        self.owners.values().filter(|entry| !entry.gone).map(|entry| entry.id.clone()).collect()
    }

    /// A pod that this node has begun with, or that is over or leaving, is not asked (again).
    fn admit(&self, id: &PodId, pod: &Pod) -> Result<(), Rejection> {
        let begun = pod.status.as_ref().is_some_and(|status| status.start_time.is_some() || is_over(status));
        if begun || self.found.contains_key(&id.uid) || pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let others = self.owners.values().filter(|entry| self.has_place(entry)).map(|entry| &*entry.pod);
        admit(pod, &others.collect::<Vec<_>>(), self.shared.capacity)
    }

    /// Whether what a pod requests is taken: until all of it has ended.
    fn has_place(&self, entry: &Entry) -> bool {
        if entry.gone || entry.rejected {
            return false;
        }
        match self.shared.views.find(&entry.id.namespace, &entry.id.name, Some(&entry.id.uid)) {
            Some(view) => !is_over(&view.status) || view.containers.values().any(|container| container.pid.is_some()),
            None => !entry.pod.status.as_ref().is_some_and(is_over),
        }
    }

    fn start(&mut self, id: PodId, pod: Arc<Pod>, desired: Arc<Pod>, rejection: Option<Rejection>, gone: bool) {
        let found = self.found.remove(&id.uid).unwrap_or_default();
        let inbox = Arc::new(Inbox::default());
        if gone {
            inbox.put(|letters| letters.gone = true);
        }
        let rejected = rejection.is_some();
        let entry = Entry {
            id: id.clone(),
            inbox: inbox.clone(),
            desired,
            pod: pod.clone(),
            resize_pending: None,
            gone,
            rejected,
        };
        self.owners.insert(id.uid.clone(), entry);
        self.shared.open_inbox(&id.uid, &inbox);
        let mut owner = Owner::new(self.shared.clone(), pod, inbox);
        if let Some(rejection) = rejection {
            tracing::info!(pod = %id, reason = rejection.reason, message = rejection.message, "pod rejected");
            owner.reject(rejection);
        }
        let ended = self.ended.0.clone();
        self.shared.tasks.spawn(async move {
            owner.take_over(found).await;
            owner.run().await;
            // Fails when the agent is stopping and nobody reaps any more.
            let _stopping = ended.send(id.uid).await;
        });
    }

    fn share_burstable(&self) {
        let sum = self.owners.values().filter_map(|entry| burstable_milli(entry.pod.spec.as_ref()?)).sum();
        if let Err(error) = self.shared.cgroups.set_burstable_shares(sum) {
            tracing::warn!(%error, "shares of the burstable class");
        }
    }
}

impl Shared {
    fn deliver(&self, event: Event) {
        match event {
            Event::Exited { container_id, exit } => match self.owner_of(&container_id) {
                Some(inbox) => inbox.put(|letters| letters.exits.extend([(container_id, exit)])),
                // Of another agent, or settled already.
                None => tracing::debug!(container_id, "exit of a container nobody here owns"),
            },
            // Whoever runs a process in a container waits for it by its own call.
            Event::ExecExited { .. } => {}
            Event::Resync => self.each_inbox(|inbox| inbox.put(|letters| letters.resync = true)),
            Event::ImageChanged { name } => {
                self.each_inbox(|inbox| inbox.put(|letters| letters.images.extend([name.clone()])));
            }
        }
    }
}

/// CPU request of a burstable pod.
fn burstable_milli(spec: &PodSpec) -> Option<i64> {
    Resources::of_pod(spec).cpu_request_milli.filter(|_| qos(spec) == Qos::Burstable)
}

/// What the latest attempts that an earlier agent left were given.
fn given(found: &[Found]) -> Allocation {
    let attempts = found.iter().filter_map(|(record, _)| {
        let attempt = attempt(&record.id, &record.labels)?;
        Some((attempt.number, record.labels.get(label::CONTAINER)?.clone(), attempt.resources?))
    });
    let mut attempts = attempts.collect::<Vec<_>>();
    attempts.sort_by_key(|(number, ..)| *number);
    attempts.into_iter().map(|(_, name, given)| (name, given)).collect()
}

fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// A pod known only from the containers it left.
fn orphan(found: &[Found]) -> Option<Pod> {
    let (record, _) = found.first()?;
    let text = |key: &str| record.labels.get(key).cloned();
    let id = PodId { namespace: text(label::POD_NAMESPACE)?, name: text(label::POD_NAME)?, uid: text(label::POD_UID)? };
    let mut names =
        found.iter().filter_map(|(record, _)| record.labels.get(label::CONTAINER).cloned()).collect::<Vec<_>>();
    names.sort();
    names.dedup();
    Some(stand_in(&id, names))
}

fn stand_in(id: &PodId, containers: Vec<String>) -> Pod {
    let containers = containers.into_iter().map(|name| Container { name, ..Container::default() }).collect();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            uid: Some(id.uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers, ..PodSpec::default() }),
        status: None,
    }
}
