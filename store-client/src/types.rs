//! The values that cross the store's boundary: revisions, records, ranges, pages and events.

use std::fmt;

use bytes::Bytes;

/// A point in the store's history. 0 is before everything; an empty store is at 1; the first write gets at least 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before any write: a watch after it delivers the whole history (if nothing is compacted).
    pub const ZERO: Self = Self(0);
    /// The revision of a store that was never written to.
    pub const EMPTY: Self = Self(1);

    /// The revision as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Any bytes but none at all.
    pub key: Bytes,
    /// Any bytes; may be empty.
    pub value: Bytes,
    /// The write that made this version.
    pub mod_revision: Revision,
    /// The write that created the key (again, if it had been deleted).
    pub create_revision: Revision,
    /// 1 at creation, one more with every update.
    pub version: u64,
}

/// A half-open interval of keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First key, inclusive.
    pub start: Bytes,
    /// First key behind the span; `None` for the end of the key space.
    pub end: Option<Bytes>,
}

impl Span {
    /// The whole key space.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end }
    }

    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = Vec::with_capacity(start.len() + 1);
        end.extend_from_slice(&start);
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// Whether `key` lies in the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether no key can lie in the span.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The smallest key greater than every key with this prefix; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// A read of several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First key, inclusive.
    pub start: Bytes,
    /// First key behind the range; `None` for the end of the key space.
    pub end: Option<Bytes>,
    /// The revision to read at; `None` for now.
    pub at: Option<Revision>,
    /// At most this many records; 0 for all.
    pub limit: usize,
}

impl Range {
    /// All keys that begin with `prefix`, now, without limit.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Span::prefix(prefix).into()
    }

    /// Every key, now, without limit.
    pub fn all() -> Self {
        Span::all().into()
    }

    /// The same keys read at `revision`.
    pub fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// The same keys, but at most `limit` records (0 for all).
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The same range from just behind `key` on: the next page.
    pub fn after_key(mut self, key: &[u8]) -> Self {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        self.start = start.into();
        self
    }

    /// The keys of this range.
    pub fn span(&self) -> Span {
        Span { start: self.start.clone(), end: self.end.clone() }
    }
}

impl From<Span> for Range {
    fn from(span: Span) -> Self {
        Self { start: span.start, end: span.end, at: None, limit: 0 }
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The revision the page was read at; a watch after it continues without a gap.
    pub revision: Revision,
    /// In key order.
    pub items: Vec<Record>,
    /// Whether the limit cut records off.
    pub more: bool,
    /// How many records of the range lie behind the last item.
    pub remaining: u64,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Created (`version == 1`) or updated.
    Put(Record),
    /// Deleted. The deleted value is not carried: the watcher's own cache has it.
    Delete,
}

/// One write as a watch sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the write.
    pub revision: Revision,
    /// The key written to.
    pub key: Bytes,
    /// What the write did.
    pub change: Change,
}

impl Event {
    /// The stored record, `None` for a deletion.
    pub fn record(&self) -> Option<&Record> {
        match &self.change {
            Change::Put(record) => Some(record),
            Change::Delete => None,
        }
    }
}

/// Figures about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// As [`crate::Store::current_revision`].
    pub revision: Revision,
    /// Reads and watches before this revision are refused. On etcd the highest this client has learnt of.
    pub compacted: Revision,
    /// What the store occupies: memory of values for the memory engine, file bytes otherwise.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_before_the_first_key_without_it() {
        let check = |prefix: &[u8], end: Option<&[u8]>| {
            assert_eq!(Span::prefix(Bytes::copy_from_slice(prefix)).end.as_deref(), end, "{prefix:?}");
        };
        check(b"/registry/pods/", Some(b"/registry/pods0"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }

    #[test]
    fn single_key_span_holds_only_its_key() {
        let span = Span::key("a");
        assert!(span.contains(b"a"));
        assert!(!span.contains(b"a\0"));
        assert!(!span.contains(b""));
        assert!(Span::all().contains(b"\xff\xff"));
    }
}
