//! What a candidate does with a Lease: a pure decision with the semantics of client-go's `LeaderElector`. A lease
//! counts as held from the moment *this* process saw it change, so that clocks of different hosts don't matter.

use std::time::Duration;

/// The fields of a Lease that election uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty when released.
    pub holder: String,
    pub lease_duration: Duration,
    pub transitions: i32,
    /// The lease's `resourceVersion`: it changes with every renewal.
    pub version: String,
}

/// The last record seen, and when it was first seen (any monotonic clock).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub record: Record,
    pub since: Duration,
}

impl Observed {
    /// Notes the record read at `now`.
    pub fn see(&mut self, record: Record, now: Duration) {
        if self.record != record {
            *self = Self { record, since: now };
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write ourselves as the new holder, with this many transitions.
    Acquire { transitions: i32 },
    /// Keep the lease: write a new renew time.
    Renew,
    /// Somebody else holds it.
    Wait,
}

pub fn decide(observed: &Observed, identity: &str, now: Duration) -> Action {
    let record = &observed.record;
    if record.holder == identity {
        return Action::Renew;
    }
    let expires = observed.since + record.lease_duration;
    if !record.holder.is_empty() && now < expires {
        return Action::Wait;
    }
    Action::Acquire { transitions: record.transitions.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn record(holder: &str, version: &str) -> Record {
        Record { holder: holder.into(), lease_duration: 15 * S, transitions: 3, version: version.into() }
    }

    #[test]
    fn a_lease_is_taken_only_after_it_stood_still_for_its_duration() {
        let mut observed = Observed::default();
        observed.see(record("b", "1"), 100 * S);
        assert_eq!(decide(&observed, "a", 114 * S), Action::Wait);
        // Renewed by b: the clock starts again.
        observed.see(record("b", "2"), 114 * S);
        assert_eq!(decide(&observed, "a", 128 * S), Action::Wait);
        // Seen again unchanged: it does not.
        observed.see(record("b", "2"), 128 * S);
        assert_eq!(decide(&observed, "a", 129 * S), Action::Acquire { transitions: 4 });
        assert_eq!(decide(&observed, "b", 129 * S), Action::Renew);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let mut observed = Observed::default();
        observed.see(record("", "1"), 5 * S);
        assert_eq!(decide(&observed, "a", 5 * S), Action::Acquire { transitions: 4 });
    }
}
