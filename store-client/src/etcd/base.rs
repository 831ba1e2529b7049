//! Where the revisions of a restored cluster begin. etcd numbers its writes itself, from 1; a cluster that was restored
//! from a backup has to count from above the backup, or watchers would see time go backwards. So a restore leaves a
//! number in etcd, under a key of this engine's own, and every revision that crosses the engine's boundary is etcd's
//! plus that number. A cluster that was never restored has no such key, and its revisions are etcd's.

use crate::{Error, Result, Revision, Span};

/// Ranges leave it out, and nobody watches while a restore writes it.
pub(super) const KEY: &[u8] = b"\0keelson/revision-base";
/// Follows the number while a restore is at work.
const RESTORING: &str = " restoring";

/// What is added to etcd's revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base(pub u64);

impl Base {
    /// From the key's value. A restore that was not finished is an error: nobody must run on half of a cluster.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(value);
        let attempt = "read where the revisions of this etcd begin".to_owned();
        if text.ends_with(RESTORING) {
            let detail = "a restore into it was not finished; erase etcd's data and restore again".to_owned();
            return Err(Error::Open { attempt, detail });
        }
        let number = text.parse().map_err(|_| Error::Corrupt {
            place: format!("etcd key {}", KEY.escape_ascii()),
            detail: format!("{text:?} is no number"),
        })?;
        Ok(Self(number))
    }

    pub fn value(self, is_restoring: bool) -> String {
        format!("{}{}", self.0, if is_restoring { RESTORING } else { "" })
    }

    /// A revision of etcd as we name it. etcd counts in signed numbers and never goes below 0, which means none.
    pub fn revision(self, number: i64) -> Revision {
        match u64::try_from(number) {
            Ok(0) | Err(_) => Revision::ZERO,
            Ok(number) => Revision(number.saturating_add(self.0)),
        }
    }

    /// A revision of ours as etcd names it: 0 for those before the base.
    pub fn number(self, revision: Revision) -> i64 {
        i64::try_from(revision.0.saturating_sub(self.0)).unwrap_or(i64::MAX)
    }

    /// Whether this engine's own key is among those of the span.
    pub fn is_in(self, span: &Span) -> bool {
        self.0 > 0 && span.contains(KEY)
    }

    /// Whether the revision is from before a restore, so that etcd does not know it.
    pub fn is_before(self, revision: Revision) -> bool {
        self.0 > 0 && revision.0 <= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_shifted_and_none_stays_none() {
        let base = Base(1000);
        assert_eq!((base.revision(7), base.number(Revision(1007))), (Revision(1007), 7));
        assert_eq!((base.revision(0), base.number(Revision(999)), base.number(Revision::ZERO)), (Revision::ZERO, 0, 0));
        assert!(base.is_before(Revision(1000)) && !base.is_before(Revision(1001)));
        assert!(!Base::default().is_before(Revision::ZERO));
        assert_eq!(Base::default().number(Revision(u64::MAX)), i64::MAX);
    }

    #[test]
    fn a_restore_that_was_not_finished_is_told() {
        assert_eq!(Base::parse(Base(12).value(false).as_bytes()).unwrap(), Base(12));
        let error = Base::parse(Base(12).value(true).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("was not finished"), "{error}");
        assert!(matches!(Base::parse(b"twelve"), Err(Error::Corrupt { .. })));
    }
}
