//! A range of addresses, as `10.244.0.0/16` writes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first address: bits behind the prefix are zero.
    pub base: IpAddr,
    pub prefix: u8,
}

impl Range {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
        let bits = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
        (prefix <= bits).then(|| Self { base: masked(address, prefix), prefix })
    }

    /// One address.
    pub fn single(address: IpAddr) -> Self {
        Self { base: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.base.is_ipv6() && masked(address, self.prefix) == self.base
    }
}

/// The address with all bits behind the prefix zero.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn ranges_are_read_and_contain_addresses() {
        let range = Range::parse("10.1.2.3/16").unwrap();
        assert_eq!(range, Range { base: "10.1.0.0".parse().unwrap(), prefix: 16 });
        assert!(range.contains("10.1.255.255".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()) && !range.contains("fd00::1".parse().unwrap()));
        assert!(Range::parse("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(Range::parse("fd00::/8").unwrap().contains("fd00::1".parse().unwrap()));
        assert_eq!([Range::parse("10.0.0.0"), Range::parse("10.0.0.0/33"), Range::parse("x/8")], [None; 3]);
    }
}
