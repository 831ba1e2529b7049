//! The recent events of a resource (or of one slice of it), shared by all its watchers. A watcher is a cursor: it costs
//! nothing while it is slow, and when the ring has dropped what it has not read, it is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::item::{EventKind, Item};

/// Events kept per ring, and the bytes of versions they keep alive. A watcher further behind must list again.
pub const RING_EVENTS_MAX: usize = 32 * 1024;
pub const RING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events older than this are dropped by the sweep; upstream's cache keeps at least as long (75 s).
pub const RING_AGE_MAX: Duration = Duration::from_secs(90);
/// Events handed to a watcher at a time.
pub const READ_EVENTS_MAX: usize = 256;

/// One committed change of one object.
pub struct Event {
    pub kind: EventKind,
    /// Key below the resource's prefix: `namespace/name` or `name`.
    pub key: Arc<str>,
    /// The new version; of a deletion, the last state under the deletion's revision.
    pub item: Arc<Item>,
    pub previous: Option<Arc<Item>>,
    pub at: Instant,
}

impl Event {
    pub fn revision(&self) -> u64 {
        self.item.revision()
    }
}

/// The ring no longer holds every event after the asked revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Watches may start at this revision or later.
    pub oldest: u64,
}

pub struct Channel {
    ring: Mutex<Ring>,
    /// Sequence number behind the newest event.
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Sequence number of the front event.
    first: u64,
    /// Every event of a greater revision is here.
    floor: u64,
    bytes: usize,
}

impl Ring {
    fn drop_front(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.item.size();
            self.first += 1;
            self.floor = self.floor.max(event.revision());
        }
    }
}

impl Channel {
    /// An empty ring that is complete after `floor`.
    pub fn new(floor: u64) -> Self {
        let ring = Ring { floor, ..Ring::default() };
        Self { ring: Mutex::new(ring), head: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends; watchers learn of it by [`Channel::announce`].
    pub fn push(&self, event: Arc<Event>) {
        let mut ring = self.ring();
        ring.bytes += event.item.size();
        ring.events.push_back(event);
        while ring.events.len() > RING_EVENTS_MAX || (ring.bytes > RING_BYTES_MAX && ring.events.len() > 1) {
            ring.drop_front();
        }
    }

    /// Wakes the watchers if there is something new.
    pub fn announce(&self) {
        let head = {
            let ring = self.ring();
            ring.first + ring.events.len() as u64
        };
        self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head);
    }

    /// Drops events from before `oldest`.
    pub fn trim(&self, oldest: Instant) {
        let mut ring = self.ring();
        while ring.events.front().is_some_and(|event| event.at < oldest) {
            ring.drop_front();
        }
    }

    /// The position of the first event after `revision`.
    pub fn position_after(&self, revision: u64) -> Result<u64, Gone> {
        let ring = self.ring();
        if revision < ring.floor {
            return Err(Gone { oldest: ring.floor });
        }
        let index = ring.events.partition_point(|event| event.revision() <= revision);
        Ok(ring.first + index as u64)
    }

    /// Events from `position` on, at most [`READ_EVENTS_MAX`].
    pub fn read(&self, position: u64) -> Result<Vec<Arc<Event>>, Gone> {
        let ring = self.ring();
        if position < ring.first {
            return Err(Gone { oldest: ring.floor });
        }
        let skip = (position - ring.first) as usize;
        Ok(ring.events.iter().skip(skip).take(READ_EVENTS_MAX).cloned().collect())
    }

    /// Every event after `revision`, newest first; `None` when some are dropped.
    pub fn since(&self, revision: u64) -> Option<Vec<Arc<Event>>> {
        let ring = self.ring();
        (revision >= ring.floor)
            .then(|| ring.events.iter().rev().take_while(|event| event.revision() > revision).cloned().collect())
    }

    /// A new ring with those events that `belongs` accepts.
    pub fn filtered(&self, belongs: impl Fn(&Event) -> bool) -> Self {
        let ring = self.ring();
        let events: VecDeque<_> = ring.events.iter().filter(|event| belongs(event)).cloned().collect();
        let bytes = events.iter().map(|event| event.item.size()).sum();
        let head = events.len() as u64;
        let ring = Ring { events, first: 0, floor: ring.floor, bytes };
        Self { ring: Mutex::new(ring), head: watch::Sender::new(head) }
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }
}
