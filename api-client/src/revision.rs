//! A cluster revision, parsed from `resourceVersion`. Revisions of one API server are comparable across kinds of the
//! same store; 0 means "none known".

use std::fmt;

/// A `resourceVersion` as a number. Unparsable versions (some aggregated API servers) read as [`Revision::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// No revision known.
    pub const NONE: Self = Self(0);

    pub fn parse(resource_version: &str) -> Self {
        Self(resource_version.parse().unwrap_or_default())
    }

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
