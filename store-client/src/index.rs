//! The key index: which versions of which key are retained, without values. Both local engines read through it.
//! Invariant: versions of a key are in ascending revision order, and none older than needed for `compacted` remains
//! once [`Index::forget`] has been told of it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::{Change, Error, Event, Result, Revision, Span};

/// A version of a key without key and value. `version == 0` is a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub mod_revision: Revision,
    pub create_revision: Revision,
    pub version: u64,
}

impl Version {
    pub fn tombstone(revision: Revision) -> Self {
        Self { mod_revision: revision, create_revision: Revision::ZERO, version: 0 }
    }

    pub fn of(event: &Event) -> Self {
        match &event.change {
            Change::Delete => Self::tombstone(event.revision),
            Change::Put(record) => Self {
                mod_revision: record.mod_revision,
                create_revision: record.create_revision,
                version: record.version,
            },
        }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// The newest version inline (most keys have only that one), older ones ascending.
#[derive(Debug)]
struct Versions {
    newest: Version,
    older: Vec<Version>,
}

#[derive(Debug)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Versions>,
    revision: Revision,
    compacted: Revision,
}

/// Keys of a range with the version that is valid there.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub items: Vec<(Bytes, Version)>,
    pub remaining: u64,
}

impl Index {
    pub fn new(revision: Revision, compacted: Revision) -> Self {
        Self { keys: BTreeMap::new(), revision, compacted }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The newest version if the key exists.
    pub fn live(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key).map(|versions| versions.newest).filter(|newest| !newest.is_tombstone())
    }

    /// Adds the version of the newest write.
    pub fn push(&mut self, key: Bytes, version: Version) {
        assert!(version.mod_revision > self.revision, "revisions only grow");
        self.revision = version.mod_revision;
        self.insert(key, version);
    }

    /// Sets the revision to at least `revision`: the newest write may have been a deletion that is compacted away.
    pub fn raise(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn insert(&mut self, key: Bytes, version: Version) {
        match self.keys.get_mut(&key) {
            None => {
                self.keys.insert(key, Versions { newest: version, older: Vec::new() });
            }
            Some(versions) => {
                assert!(versions.newest.mod_revision < version.mod_revision, "versions of a key ascend");
                versions.older.push(versions.newest);
                versions.newest = version;
            }
        }
    }

    /// The revision a read takes place at, or why it cannot.
    pub fn readable(&self, at: Option<Revision>) -> Result<Revision> {
        match at {
            None => Ok(self.revision),
            Some(at) if at > self.revision => Err(Error::Future { requested: at, current: self.revision }),
            Some(at) if at < self.compacted => Err(Error::Compacted { requested: at, compacted: self.compacted }),
            Some(at) => Ok(at),
        }
    }

    /// The keys of `span` that exist at `at`, at most `limit` of them (0: all), and how many more there are.
    pub fn select(&self, span: &Span, at: Revision, limit: usize) -> Selection {
        let mut selection = Selection::default();
        if span.is_empty() {
            return selection;
        }
        let end = match &span.end {
            Some(end) => Bound::Excluded(&end[..]),
            None => Bound::Unbounded,
        };
        for (key, versions) in self.keys.range::<[u8], _>((Bound::Included(&span.start[..]), end)) {
            let Some(version) = versions.at(at).filter(|version| !version.is_tombstone()) else { continue };
            if limit != 0 && selection.items.len() == limit {
                selection.remaining += 1;
            } else {
                selection.items.push((key.clone(), version));
            }
        }
        selection
    }

    /// Refuses reads before `revision` from now on. The versions go with [`Index::forget`].
    pub fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        self.compacted = self.compacted.max(revision);
        Ok(())
    }

    /// Drops the versions of `key` that no read at or after `compacted` can need; returns their revisions.
    pub fn forget(&mut self, key: &[u8]) -> Vec<Revision> {
        let Some(versions) = self.keys.get_mut(key) else { return Vec::new() };
        let mut dead = versions.forget_before(self.compacted);
        let newest = versions.newest;
        if versions.older.is_empty() && newest.is_tombstone() && newest.mod_revision <= self.compacted {
            dead.push(newest.mod_revision);
            self.keys.remove(key);
        }
        dead
    }
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<Version> {
        if self.newest.mod_revision <= revision {
            return Some(self.newest);
        }
        let behind = self.older.partition_point(|version| version.mod_revision <= revision);
        behind.checked_sub(1).map(|last| self.older[last])
    }

    /// Removes what lies behind the version valid at `compacted`, and that one too if it is a deletion.
    fn forget_before(&mut self, compacted: Revision) -> Vec<Revision> {
        if self.newest.mod_revision <= compacted {
            return std::mem::take(&mut self.older).into_iter().map(|version| version.mod_revision).collect();
        }
        let behind = self.older.partition_point(|version| version.mod_revision <= compacted);
        let Some(valid) = behind.checked_sub(1) else { return Vec::new() };
        let cut = if self.older[valid].is_tombstone() { behind } else { valid };
        let dead = self.older.drain(..cut).map(|version| version.mod_revision).collect();
        self.older.shrink_to_fit();
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: u64, version: u64) -> Version {
        Version { mod_revision: Revision(revision), create_revision: Revision(2), version }
    }

    fn keys(index: &Index, at: u64) -> Vec<(Bytes, u64)> {
        let selection = index.select(&Span::all(), Revision(at), 0);
        selection.items.into_iter().map(|(key, version)| (key, version.mod_revision.0)).collect()
    }

    fn sample() -> Index {
        let mut index = Index::new(Revision::EMPTY, Revision::ZERO);
        index.push("a".into(), put(2, 1));
        index.push("b".into(), put(3, 1));
        index.push("a".into(), put(4, 2));
        index.push("b".into(), Version::tombstone(Revision(5)));
        index.push("a".into(), put(6, 3));
        index
    }

    #[test]
    fn reads_at_every_revision() {
        let index = sample();
        assert_eq!(keys(&index, 1), vec![]);
        assert_eq!(keys(&index, 3), vec![("a".into(), 2), ("b".into(), 3)]);
        assert_eq!(keys(&index, 4), vec![("a".into(), 4), ("b".into(), 3)]);
        assert_eq!(keys(&index, 6), vec![("a".into(), 6)]);
        assert_eq!(index.live(b"b"), None);
    }

    #[test]
    fn forgets_only_what_no_readable_revision_needs() {
        let mut index = sample();
        index.compact(Revision(5)).unwrap();
        assert_eq!(index.forget(b"a"), vec![Revision(2)]);
        assert_eq!(index.forget(b"b"), vec![Revision(3), Revision(5)]);
        assert_eq!(index.forget(b"b"), vec![]);
        assert_eq!(keys(&index, 5), vec![("a".into(), 4)]);
        assert_eq!(keys(&index, 6), vec![("a".into(), 6)]);
    }

    #[test]
    fn limit_counts_the_rest() {
        let index = sample();
        let selection = index.select(&Span::all(), Revision(4), 1);
        assert_eq!((selection.items.len(), selection.remaining), (1, 1));
    }
}
