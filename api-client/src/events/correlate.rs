//! What becomes of a recorded event: created, counted onto an earlier one, combined with similar ones, or dropped as
//! spam. The semantics of client-go's `EventCorrelator`; pure, with time as an argument (seconds).

use std::collections::{HashMap, VecDeque};

use super::Event;

/// Events remembered for counting and combining; the oldest are forgotten first (`maxLruCacheEntries`).
const REMEMBERED_MAX: usize = 4096;
/// Similar events within [`SIMILAR_WINDOW_SECONDS`] beyond this many are combined (`defaultAggregateMaxEvents`).
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW_SECONDS: i64 = 600;
/// Token bucket per source and object (`defaultSpamBurst`, `defaultSpamQPS`).
const SPAM_BURST: f64 = 25.0;
const SPAM_PER_SECOND: f64 = 1.0 / 300.0;

const COMBINED_PREFIX: &str = "(combined from similar events): ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Create {
        message: String,
    },
    /// Count up the event object of this name.
    Count {
        name: String,
        count: i32,
        message: String,
    },
    Drop,
}

#[derive(Default)]
pub(super) struct Correlator {
    spam: Remembered<Bucket>,
    similar: Remembered<Similar>,
    written: Remembered<Written>,
}

struct Bucket {
    tokens: f64,
    at: i64,
}

#[derive(Default)]
struct Similar {
    messages: Vec<String>,
    last: i64,
}

struct Written {
    name: String,
    count: i32,
}

impl Correlator {
    pub(super) fn decide(&mut self, event: &Event, now: i64) -> Outcome {
        if self.is_spam(event, now) {
            return Outcome::Drop;
        }
        let combined = self.is_combined(event, now);
        let message = if combined { format!("{COMBINED_PREFIX}{}", event.message) } else { event.message.clone() };
        match self.written.get(&written_key(event, combined)) {
            Some(written) => {
                written.count += 1;
                Outcome::Count { name: written.name.clone(), count: written.count, message }
            }
            None => Outcome::Create { message },
        }
    }

    /// Notes the object an event became, to count onto it later. `message` is that of the outcome.
    pub(super) fn written(&mut self, event: &Event, message: &str, name: &str) {
        let combined = message.starts_with(COMBINED_PREFIX);
        let written = Written { name: name.to_owned(), count: 1 };
        self.written.put(written_key(event, combined), written);
    }

    fn is_spam(&mut self, event: &Event, now: i64) -> bool {
        let key = format!("{}\n{}", event.component, event.regarding.identity());
        let bucket = self.spam.get_or(key, || Bucket { tokens: SPAM_BURST, at: now });
        let refill = (now - bucket.at).max(0) as f64 * SPAM_PER_SECOND;
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return true;
        }
        bucket.tokens -= 1.0;
        false
    }

    fn is_combined(&mut self, event: &Event, now: i64) -> bool {
        let similar = self.similar.get_or(similar_key(event), Similar::default);
        if now - similar.last > SIMILAR_WINDOW_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.contains(&event.message) {
            return false;
        }
        if similar.messages.len() + 1 < SIMILAR_MAX {
            similar.messages.push(event.message.clone());
            return false;
        }
        true
    }
}

fn similar_key(event: &Event) -> String {
    format!("{}\n{}\n{}\n{}", event.component, event.regarding.identity(), event.kind.as_str(), event.reason)
}

/// Combined events count together whatever their message is.
fn written_key(event: &Event, combined: bool) -> String {
    let message = if combined { COMBINED_PREFIX } else { &event.message };
    format!("{}\n{message}", similar_key(event))
}

/// A map that forgets its oldest entries.
struct Remembered<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Remembered<V> {
    fn get(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn put(&mut self, key: String, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    fn get_or(&mut self, key: String, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.put(key.clone(), make());
        }
        self.entries.get_mut(&key).expect("put above, and the newest is never forgotten")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EventType, ObjectReference};
    use super::*;

    fn event(message: &str) -> Event {
        let regarding = ObjectReference { kind: "Pod".into(), name: "p".into(), ..ObjectReference::default() };
        Event {
            component: "kubelet".into(),
            regarding,
            kind: EventType::Warning,
            reason: "Failed".into(),
            message: message.into(),
        }
    }

    #[test]
    fn a_repeated_event_is_counted() {
        let mut correlator = Correlator::default();
        let e = event("no image");
        assert_eq!(correlator.decide(&e, 0), Outcome::Create { message: "no image".into() });
        correlator.written(&e, "no image", "p.1");
        let counted = |count| Outcome::Count { name: "p.1".into(), count, message: "no image".into() };
        assert_eq!(correlator.decide(&e, 1), counted(2));
        assert_eq!(correlator.decide(&e, 2), counted(3));
    }

    #[test]
    fn many_similar_events_are_combined() {
        let mut correlator = Correlator::default();
        for n in 0..9 {
            let e = event(&format!("message {n}"));
            assert_eq!(correlator.decide(&e, n), Outcome::Create { message: format!("message {n}") });
            correlator.written(&e, &format!("message {n}"), &format!("p.{n}"));
        }
        let e = event("message 9");
        let message = "(combined from similar events): message 9".to_owned();
        assert_eq!(correlator.decide(&e, 9), Outcome::Create { message: message.clone() });
        correlator.written(&e, &message, "p.9");
        let Outcome::Count { name, count, .. } = correlator.decide(&event("message 10"), 10) else { panic!() };
        assert_eq!((name.as_str(), count), ("p.9", 2));
        // After ten quiet minutes they are told apart again.
        assert_eq!(correlator.decide(&event("new"), 700), Outcome::Create { message: "new".into() });
    }

    #[test]
    fn a_flood_is_dropped_and_trickles_back() {
        let mut correlator = Correlator::default();
        let allowed = (0..100).filter(|_| correlator.decide(&event("x"), 0) != Outcome::Drop).count();
        assert_eq!(allowed, 25);
        assert_eq!(correlator.decide(&event("x"), 299), Outcome::Drop);
        assert_ne!(correlator.decide(&event("x"), 301), Outcome::Drop);
    }
}
