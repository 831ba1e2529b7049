//! Pods that wait, in three places as upstream's `SchedulingQueue`: ready to try, backing off, and waiting for a
//! change that could help. Pure: time is an argument.
//!
//! Invariant: a pod is in exactly one of the three places, or in flight with the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::plugins::Plugin;

/// First pause after a failed attempt; doubled by each further one (`podInitialBackoffSeconds`).
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause (`podMaxBackoffSeconds`).
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that no change woke is tried again after this long (`podMaxInUnschedulablePodsDuration`).
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// What happened in the cluster that could make a pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node came, or changed in what pods care about.
    Node,
    /// A pod went or ended: its resources, ports and affinities are free.
    PodGone,
    /// A pod was placed or relabelled: others' affinity may be satisfied now.
    PodPlaced,
}

impl Event {
    /// Whether a pod that was refused by `plugin` could fit after this event.
    fn helps(self, plugin: Plugin) -> bool {
        match self {
            Self::Node => true,
            Self::PodGone => matches!(
                plugin,
                Plugin::NodeResourcesFit | Plugin::NodePorts | Plugin::InterPodAffinity | Plugin::PodTopologySpread
            ),
            Self::PodPlaced => matches!(plugin, Plugin::InterPodAffinity | Plugin::PodTopologySpread),
        }
    }
}

/// Order among ready pods: higher priority first, then who waits longest.
type Rank = (std::cmp::Reverse<i32>, u64, String);

#[derive(Debug)]
struct Waiting {
    priority: i32,
    arrival: u64,
    attempts: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Ready,
    InFlight,
    Backoff { until: Instant },
    Unschedulable { since: Instant, plugins: BTreeSet<Plugin> },
}

/// Keys are pod uids.
#[derive(Debug, Default)]
pub struct Queue {
    pods: BTreeMap<String, Waiting>,
    ready: BTreeSet<Rank>,
    arrivals: u64,
    /// Events that came while a pod was in flight may have helped it: then it must not wait for the next one.
    missed: Vec<Event>,
}

impl Queue {
    /// A pod to be scheduled; one that waits already is tried again at once, as it was changed by its owner.
    pub fn add(&mut self, uid: &str, priority: i32) {
        if let Some(known) = self.pods.get(uid) {
            if matches!(known.place, Place::Ready | Place::InFlight) {
                return;
            }
            return self.make_ready(uid);
        }
        self.arrivals += 1;
        let waiting = Waiting { priority, arrival: self.arrivals, attempts: 0, place: Place::Ready };
        self.ready.insert((std::cmp::Reverse(priority), waiting.arrival, uid.to_owned()));
        self.pods.insert(uid.to_owned(), waiting);
    }

    /// The pod is gone, or needs no scheduling any more.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.ready.remove(&(std::cmp::Reverse(waiting.priority), waiting.arrival, uid.to_owned()));
        }
    }

    /// The next pod to try; it is in flight until [`Queue::remove`], [`Queue::refused`] or [`Queue::failed`].
    pub fn pop(&mut self) -> Option<String> {
        let (_, _, uid) = self.ready.pop_first()?;
        if let Some(waiting) = self.pods.get_mut(&uid) {
            waiting.attempts += 1;
            waiting.place = Place::InFlight;
        }
        self.missed.clear();
        Some(uid)
    }

    /// No node fits the pod: it waits for an event that could help.
    pub fn refused(&mut self, uid: &str, plugins: BTreeSet<Plugin>, now: Instant) {
        let helped = self.missed.iter().any(|event| plugins.iter().any(|p| event.helps(*p)));
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.place = if helped {
            Place::Backoff { until: now + backoff(waiting.attempts) }
        } else {
            Place::Unschedulable { since: now, plugins }
        };
    }

    /// The attempt failed for no fault of the pod (a lost binding, say): again after a pause.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = Place::Backoff { until: now + backoff(waiting.attempts) };
        }
    }

    /// Moves the pods that `event` could help to where they are tried again after their pause. A pod refused by no
    /// plugin (no nodes at all) waits for a node.
    pub fn wake(&mut self, event: Event, now: Instant) {
        self.missed.push(event);
        for waiting in self.pods.values_mut() {
            let Place::Unschedulable { since, plugins } = &waiting.place else { continue };
            let helps = plugins.iter().any(|p| event.helps(*p)) || (plugins.is_empty() && event == Event::Node);
            if helps {
                waiting.place = Place::Backoff { until: (*since + backoff(waiting.attempts)).max(now) };
            }
        }
        self.tick(now);
    }

    /// Makes pods ready whose pause is over. Returns when to call again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let due = |waiting: &Waiting| match &waiting.place {
            Place::Backoff { until } => Some(*until),
            Place::Unschedulable { since, .. } => Some(*since + UNSCHEDULABLE_MAX),
            Place::Ready | Place::InFlight => None,
        };
        let over: Vec<String> =
            self.pods.iter().filter(|(_, w)| due(w).is_some_and(|at| at <= now)).map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            self.make_ready(&uid);
        }
        self.pods.values().filter_map(due).min()
    }

    fn make_ready(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = Place::Ready;
            self.ready.insert((std::cmp::Reverse(waiting.priority), waiting.arrival, uid.to_owned()));
        }
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

fn backoff(attempts: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    doubled.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> BTreeSet<Plugin> {
        BTreeSet::from([Plugin::NodeResourcesFit])
    }

    #[test]
    fn higher_priority_and_longer_waiting_pods_come_first() {
        let mut queue = Queue::default();
        queue.add("old", 0);
        queue.add("new", 0);
        queue.add("urgent", 10);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()].map(Option::unwrap), ["urgent", "old", "new"]);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn only_an_event_that_helps_wakes_a_pod() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.pop();
        queue.refused("a", fit(), start);
        queue.wake(Event::PodPlaced, start + Duration::from_secs(5));
        assert_eq!(queue.pop(), None);
        queue.wake(Event::PodGone, start + Duration::from_secs(5));
        assert_eq!(queue.pop().as_deref(), Some("a"));
    }

    #[test]
    fn a_woken_pod_still_waits_for_its_backoff() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.pop();
        queue.refused("a", fit(), start);
        queue.wake(Event::Node, start);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.tick(start), Some(start + BACKOFF_FIRST));
        queue.tick(start + BACKOFF_FIRST);
        assert_eq!(queue.pop().as_deref(), Some("a"));
    }

    #[test]
    fn an_event_during_the_attempt_is_not_lost() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.pop();
        queue.wake(Event::PodGone, start);
        queue.refused("a", fit(), start);
        queue.tick(start + BACKOFF_FIRST);
        assert_eq!(queue.pop().as_deref(), Some("a"));
    }

    #[test]
    fn nothing_waits_for_ever() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.pop();
        queue.refused("a", fit(), start);
        queue.tick(start + UNSCHEDULABLE_MAX);
        assert_eq!(queue.pop().as_deref(), Some("a"));
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        assert_eq!([1, 2, 3, 4, 5, 50].map(|n| backoff(n).as_secs()), [1, 2, 4, 8, 10, 10]);
    }
}
