//! How long ago something was, when all that is known is a time of day that somebody wrote. From the first look at it a
//! time's age is measured on this process's own clock: a clock of the day that is set forward must not end a deadline,
//! and one that is set back must not start a wait afresh.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The times that were looked at, one for each thing they are about.
#[derive(Default)]
pub struct Ages(Mutex<HashMap<String, Seen>>);

struct Seen {
    time: Timestamp,
    at: Instant,
    /// How old it was then, by the clock of the day. Never negative: a time from the future says that the clock was set
    /// back, and is not waited for.
    age: SignedDuration,
}

impl Ages {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, id: &str, time: Timestamp, now: Timestamp) -> SignedDuration {
        let mut all = self.seen();
        if let Some(seen) = all.get(id).filter(|seen| seen.time == time) {
            let passed = SignedDuration::try_from(seen.at.elapsed()).unwrap_or(SignedDuration::MAX);
            return seen.age.saturating_add(passed);
        }
        let age = now.duration_since(time).max(SignedDuration::ZERO);
        all.insert(id.to_owned(), Seen { time, at: Instant::now(), age });
        age
    }

    /// To be told of what is gone.
    pub fn forget(&self, id: &str) {
        self.seen().remove(id);
    }
}

/// The present, as plans see it: the time of day, and how long ago times were.
#[derive(Clone, Copy)]
pub struct Clock<'a> {
    pub now: Timestamp,
    ages: Option<&'a Ages>,
}

impl<'a> Clock<'a> {
    pub fn new(now: Timestamp, ages: &'a Ages) -> Self {
        Self { now, ages: Some(ages) }
    }

    /// How long ago `time` was; `id` is what the time is about.
    pub fn since(&self, id: &str, time: Timestamp) -> SignedDuration {
        match self.ages {
            Some(ages) => ages.of(id, time, self.now),
            None => self.now.duration_since(time),
        }
    }
}

/// A clock that was never set.
impl From<Timestamp> for Clock<'_> {
    fn from(now: Timestamp) -> Self {
        Self { now, ages: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_changes_no_age() {
        let ages = Ages::default();
        let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let hour = SignedDuration::from_hours(1);
        let seconds = |now: Timestamp, time: Timestamp| Clock::new(now, &ages).since("p", time).as_secs();
        assert_eq!(seconds(noon + SignedDuration::from_secs(5), noon), 5);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(seconds(noon + hour, noon), 15, "set forward");
        assert_eq!(seconds(noon - hour, noon), 15, "set back");
        // Another time, by the clock that was set back meanwhile.
        assert_eq!(seconds(noon - hour, noon + hour), 0, "not waited for");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(seconds(noon - hour, noon + hour), 3);
        ages.forget("p");
        assert_eq!(seconds(noon + hour, noon), 3600);
    }
}
