//! Pods that wait, in three places as upstream's `SchedulingQueue`: ready to try, backing off, and waiting for a
//! change that could help. Pure: time is an argument.
//!
//! Invariant: a pod is in exactly one of the three places, or in flight with the caller. Everything that is looked up
//! by time or by plugin is kept in that order, so that no step walks all pods.

mod event;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use event::{Event, Waiter};

use crate::cluster::Cluster;
use crate::config::Config;
use crate::objects::Pod;
use crate::plugins::Plugin;

/// A pod that no change woke is tried again after this long (`podMaxInUnschedulablePodsDuration`).
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Order among ready pods: higher priority first, then who waits longest.
type Rank = (Reverse<i32>, u64, String);

#[derive(Debug)]
struct Waiting {
    pod: Arc<Pod>,
    arrival: u64,
    attempts: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Ready,
    InFlight,
    /// After an error, or woken by something that could help: only the latter is tried early when nobody else waits.
    Backoff {
        until: Instant,
        is_error: bool,
    },
    Unschedulable {
        since: Instant,
        plugins: BTreeSet<Plugin>,
    },
}

impl Place {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Backoff { until, .. } => Some(*until),
            Self::Unschedulable { since, .. } => Some(*since + UNSCHEDULABLE_MAX),
            Self::Ready | Self::InFlight => None,
        }
    }
}

/// Keys are pod uids.
#[derive(Debug)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    ready: BTreeSet<Rank>,
    /// When pods leave the backoff, or have waited for too long.
    due: BTreeSet<(Instant, String)>,
    /// Pods backing off that were woken, by the end of their pause.
    woken: BTreeSet<(Instant, String)>,
    /// Unschedulable pods by who refused them; `None`: nobody, there were no nodes.
    refused_by: BTreeMap<Option<Plugin>, BTreeSet<String>>,
    arrivals: u64,
    backoff_first: Duration,
    backoff_max: Duration,
}

impl Queue {
    pub fn new(config: &Config) -> Self {
        Self {
            pods: HashMap::new(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            woken: BTreeSet::new(),
            refused_by: BTreeMap::new(),
            arrivals: 0,
            backoff_first: config.backoff_first,
            backoff_max: config.backoff_max,
        }
    }

    /// A pod to be scheduled; one that waits already is tried again at once, as it was changed by its owner.
    pub fn add(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.metadata.uid;
        match self.pods.get_mut(uid) {
            Some(known) if matches!(known.place, Place::InFlight) => known.pod = Arc::clone(pod),
            Some(_) => {
                self.leave(uid);
                self.update(pod);
                self.enter(uid, Place::Ready);
            }
            None => {
                self.arrivals += 1;
                let (arrival, pod) = (self.arrivals, Arc::clone(pod));
                self.pods.insert(uid.clone(), Waiting { pod, arrival, attempts: 0, place: Place::InFlight });
                self.enter(uid, Place::Ready);
            }
        }
    }

    /// The pod changed in nothing that matters to where it fits.
    pub fn update(&mut self, pod: &Arc<Pod>) {
        if let Some(known) = self.pods.get_mut(&pod.metadata.uid)
            && known.pod.priority == pod.priority
        {
            known.pod = Arc::clone(pod);
        }
    }

    /// The pod is gone, or needs no scheduling any more.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    /// The next pod to try; it is in flight until [`Queue::remove`], [`Queue::refused`] or [`Queue::failed`]. When no
    /// pod is ready, one that was woken need not wait for the end of its pause (`SchedulerPopFromBackoffQ`).
    pub fn pop(&mut self) -> Option<Arc<Pod>> {
        let uid = match self.ready.first() {
            Some((_, _, uid)) => uid.clone(),
            None => self.woken.first()?.1.clone(),
        };
        self.leave(&uid);
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        Some(Arc::clone(&waiting.pod))
    }

    /// No node fits the pod: it waits for an event that could help.
    pub fn refused(&mut self, uid: &str, plugins: BTreeSet<Plugin>, now: Instant) {
        self.enter(uid, Place::Unschedulable { since: now, plugins });
    }

    /// The attempt failed for no fault of the pod (a lost binding, say): again after a pause.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let until = now + self.backoff(waiting.attempts);
        self.leave(uid);
        self.enter(uid, Place::Backoff { until, is_error: true });
    }

    /// Moves the pods that `event` could help to where they are tried again.
    pub fn wake(&mut self, event: &Event<'_>, config: &Config, cluster: &Cluster, now: Instant) {
        let mut helped = BTreeSet::new();
        if matches!(event, Event::Node { old: None, .. }) {
            helped.extend(self.refused_by.get(&None).into_iter().flatten().cloned());
        }
        for (plugin, uids) in &self.refused_by {
            let Some(plugin) = plugin.filter(|p| event.concerns(*p)) else { continue };
            for uid in uids.iter().filter(|uid| !helped.contains(*uid)).collect::<Vec<_>>() {
                let Some(waiting) = self.pods.get(uid) else { continue };
                let Some(profile) = config.profile(&waiting.pod) else { continue };
                if event.helps(plugin, Waiter { pod: &waiting.pod, profile, cluster }) {
                    helped.insert(uid.clone());
                }
            }
        }
        for uid in helped {
            let Some(Waiting { place: Place::Unschedulable { since, .. }, attempts, .. }) = self.pods.get(&uid) else {
                continue;
            };
            let until = *since + self.backoff(*attempts);
            self.leave(&uid);
            self.enter(&uid, if until <= now { Place::Ready } else { Place::Backoff { until, is_error: false } });
        }
    }

    /// Makes pods ready whose pause is over. Returns when to call again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, uid)) = self.due.first().cloned() {
            if at > now {
                return Some(at);
            }
            self.leave(&uid);
            self.enter(&uid, Place::Ready);
        }
        None
    }

    /// Takes a pod out of where it is; it is in flight then.
    fn leave(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let place = std::mem::replace(&mut waiting.place, Place::InFlight);
        if let Some(at) = place.due() {
            self.due.remove(&(at, uid.to_owned()));
        }
        match place {
            Place::Ready => drop(self.ready.remove(&rank(waiting))),
            Place::InFlight => {}
            Place::Backoff { until, .. } => drop(self.woken.remove(&(until, uid.to_owned()))),
            Place::Unschedulable { plugins, .. } => {
                for plugin in groups(&plugins) {
                    if let Some(uids) = self.refused_by.get_mut(&plugin) {
                        uids.remove(uid);
                    }
                }
            }
        }
    }

    /// Puts a pod that is in flight somewhere.
    fn enter(&mut self, uid: &str, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if let Some(at) = place.due() {
            self.due.insert((at, uid.to_owned()));
        }
        match &place {
            Place::Ready => drop(self.ready.insert(rank(waiting))),
            Place::InFlight | Place::Backoff { is_error: true, .. } => {}
            Place::Backoff { until, is_error: false } => drop(self.woken.insert((*until, uid.to_owned()))),
            Place::Unschedulable { plugins, .. } => {
                for plugin in groups(plugins) {
                    self.refused_by.entry(plugin).or_default().insert(uid.to_owned());
                }
            }
        }
        waiting.place = place;
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = self.backoff_first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.backoff_max)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.woken.is_empty()
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

fn rank(waiting: &Waiting) -> Rank {
    (Reverse(waiting.pod.priority), waiting.arrival, waiting.pod.metadata.uid.clone())
}

fn groups(plugins: &BTreeSet<Plugin>) -> Vec<Option<Plugin>> {
    if plugins.is_empty() { vec![None] } else { plugins.iter().copied().map(Some).collect() }
}

#[cfg(test)]
mod tests;
