//! The keyed work queue: a key is queued at most once, runs on at most one worker at a time, and one that is added
//! while it runs is run again afterwards. Failures back off per key. Namespaces take turns, so that one with ten
//! thousand keys waiting holds up no other. [`Core`] is pure (time is an argument); [`Queue`] adds the waiting.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_client::ObjectKey;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Per-key delays after failures (`DefaultTypedControllerRateLimiter`): they double from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1000);

/// How a run of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Settled,
    /// Well, and to be run again after this long.
    After(Duration),
    Failed,
}

/// Queue state. Times are durations since any fixed point.
#[derive(Default)]
pub struct Core {
    ready: Turns,
    /// Keys in `ready`, with the time they came.
    queued: HashMap<ObjectKey, Duration>,
    delayed: BinaryHeap<Reverse<(Duration, ObjectKey)>>,
    /// The earliest time each delayed key is due; other heap entries of the key are stale.
    due: HashMap<ObjectKey, Duration>,
    running: HashMap<ObjectKey, Duration>,
    /// Running keys that were added meanwhile.
    again: HashSet<ObjectKey>,
    failures: HashMap<ObjectKey, u32>,
}

/// Keys in the order they run: namespaces take turns, the keys of one stay in the order they came.
#[derive(Default)]
struct Turns {
    /// Never empty queues.
    namespaces: HashMap<String, VecDeque<ObjectKey>>,
    /// The namespaces with keys waiting, each once.
    order: VecDeque<String>,
    len: usize,
}

impl Turns {
    fn push(&mut self, key: ObjectKey) {
        self.len += 1;
        match self.namespaces.get_mut(&key.namespace) {
            Some(keys) => keys.push_back(key),
            None => {
                let namespace = key.namespace.clone();
                self.order.push_back(namespace.clone());
                self.namespaces.insert(namespace, VecDeque::from([key]));
            }
        }
    }

    fn pop(&mut self) -> Option<ObjectKey> {
        let namespace = self.order.pop_front()?;
        let keys = self.namespaces.get_mut(&namespace)?;
        let key = keys.pop_front();
        if keys.is_empty() {
            self.namespaces.remove(&namespace);
        } else {
            self.order.push_back(namespace);
        }
        self.len -= 1;
        key
    }
}

impl Core {
    /// True when the key was not queued yet.
    pub fn add(&mut self, key: ObjectKey, now: Duration) -> bool {
        if self.running.contains_key(&key) {
            return self.again.insert(key);
        }
        if self.queued.contains_key(&key) {
            return false;
        }
        self.due.remove(&key);
        self.queued.insert(key.clone(), now);
        self.ready.push(key);
        true
    }

    /// The earlier of two delays counts.
    pub fn add_after(&mut self, key: ObjectKey, now: Duration, delay: Duration) {
        let at = now + delay;
        if self.due.get(&key).is_none_or(|due| at < *due) {
            self.due.insert(key.clone(), at);
            self.delayed.push(Reverse((at, key)));
        }
    }

    /// The next key to run, with how long it waited. It counts as running until [`Core::done`].
    pub fn take(&mut self, now: Duration) -> Option<(ObjectKey, Duration)> {
        self.release_due(now);
        let key = self.ready.pop()?;
        let since = self.queued.remove(&key).unwrap_or(now);
        self.running.insert(key.clone(), now);
        Some((key, now.saturating_sub(since)))
    }

    fn release_due(&mut self, now: Duration) {
        while let Some(Reverse((at, _))) = self.delayed.peek()
            && *at <= now
            && let Some(Reverse((at, key))) = self.delayed.pop()
        {
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key, now);
            }
        }
    }

    pub fn done(&mut self, key: &ObjectKey, now: Duration, ended: Ended) {
        self.running.remove(key);
        match ended {
            Ended::Settled => {
                self.failures.remove(key);
            }
            Ended::After(delay) => {
                self.failures.remove(key);
                self.add_after(key.clone(), now, delay);
            }
            Ended::Failed => {
                let failures = self.failures.entry(key.clone()).or_default();
                let factor = 1u32.checked_shl(*failures).unwrap_or(u32::MAX);
                *failures = failures.saturating_add(1);
                let delay = BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_LAST);
                self.add_after(key.clone(), now, delay);
            }
        }
        // Only a failure is worth waiting for: news that came while the key ran is acted on after the backoff, too.
        if self.again.remove(key) && ended != Ended::Failed {
            self.add(key.clone(), now);
        }
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    /// Keys waiting to be run.
    pub fn depth(&self) -> usize {
        self.ready.len
    }

    /// Since when each running key runs.
    pub fn running(&self) -> impl Iterator<Item = Duration> {
        self.running.values().copied()
    }

    pub fn is_idle(&self, now: Duration) -> bool {
        self.ready.len == 0 && self.running.is_empty() && self.next_due().is_none_or(|at| at > now)
    }
}

/// A [`Core`] that tasks share.
pub struct Queue {
    core: Mutex<Core>,
    news: Notify,
    epoch: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        Self { core: Mutex::default(), news: Notify::new(), epoch: Instant::now() }
    }
}

impl Queue {
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, key: ObjectKey) -> bool {
        let added = self.core().add(key, self.now());
        if added {
            self.news.notify_one();
        }
        added
    }

    /// Safe to cancel: a key is taken only when it is returned.
    pub async fn take(&self) -> (ObjectKey, Duration) {
        loop {
            let due = {
                let mut core = self.core();
                if let Some(taken) = core.take(self.now()) {
                    return taken;
                }
                core.next_due()
            };
            match due {
                None => self.news.notified().await,
                Some(at) => {
                    // Reaching the due time is what we wait for, so the timeout is no failure.
                    drop(tokio::time::timeout_at(self.epoch + at, self.news.notified()).await);
                }
            }
        }
    }

    pub fn done(&self, key: &ObjectKey, ended: Ended) {
        self.core().done(key, self.now(), ended);
        self.news.notify_one();
    }

    pub fn read<R>(&self, read: impl FnOnce(&Core) -> R) -> R {
        read(&self.core())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", name)
    }

    const MS: Duration = Duration::from_millis(1);

    fn taken(core: &mut Core, now: u32) -> String {
        core.take(now * MS).map_or("-".into(), |(k, _)| k.name)
    }

    #[test]
    fn a_key_is_queued_once_and_never_runs_twice_at_a_time() {
        let mut core = Core::default();
        assert!(core.add(key("a"), Duration::ZERO));
        assert!(!core.add(key("a"), 1 * MS));
        assert_eq!(taken(&mut core, 2), "a");
        assert!(core.add(key("a"), 3 * MS), "noted while running");
        assert_eq!(taken(&mut core, 3), "-");
        core.done(&key("a"), 4 * MS, Ended::Settled);
        assert_eq!(taken(&mut core, 4), "a");
        core.done(&key("a"), 5 * MS, Ended::Settled);
        assert!(core.is_idle(5 * MS));
    }

    #[test]
    fn failures_back_off_per_key_and_success_forgets() {
        let mut core = Core::default();
        let mut now = 0;
        core.add(key("a"), Duration::ZERO);
        for delay in [5, 10, 20, 40] {
            assert_eq!(taken(&mut core, now), "a");
            core.add(key("a"), now * MS);
            core.done(&key("a"), now * MS, Ended::Failed);
            assert_eq!(taken(&mut core, now + delay - 1), "-");
            now += delay;
        }
        assert_eq!(taken(&mut core, now), "a");
        core.done(&key("a"), now * MS, Ended::Settled);
        core.add(key("a"), now * MS);
        assert_eq!(taken(&mut core, now), "a");
        core.done(&key("a"), now * MS, Ended::Failed);
        assert_eq!(core.next_due(), Some((now + 5) * MS));
    }

    #[test]
    fn the_earliest_delay_counts_and_an_add_replaces_it() {
        let mut core = Core::default();
        core.add_after(key("a"), Duration::ZERO, 50 * MS);
        core.add_after(key("a"), Duration::ZERO, 10 * MS);
        core.add_after(key("a"), Duration::ZERO, 90 * MS);
        assert_eq!(taken(&mut core, 10), "a");
        core.done(&key("a"), 10 * MS, Ended::Settled);
        assert_eq!(taken(&mut core, 100), "-", "the other delays were merged into the first");
        core.add_after(key("b"), Duration::ZERO, 500 * MS);
        core.add(key("b"), 100 * MS);
        assert_eq!(taken(&mut core, 100), "b");
        core.done(&key("b"), 100 * MS, Ended::Settled);
        assert_eq!(taken(&mut core, 900), "-");
    }

    #[test]
    fn namespaces_take_turns() {
        let mut core = Core::default();
        let add = |core: &mut Core, namespace: &str, name: &str| {
            core.add(ObjectKey::new(namespace, name), Duration::ZERO);
        };
        (1..=3).for_each(|n| add(&mut core, "busy", &format!("b{n}")));
        assert_eq!(taken(&mut core, 1), "b1");
        add(&mut core, "quiet", "q1");
        (4..=5).for_each(|n| add(&mut core, "busy", &format!("b{n}")));
        assert_eq!(core.depth(), 5);
        let order: Vec<String> = (0..6).map(|_| taken(&mut core, 1)).collect();
        assert_eq!(order, ["b2", "q1", "b3", "b4", "b5", "-"]);
        assert_eq!(core.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_ends_when_a_delay_does() {
        let queue = Queue::default();
        queue.core().add_after(key("a"), Duration::ZERO, Duration::from_secs(30));
        let before = Instant::now();
        assert_eq!(queue.take().await.0, key("a"));
        assert!(before.elapsed() >= Duration::from_secs(30));
    }
}
