//! The maps and sets of a table, by name, key and what they give. Their elements are what Services are made of; the rules
//! that look into them are the same for all.

use nftables::{Set, Type};

/// Maps and sets whose elements Services are. A *frontend* is `address . protocol . port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Map {
    /// Frontend to its [`Way`].
    Frontends,
    /// List of endpoints on this node to the [`Way`] to all endpoints, for what pods and the node itself send.
    Everywhere,
    /// `list . index` to `address . port`.
    Endpoints,
    /// `address . address . protocol . port` of endpoints on this node: one that reaches itself through its Service is
    /// masqueraded, or it would see its own address as the client's and answer itself.
    Hairpins,
    /// Frontends without any endpoint: refused rather than left to time out.
    Refused,
    /// Frontends without an endpoint on this node, where they need one.
    Dropped,
    ClusterIps,
    /// Frontends that only some may use.
    Guarded,
    /// `frontend . prefix length . address` that may.
    Sources,
    /// Frontends with affinity, to the seconds it lasts.
    Sticky,
    /// Count to the chain that picks one of so many.
    Picks,
    /// Seconds to the chain that keeps a client for so long.
    Times,
}

/// All that hold data of Services, in an order in which elements can be added.
pub const DATA_MAPS: [Map; 10] = [
    Map::Endpoints,
    Map::Sources,
    Map::Guarded,
    Map::Hairpins,
    Map::ClusterIps,
    Map::Sticky,
    Map::Everywhere,
    Map::Frontends,
    Map::Refused,
    Map::Dropped,
];

/// Has a rule for each length of prefix that source ranges have.
pub const GUARD_CHAIN: &str = "guards";
/// Has a rule for each range of cluster addresses, whose comment is the range.
pub const RANGE_CHAIN: &str = "unassigned";
pub const KINDS: &str = "kinds";
pub const KINDS_COUNT: usize = 3;
/// An empty chain: there is no endpoint to go to.
pub const NOWHERE: &str = "none";
/// `frontend . client` to `address . port`; filled by rules.
pub const AFFINITY: &str = "affinity";

impl Map {
    pub fn name(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Everywhere => "everywhere",
            Self::Endpoints => "endpoints",
            Self::Hairpins => "hairpins",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::ClusterIps => "cluster-ips",
            Self::Guarded => "guarded",
            Self::Sources => "sources",
            Self::Sticky => "sticky",
            Self::Picks => "picks",
            Self::Times => "times",
        }
    }

    pub(super) fn set(self, ip: Type) -> Set {
        let frontend = [ip, Type::Protocol, Type::Port];
        match self {
            Self::Frontends | Self::Sticky => Set::map(self.name(), &frontend, &[Type::Mark]),
            Self::Everywhere => Set::map(self.name(), &[Type::Mark], &[Type::Mark]),
            Self::Endpoints => Set::map(self.name(), &[Type::Mark, Type::Mark], &[ip, Type::Port]),
            Self::Hairpins => Set::new(self.name(), &[ip, ip, Type::Protocol, Type::Port]),
            Self::Refused | Self::Dropped | Self::Guarded => Set::new(self.name(), &frontend),
            Self::ClusterIps => Set::new(self.name(), &[ip]),
            Self::Sources => Set::new(self.name(), &[ip, Type::Protocol, Type::Port, Type::Mark, ip]),
            Self::Picks | Self::Times => Set::verdicts(self.name(), &[Type::Mark]),
        }
    }
}
