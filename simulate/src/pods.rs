//! The pods of the simulated nodes: one task owns what is known of them, wakes each when it is due, and lets writes
//! run beside it. A pod has one write on its way at most, and is planned again when that has ended, however it ended.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use api_client::{Api, Cache, Change, Client, DeleteParams, ListParams, Metadata, Object, Patch, Received, Revision};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::behaviour::Behaviour;
use crate::objects::Pod;
use crate::options::{Options, Timing};
use crate::progress::{Facts, Report, Step, Wanted, plan};
use crate::runtime::Runtime;
use crate::status;

/// Writes on their way at once; more pods wait in turn.
const WRITES_MAX: usize = 64;
/// First pause after a write that failed; doubles up to the maximum.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A pod's grace period where the deletion names none.
const GRACE: u64 = 30;

type Uid = Arc<str>;

/// A node's name and address.
struct Node {
    name: String,
    address: Ipv4Addr,
}

/// What is known of one pod.
struct Seat {
    pod: Arc<Pod>,
    wanted: Wanted,
    behaviour: Behaviour,
    seen: Instant,
    address: Ipv4Addr,
    reported: Option<Report>,
    /// The revision of the last report; what is older is not news.
    written: Revision,
    writing: bool,
    failures: u32,
    due: Option<Instant>,
}

/// What became of a write.
struct Written {
    uid: Uid,
    report: Option<Report>,
    result: Result<Revision, api_client::Error>,
}

pub struct Pods {
    api: Api<Pod>,
    cache: Cache<Pod>,
    runtime: Arc<Runtime>,
    timing: Timing,
    nodes: HashMap<String, Node>,
    seats: HashMap<Uid, Seat>,
    due: BTreeSet<(Instant, Uid)>,
    ready: VecDeque<Uid>,
    writes: JoinSet<Written>,
    next_address: u32,
    _end_cache: DropGuard,
}

impl Pods {
    pub fn new(client: &Client, options: &Options, runtime: Arc<Runtime>) -> Self {
        let stop = CancellationToken::new();
        // A node of its own asks only for its own pods; many share one watch of all that are bound.
        let fields = match options.names.as_slice() {
            [name] => format!("spec.nodeName={name}"),
            _ => "spec.nodeName!=".to_owned(),
        };
        let params = ListParams::default().fields(fields);
        let cache = Cache::start(client, params, &TaskTracker::new(), stop.clone());
        let node = |(index, name): (usize, &String)| {
            (name.clone(), Node { name: name.clone(), address: options.node_address(index) })
        };
        Self {
            api: client.api(),
            cache,
            runtime,
            timing: options.timing.clone(),
            nodes: options.names.iter().enumerate().map(node).collect(),
            seats: HashMap::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            writes: JoinSet::new(),
            next_address: options.first_address.into(),
            _end_cache: stop.drop_guard(),
        }
    }

    /// Ends only when the cache does.
    pub async fn run(mut self) {
        let mut changes = self.cache.subscribe();
        self.cache.synced().await;
        self.rescan();
        let runtime = Arc::clone(&self.runtime);
        loop {
            self.work();
            let due = self.due.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Some(written) = self.writes.join_next() => {
                    // A write is never aborted while this runs, and has nothing to panic on.
                    if let Ok(written) = written {
                        self.finish(written);
                    }
                }
                change = changes.recv() => match change {
                    Some(Received::Change(change)) => self.changed(change),
                    Some(Received::Rescan) => self.rescan(),
                    None => return,
                },
                news = runtime.news() => news.into_iter().for_each(|uid| self.ready.push_back(uid.into())),
                () = until(due) => {}
            }
        }
    }

    /// Takes every pod that is ready for a look one step further, as far as writes have room.
    fn work(&mut self) {
        let now = Instant::now();
        while let Some((_, uid)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.wake_at(&uid, None);
            self.ready.push_back(uid);
        }
        while self.writes.len() < WRITES_MAX
            && let Some(uid) = self.ready.pop_front()
        {
            self.advance(&uid, now);
        }
    }

    /// Brings what is known in line with the cache, and the runtime with both: at the start, and after changes were
    /// missed.
    fn rescan(&mut self) {
        let snapshot = self.cache.snapshot();
        let here: BTreeSet<&str> = snapshot.iter().map(|pod| pod.metadata.uid()).collect();
        let gone: Vec<Uid> = self.seats.keys().filter(|uid| !here.contains(&***uid)).cloned().collect();
        for (uid, container) in self.runtime.all() {
            if self.nodes.contains_key(&container.node) && !here.contains(uid.as_str()) {
                self.runtime.remove(&uid);
            }
        }
        gone.into_iter().for_each(|uid| self.gone(uid));
        snapshot.iter().for_each(|pod| self.seen(pod));
    }

    fn changed(&mut self, change: Change<Pod>) {
        let replaced = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.metadata.uid() != new.metadata.uid(),
            (old, new) => old.is_some() && new.is_none(),
        };
        if let Some(old) = change.old.filter(|_| replaced) {
            self.gone(old.metadata.uid().into());
        }
        if let Some(new) = change.new {
            self.seen(&new);
        }
    }

    fn gone(&mut self, uid: Uid) {
        if let Some(seat) = self.seats.get_mut(&uid) {
            seat.wanted = Wanted::Gone;
            self.ready.push_back(uid);
        }
    }

    fn seen(&mut self, pod: &Arc<Pod>) {
        if !self.nodes.contains_key(&pod.node_name) {
            return;
        }
        let uid: Uid = pod.metadata.uid().into();
        let wanted = match pod.metadata.is_deleting() {
            true => Wanted::Stopped {
                grace: Duration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(GRACE)),
            },
            false => Wanted::Running,
        };
        let next_address = &mut self.next_address;
        let timing = &self.timing;
        let seat = self.seats.entry(Arc::clone(&uid)).or_insert_with(|| Seat {
            behaviour: Behaviour::new(
                &pod.metadata.annotations,
                timing,
                pod.restart == crate::progress::Restart::Always,
            ),
            pod: Arc::clone(pod),
            wanted: Wanted::Running,
            seen: Instant::now(),
            address: pod.address.unwrap_or_else(|| {
                *next_address = next_address.wrapping_add(1);
                Ipv4Addr::from(*next_address)
            }),
            reported: None,
            written: Revision::NONE,
            writing: false,
            failures: 0,
            due: None,
        });
        seat.wanted = wanted;
        seat.pod = Arc::clone(pod);
        if pod.revision() >= seat.written {
            seat.reported = pod.reported.clone();
        }
        self.ready.push_back(uid);
    }

    /// Plans and acts until the pod waits for something.
    fn advance(&mut self, uid: &Uid, now: Instant) {
        loop {
            let Some(seat) = self.seats.get_mut(uid).filter(|seat| !seat.writing) else { return };
            let container = self.runtime.get(uid);
            let facts = Facts {
                wanted: &seat.wanted,
                behaviour: &seat.behaviour,
                terminal: seat.pod.is_terminal,
                restart: seat.pod.restart,
                seen: seat.seen,
                container: container.as_ref(),
                reported: seat.reported.as_ref(),
            };
            match plan(&facts, now) {
                Step::Wait(_) if seat.wanted == Wanted::Gone => {
                    self.wake_at(uid, None);
                    self.seats.remove(uid);
                    return;
                }
                Step::Wait(at) => return self.wake_at(uid, at),
                Step::Start => self.runtime.start(&seat.pod.node_name, uid, &seat.pod.key()),
                Step::StopAt(at) => self.runtime.stop_at(uid, at),
                Step::Exit(code) => self.runtime.exit(uid, code),
                Step::Forget => self.runtime.remove(uid),
                Step::Report(report) => return self.report(uid, report),
                Step::Remove => {
                    self.runtime.remove(uid);
                    return self.confirm_deletion(uid);
                }
            }
        }
    }

    fn wake_at(&mut self, uid: &Uid, at: Option<Instant>) {
        let Some(seat) = self.seats.get_mut(uid) else { return };
        if let Some(before) = seat.due.take() {
            self.due.remove(&(before, Arc::clone(uid)));
        }
        if let Some(at) = at {
            seat.due = Some(at);
            self.due.insert((at, Arc::clone(uid)));
        }
    }

    fn report(&mut self, uid: &Uid, report: Report) {
        let Some(seat) = self.seats.get_mut(uid) else { return };
        let Some(node) = self.nodes.get(&seat.pod.node_name) else { return };
        seat.writing = true;
        let (api, key, uid) = (self.api.clone(), seat.pod.key(), Arc::clone(uid));
        let patch = status::patch(&seat.pod, &report, node.address, seat.address, Timestamp::now());
        debug!(pod = %key, node = node.name, phase = report.phase, ready = report.ready, "reporting");
        self.writes.spawn(async move {
            let result = api.patch_status(&key, &Patch::Strategic(patch)).await.map(|(_, revision)| revision);
            Written { uid, report: Some(report), result }
        });
    }

    fn confirm_deletion(&mut self, uid: &Uid) {
        let Some(seat) = self.seats.get_mut(uid) else { return };
        seat.writing = true;
        let (api, key, uid) = (self.api.clone(), seat.pod.key(), Arc::clone(uid));
        self.writes.spawn(async move {
            let now = DeleteParams::uid(&*uid).grace_period_seconds(0);
            let result = api.delete(&key, &now).await;
            Written { uid, report: None, result }
        });
    }

    fn finish(&mut self, written: Written) {
        let Written { uid, report, result } = written;
        let Some(seat) = self.seats.get_mut(&uid) else { return };
        seat.writing = false;
        match (result, report) {
            (Ok(revision), report) => {
                seat.failures = 0;
                let Some(report) = report else { return self.wake_if_gone(&uid) };
                seat.reported = Some(report);
                seat.written = revision;
                self.ready.push_back(uid);
            }
            (Err(error), _) => {
                debug!(pod = %seat.pod.key(), %error, "write failed; will try again");
                let pause = RETRY.saturating_mul(1 << seat.failures.min(8)).min(RETRY_MAX);
                seat.failures += 1;
                self.wake_at(&uid, Some(Instant::now() + pause));
                self.wake_if_gone(&uid);
            }
        }
    }

    /// After a confirmed deletion only the object's end is news; it may have come while the write was on its way.
    /// Something that holds the object (a finalizer) makes the wait long, not busy.
    fn wake_if_gone(&mut self, uid: &Uid) {
        if self.seats.get(uid).is_some_and(|seat| seat.wanted == Wanted::Gone) {
            self.ready.push_back(Arc::clone(uid));
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
