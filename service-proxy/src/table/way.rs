//! Numbers and chains between a frontend and its endpoints: where a connection goes in one number, and the chains that
//! are made for a count of endpoints or a time of affinity.

use nftables::{Element, Value, Verdict};

use super::map::Map;
use crate::plan::Kind;

/// Chains for this many endpoints are always there, so that most changes need no new chain.
const COUNTS_AT_HAND: u32 = 8;

/// Where a frontend's connections go, in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way(pub u32);

impl Way {
    const LIST_BITS: u32 = 18;
    const COUNT_BITS: u32 = 12;
    /// Lists and endpoints in a list that the number has room for.
    pub const LIST_MAX: u32 = (1 << Self::LIST_BITS) - 1;
    pub const COUNT_MAX: u32 = (1 << Self::COUNT_BITS) - 1;
    pub(super) const COUNT_MASK: u32 = Self::COUNT_MAX << Self::LIST_BITS;
    const KIND_SHIFT: u32 = Self::LIST_BITS + Self::COUNT_BITS;
    pub(super) const KIND_MASK: u32 = u32::MAX << Self::KIND_SHIFT;

    /// `kind`: none for a way that is entered behind the kinds.
    pub fn new(kind: Option<Kind>, count: u32, list: u32) -> Self {
        debug_assert!(count <= Self::COUNT_MAX && list <= Self::LIST_MAX, "room in the number");
        Self(kind.map_or(0, |kind| kind as u32) << Self::KIND_SHIFT | count << Self::LIST_BITS | list)
    }

    pub fn list(self) -> u32 {
        self.0 & Self::LIST_MAX
    }

    pub fn count(self) -> u32 {
        (self.0 & Self::COUNT_MASK) >> Self::LIST_BITS
    }
}

/// A chain that is there because some Service needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// Picks one of so many endpoints; never of 0.
    Pick(u32),
    /// Keeps a client for so many seconds.
    Remember(u32),
}

impl Shape {
    pub fn chain(&self) -> String {
        match self {
            Self::Pick(count) => format!("pick-{count}"),
            Self::Remember(seconds) => format!("remember-{seconds}"),
        }
    }

    /// What leads there.
    pub fn element(&self) -> (Map, Element) {
        let (map, number) = match self {
            Self::Pick(count) => (Map::Picks, Way::new(None, *count, 0).0),
            Self::Remember(seconds) => (Map::Times, *seconds),
        };
        (map, Element::with_verdict(Value::new().number(number), Verdict::Goto(self.chain())))
    }

    /// Part of every table.
    pub fn is_fixed(&self) -> bool {
        fixed_shapes().any(|shape| shape == *self)
    }
}

pub fn fixed_shapes() -> impl Iterator<Item = Shape> {
    (1..=COUNTS_AT_HAND).map(Shape::Pick)
}
