//! How long failed pods are left alone before they are replaced: a kubelet that rejects a pod would otherwise be asked
//! again and again. Upstream's `flowcontrol.Backoff` over `failedPodsBackoffKey`. Pure.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// The first pause; it doubles up to the last (`daemonset.NewDaemonSetsController`'s backoff).
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(15 * 60);
/// An entry this old is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 15 * 60);
/// Entries held before old ones are looked for.
const ENTRIES_MAX: usize = 1000;

/// A node in one generation of one daemon set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub uid: String,
    pub generation: i64,
    pub node: String,
}

#[derive(Default)]
pub struct Backoff {
    entries: HashMap<Key, Entry>,
}

struct Entry {
    since: Timestamp,
    pause: Duration,
}

impl Entry {
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.since)).unwrap_or_default()
    }
}

impl Backoff {
    /// How long is left of a pause; nothing when the pod may be replaced now.
    pub fn left(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        let age = entry.age(now);
        entry.pause.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// A failed pod is replaced; the next one waits longer.
    pub fn note(&mut self, key: Key, now: Timestamp) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.age(now) < FORGOTTEN_AFTER);
        }
        let entry = self.entries.get(&key).filter(|entry| entry.age(now) < FORGOTTEN_AFTER);
        let pause = entry.map_or(PAUSE_FIRST, |entry| (entry.pause * 2).min(PAUSE_LAST));
        self.entries.insert(key, Entry { since: now, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let key = Key { uid: "u".into(), generation: 1, node: "n1".into() };
        let mut now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(backoff.left(&key, now), None);
        for seconds in [1, 2, 4, 8] {
            backoff.note(key.clone(), now);
            assert_eq!(backoff.left(&key, now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(backoff.left(&key, now), None);
        }
        let other = Key { generation: 2, ..key.clone() };
        assert_eq!(backoff.left(&other, now), None, "a new template is tried at once");
        now += FORGOTTEN_AFTER;
        backoff.note(key.clone(), now);
        assert_eq!(backoff.left(&key, now), Some(PAUSE_FIRST));
    }
}
