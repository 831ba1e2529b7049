//! IP addresses and their ranges. IPv4 in IPv6 and zones are refused, as upstream's `ParseIP` refuses them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

/// An address with a prefix; bits behind the prefix are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    fn masked(self) -> Self {
        Self { address: api::cidr::masked(self.address, self.prefix), ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        let range = self.masked();
        api::cidr::Cidr { base: range.address, prefix: range.prefix }.contains(address)
    }

    fn contains_range(self, other: Self) -> bool {
        other.prefix >= self.prefix && self.contains(other.address)
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    let refused = |why: &str| Error::other(format!("IP Address '{text}' {why}"));
    let parsed: IpAddr = text.parse().map_err(|_| refused("parse error during conversion from string"))?;
    match parsed {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(refused("IPv4-mapped IPv6 address is not allowed"))
        }
        address => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, Error> {
    let refused = || Error::other(format!("network address parse error during conversion from string: '{text}'"));
    let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
    let address = parse_ip(address)?;
    let plain = prefix.bytes().all(|c| c.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
    let prefix: u8 = prefix.parse().ok().filter(|_| plain).ok_or_else(refused)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix > bits { Err(refused()) } else { Ok(Cidr { address, prefix }) }
}

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    let truth = |b: bool| Ok(Value::Bool(b));
    Some(match (function, args) {
        ("isIP", [Value::String(text)]) => truth(parse_ip(text).is_ok()),
        ("ip", [Value::String(text)]) => parse_ip(text).map(Value::Ip),
        ("ip.isCanonical", [Value::String(text)]) => {
            parse_ip(text).map(|address| Value::Bool(address.to_string() == **text))
        }
        ("family", [Value::Ip(address)]) => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Value::Ip(address)]) => truth(address.is_unspecified()),
        ("isLoopback", [Value::Ip(address)]) => truth(address.is_loopback()),
        ("isLinkLocalMulticast", [Value::Ip(address)]) => truth(link_local_multicast(*address)),
        ("isLinkLocalUnicast", [Value::Ip(address)]) => truth(link_local(*address)),
        ("isGlobalUnicast", [Value::Ip(address)]) => truth(global_unicast(*address)),
        ("isCIDR", [Value::String(text)]) => truth(parse_cidr(text).is_ok()),
        ("cidr", [Value::String(text)]) => parse_cidr(text).map(Value::Cidr),
        ("containsIP", [Value::Cidr(cidr), Value::Ip(address)]) => truth(cidr.contains(*address)),
        ("containsIP", [Value::Cidr(cidr), Value::String(text)]) => {
            parse_ip(text).map(|address| Value::Bool(cidr.contains(address)))
        }
        ("containsCIDR", [Value::Cidr(cidr), Value::Cidr(other)]) => truth(cidr.contains_range(*other)),
        ("containsCIDR", [Value::Cidr(cidr), Value::String(text)]) => {
            parse_cidr(text).map(|other| Value::Bool(cidr.contains_range(other)))
        }
        ("ip", [Value::Cidr(cidr)]) => Ok(Value::Ip(cidr.address)),
        ("masked", [Value::Cidr(cidr)]) => Ok(Value::Cidr(cidr.masked())),
        ("prefixLength", [Value::Cidr(cidr)]) => Ok(Value::Int(cidr.prefix.into())),
        _ => return None,
    })
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

fn global_unicast(address: IpAddr) -> bool {
    let none = [IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].contains(&address);
    !(none || address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local(address))
}
