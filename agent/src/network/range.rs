//! An address range. Its first address stands for the range itself, the second is the bridge's, the rest are pods'.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Offsets in a range that are searched for a free address; larger ranges are used only in part.
const ADDRESSES_MAX: u64 = 65_536;

#[derive(Debug, thiserror::Error)]
#[error("pod address range {range:?} is not an address with a prefix length")]
pub struct Error {
    range: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

impl Range {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error { range: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (address, prefix): (IpAddr, u8) = (address.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
        // Two bits less leave an address for the bridge and one for a pod.
        if prefix == 0 || prefix > bits(address) - 2 {
            return Err(bad());
        }
        Ok(Self { base: mask(address, prefix), prefix })
    }

    pub fn base(self) -> IpAddr {
        self.base
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn at(self, offset: u64) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() + offset as u32).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + u128::from(offset)).into(),
        }
    }

    pub fn gateway(self) -> IpAddr {
        self.at(1)
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && mask(address, self.prefix) == self.base
    }

    pub fn overlaps(self, other: Range) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// Offsets of addresses for pods: neither the network's own, nor the bridge's, nor the broadcast address.
    pub fn offsets(self) -> std::ops::Range<u64> {
        let size = 1_u64.checked_shl(u32::from(bits(self.base) - self.prefix)).unwrap_or(u64::MAX);
        2..(size - 1).min(ADDRESSES_MAX)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `prefix` is neither zero nor more than the address has bits.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - prefix))).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - prefix))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn a_range_has_room_for_a_bridge_and_a_pod() {
        for range in ["10.0.0.0", "10.0.0.0/31", "x/24", "10.0.0.0/0", "fd00::/127"] {
            assert!(Range::parse(range).is_err(), "{range}");
        }
        assert_eq!(Range::parse("10.9.0.77/29").unwrap().to_string(), "10.9.0.72/29");
    }

    #[test]
    fn ranges_overlap_when_one_contains_the_other() {
        let overlap = |a: &str, b: &str| Range::parse(a).unwrap().overlaps(Range::parse(b).unwrap());
        assert!(overlap("10.9.0.0/16", "10.9.7.0/24") && overlap("10.9.7.0/24", "10.9.0.0/16"));
        assert!(!overlap("10.9.6.0/24", "10.9.7.0/24") && !overlap("10.9.0.0/16", "fd00::/64"));
    }
}
