//! A range of addresses, as `10.244.0.0/16` writes it. What the API takes besides (leading zeros, from before they were
//! refused) is `strategy::address`'s affair.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The first address: bits behind the prefix are zero.
    pub base: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        (prefix <= bits(address)).then(|| Self { base: masked(address, prefix), prefix })
    }

    /// One address.
    pub fn single(address: IpAddr) -> Self {
        Self { base: address, prefix: bits(address) }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.base.is_ipv6() && masked(address, self.prefix) == self.base
    }

    pub fn last(&self) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let rest = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(base.to_bits() | rest).into()
            }
            IpAddr::V6(base) => {
                let rest = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv6Addr::from_bits(base.to_bits() | rest).into()
            }
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits behind the prefix zero.
pub fn masked(address: IpAddr, prefix: u8) -> IpAddr {
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
    use super::Cidr;

    #[test]
    fn ranges_are_read_and_contain_addresses() {
        let range = Cidr::parse("10.1.2.3/16").unwrap();
        assert_eq!(range, Cidr { base: "10.1.0.0".parse().unwrap(), prefix: 16 });
        assert!(range.contains("10.1.255.255".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()) && !range.contains("fd00::1".parse().unwrap()));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(Cidr::parse("fd00::/8").unwrap().contains("fd00::1".parse().unwrap()));
        assert_eq!([Cidr::parse("10.0.0.0"), Cidr::parse("10.0.0.0/33"), Cidr::parse("x/8")], [None; 3]);
    }

    #[test]
    fn the_last_address_has_all_bits_behind_the_prefix() {
        for (range, last) in [
            ("10.1.2.3/16", "10.1.255.255"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("fd00::/120", "fd00::ff"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(Cidr::parse(range).unwrap().last(), last.parse::<std::net::IpAddr>().unwrap(), "{range}");
        }
    }
}
