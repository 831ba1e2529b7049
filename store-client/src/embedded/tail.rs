//! The newest events in memory, so that watches which keep up never touch the disk. Bounded by bytes.
//! Invariant: it holds every event after `floor`, without gaps.

use std::collections::VecDeque;

use crate::{Event, Revision};

/// Events per watch batch; a catching-up watcher takes several.
const BATCH_EVENTS_MAX: usize = 512;

/// What an event costs beside key and value: the struct and its place in the queue.
const EVENT_OVERHEAD_BYTES: usize = 128;

pub(super) struct Tail {
    events: VecDeque<Event>,
    /// The revision before the oldest held event.
    floor: Revision,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub fn new(floor: Revision, bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), floor, bytes: 0, bytes_max }
    }

    /// Appends the newest event and drops the oldest ones over the limit.
    pub fn push(&mut self, event: Event) {
        self.bytes += cost(&event);
        self.events.push_back(event);
        while self.bytes > self.bytes_max {
            let Some(dropped) = self.events.pop_front() else { break };
            self.bytes -= cost(&dropped);
            self.floor = dropped.revision;
        }
    }

    /// Events after `after` and how far they reach; `None` if the tail does not go back that far.
    pub fn read(&self, after: Revision) -> Option<(Vec<Event>, Revision)> {
        if after < self.floor {
            return None;
        }
        let start = self.events.partition_point(|event| event.revision <= after);
        let events: Vec<Event> = self.events.range(start..).take(BATCH_EVENTS_MAX).cloned().collect();
        let progress = events.last().map_or(after, |event| event.revision);
        Some((events, progress))
    }
}

fn cost(event: &Event) -> usize {
    event.key.len() + event.record().map_or(0, |record| record.value.len()) + EVENT_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;

    fn delete(revision: u64) -> Event {
        Event { revision: Revision(revision), key: "k".into(), change: Change::Delete }
    }

    #[test]
    fn knows_how_far_back_it_reaches() {
        let mut tail = Tail::new(Revision(1), 2 * cost(&delete(0)));
        for revision in 2..=5 {
            tail.push(delete(revision));
        }
        assert_eq!(tail.read(Revision(2)), None);
        assert_eq!(tail.read(Revision(3)), Some((vec![delete(4), delete(5)], Revision(5))));
        assert_eq!(tail.read(Revision(5)), Some((vec![], Revision(5))));
    }

    #[test]
    fn without_room_everything_is_read_from_disk() {
        let mut tail = Tail::new(Revision(1), 0);
        tail.push(delete(2));
        assert_eq!(tail.read(Revision(1)), None);
        assert_eq!(tail.read(Revision(2)), Some((vec![], Revision(2))));
    }
}
