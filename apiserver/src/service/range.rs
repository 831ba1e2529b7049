//! Addresses of the service range: which there are and which come first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address range such as 10.96.0.0/16")]
pub struct RangeError(String);

/// A block of addresses, `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u8,
}

/// Upstream allows no more than this many addresses of an IPv6 range (`MaxServiceCIDR…`).
const HOST_BITS_MAX: u32 = 20;

impl Range {
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits > width {
            return Err(bad());
        }
        let base = match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
            }
        };
        Ok(Self { base, bits })
    }

    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// How many addresses can be given out: not the first, and for IPv4 not the last.
    pub fn size(&self) -> u32 {
        let width = if self.is_ipv4() { 32 } else { 128 };
        let host_bits = (width - u32::from(self.bits)).min(HOST_BITS_MAX.max(if self.is_ipv4() { 31 } else { 0 }));
        let all = 1_u64 << host_bits;
        let usable = if self.is_ipv4() { all.saturating_sub(2) } else { all - 1 };
        u32::try_from(usable).unwrap_or(u32::MAX)
    }

    /// The address `offset` after the base; offset 0, the base itself, is never given out.
    pub fn address(&self, offset: u32) -> Option<IpAddr> {
        if offset == 0 || offset > self.size() {
            return None;
        }
        Some(match self.base {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() + offset)),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() + u128::from(offset))),
        })
    }

    /// The offset of an address that can be given out.
    pub fn offset(&self, address: IpAddr) -> Option<u32> {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(a)) => u128::from(a.to_bits().checked_sub(base.to_bits())?),
            (IpAddr::V6(base), IpAddr::V6(a)) => a.to_bits().checked_sub(base.to_bits())?,
            _ => return None,
        };
        u32::try_from(offset).ok().filter(|offset| (1..=self.size()).contains(offset))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_number_their_addresses() {
        let range = Range::parse("10.96.0.7/16").unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.size(), 65_534);
        assert_eq!(range.address(1), Some("10.96.0.1".parse().unwrap()));
        assert_eq!((range.address(0), range.address(65_535)), (None, None));
        assert_eq!(range.offset("10.96.1.0".parse().unwrap()), Some(256));
        for outside in ["10.96.0.0", "10.96.255.255", "10.97.0.1", "fd00::1"] {
            assert_eq!(range.offset(outside.parse().unwrap()), None, "{outside}");
        }
        let six = Range::parse("fd00::/108").unwrap();
        assert_eq!(six.size(), (1 << 20) - 1);
        assert_eq!(six.address(2), Some("fd00::2".parse().unwrap()));
    }

    #[test]
    fn bad_ranges_are_refused() {
        for text in ["", "10.96.0.0", "10.96.0.0/33", "x/8", "fd00::/129"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
    }
}
