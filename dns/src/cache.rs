//! Answers from outside, kept as long as they may be believed. Bounded: beyond the limit the oldest goes. Expired
//! answers stay for a while, for the time when no server outside can be reached (RFC 8767).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Answers kept at most; an entry takes about half a kilobyte.
const ENTRIES_MAX: usize = 8_192;
/// How long an answer is believed at most, whatever it says itself.
const TTL_MAX: Duration = Duration::from_secs(3_600);
/// The same for "there is nothing".
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);
/// How long an answer of a server that failed is believed: enough to keep a busy client from asking in a loop.
const FAILURE_TTL: Duration = Duration::from_secs(2);
/// How long after its end an answer still serves when nobody can be asked.
const STALE_MAX: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// In lower case.
    pub name: Name,
    pub kind: RecordType,
    pub dnssec_ok: bool,
}

/// What a server outside said, without the question.
#[derive(Debug)]
pub struct Answer {
    pub code: ResponseCode,
    /// The server has verified the signatures.
    pub authentic: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
}

#[derive(Clone)]
pub struct Held {
    pub answer: Arc<Answer>,
    /// Seconds since it was given: its records have that much less time left.
    pub age_seconds: u32,
    pub expired: bool,
}

struct Entry {
    answer: Arc<Answer>,
    at: Instant,
    ttl: Duration,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// In the order of arrival; a key that was renewed stands here once.
    order: VecDeque<Key>,
}

#[derive(Default)]
pub struct Cache(Mutex<Entries>);

impl Cache {
    pub fn get(&self, key: &Key, now: Instant) -> Option<Held> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_key.get(key)?;
        let age = now.saturating_duration_since(entry.at);
        if age > entry.ttl + STALE_MAX {
            return None;
        }
        let age_seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        Some(Held { answer: entry.answer.clone(), age_seconds, expired: age >= entry.ttl })
    }

    pub fn put(&self, key: Key, answer: Arc<Answer>, now: Instant) {
        let ttl = lifetime(&answer);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_key.insert(key.clone(), Entry { answer, at: now, ttl }).is_none() {
            entries.order.push_back(key);
        }
        while entries.by_key.len() > ENTRIES_MAX {
            let Some(oldest) = entries.order.pop_front() else { break };
            entries.by_key.remove(&oldest);
        }
    }
}

/// How long an answer may be believed: its shortest record, or for "nothing" what the zone's SOA says (RFC 2308).
fn lifetime(answer: &Answer) -> Duration {
    let seconds = |s: u32| Duration::from_secs(u64::from(s));
    match answer.code {
        ResponseCode::NoError if !answer.answers.is_empty() => {
            let shortest = answer.answers.iter().map(|r| r.ttl).min().unwrap_or_default();
            seconds(shortest).min(TTL_MAX)
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let soa = answer.authorities.iter().find_map(|r| match &r.data {
                RData::SOA(soa) => Some(r.ttl.min(soa.minimum)),
                _ => None,
            });
            soa.map_or(FAILURE_TTL, seconds).min(NEGATIVE_TTL_MAX)
        }
        _ => FAILURE_TTL,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::SOA;

    use super::*;

    fn key(name: &str) -> Key {
        Key { name: Name::from_ascii(name).expect("a name"), kind: RecordType::A, dnssec_ok: false }
    }

    fn address(ttl: u32) -> Answer {
        let record = Record::from_rdata(Name::root(), ttl, RData::A(Ipv4Addr::LOCALHOST.into()));
        Answer { code: ResponseCode::NoError, authentic: false, answers: vec![record], authorities: Vec::new() }
    }

    fn nothing(ttl: u32, minimum: u32) -> Answer {
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum);
        let record = Record::from_rdata(Name::root(), ttl, RData::SOA(soa));
        Answer { code: ResponseCode::NXDomain, authentic: false, answers: Vec::new(), authorities: vec![record] }
    }

    #[test]
    fn an_answer_lives_as_long_as_it_says_within_limits() {
        assert_eq!(lifetime(&address(30)), Duration::from_secs(30));
        assert_eq!(lifetime(&address(1_000_000)), TTL_MAX);
        assert_eq!(lifetime(&nothing(900, 60)), Duration::from_secs(60));
        assert_eq!(lifetime(&nothing(900, 900)), NEGATIVE_TTL_MAX);
        let failure = Answer { code: ResponseCode::ServFail, ..nothing(900, 900) };
        assert_eq!(lifetime(&failure), FAILURE_TTL);
    }

    #[test]
    fn an_expired_answer_is_told_as_such_and_goes_in_the_end() {
        let cache = Cache::default();
        let start = Instant::now();
        cache.put(key("a.example."), Arc::new(address(30)), start);
        let at = |seconds| cache.get(&key("a.example."), start + Duration::from_secs(seconds));
        assert!(at(29).is_some_and(|held| !held.expired && held.age_seconds == 29));
        assert!(at(30).is_some_and(|held| held.expired));
        assert!(at(31 + STALE_MAX.as_secs()).is_none());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let cache = Cache::default();
        let now = Instant::now();
        for n in 0..=ENTRIES_MAX {
            cache.put(key(&format!("n{n}.example.")), Arc::new(address(30)), now);
        }
        assert!(cache.get(&key("n0.example."), now).is_none());
        assert!(cache.get(&key("n1.example."), now).is_some());
    }
}
