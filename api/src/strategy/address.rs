//! IP addresses and ranges: unambiguous ones, in canonical form where a field is newer than that rule
//! (`IsValidIPForLegacyField` with StrictIPCIDRValidation, `IsValidIP`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::{Cidr, masked};

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

const LEADING_ZEROS: &str = "must not have leading 0s";
const LEADING_ZEROS_IN_RANGE: &str = "must not have leading 0s in IP or prefix length";

/// Parses an address, leading zeros in IPv4 read as decimal.
pub fn parse(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Parses `address/bits`, with the same leniency.
pub fn parse_range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse(address)?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= max).then_some((address, bits))
}

pub fn is_ipv6(text: &str) -> bool {
    text.contains(':')
}

/// Valid, and read alike by every parser.
pub fn ip(text: &str) -> Vec<String> {
    let Some(address) = parse(text) else { return vec![NOT_AN_IP.to_owned()] };
    let padded = address.is_ipv4() && text.parse::<Ipv4Addr>().is_err();
    let found = [(padded, LEADING_ZEROS), (is_mapped(address), "must not be an IPv4-mapped IPv6 address")];
    found.into_iter().filter(|(bad, _)| *bad).map(|(_, problem)| problem.to_owned()).collect()
}

/// Valid and in canonical form.
pub fn canonical_ip(text: &str) -> Vec<String> {
    let problems = ip(text);
    match parse(text) {
        Some(address) if problems.is_empty() && address.to_string() != text => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => problems,
    }
}

/// A range that is read alike by every parser, without bits beyond the prefix.
pub fn cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = parse_range(text) else { return vec![NOT_A_CIDR.to_owned()] };
    let (written, length) = text.split_once('/').unwrap_or_default();
    let padded = address.is_ipv4() && written.parse::<Ipv4Addr>().is_err() || bits.to_string() != length;
    let found = [
        (padded, LEADING_ZEROS_IN_RANGE),
        (is_mapped(address), "must not have an IPv4-mapped IPv6 address"),
        (masked(address, bits) != address, "must not have bits set beyond the prefix length"),
    ];
    found.into_iter().find(|(bad, _)| *bad).map(|(_, problem)| problem.to_owned()).into_iter().collect()
}

/// A range in canonical form.
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let problems = cidr(text);
    let canonical = parse_range(text).map(|(address, bits)| format!("{address}/{bits}"));
    match canonical {
        Some(canonical) if problems.is_empty() && canonical != text => {
            vec![format!("must be in canonical form ({canonical:?})")]
        }
        _ => problems,
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// `range` contains `address`.
pub fn contains(range: (IpAddr, u8), address: IpAddr) -> bool {
    Cidr { base: masked(range.0, range.1), prefix: range.1 }.contains(address)
}

/// `ValidateEndpointIP`: addresses that would let a Service reach its own host.
pub fn non_special(text: &str) -> Vec<String> {
    let Some(address) = parse(text) else { return Vec::new() };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let unspecified = format!("may not be unspecified ({text:?})");
    let found = [
        (address.is_unspecified(), unspecified.as_str()),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    found.into_iter().filter(|(bad, _)| *bad).map(|(_, problem)| problem.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, good, canonical) in [
            ("10.9.8.7", true, true),
            ("010.0.0.1", false, false),
            ("10.0.0", false, false),
            ("::ffff:10.0.0.1", false, false),
            ("2001:db8::1", true, true),
            ("2001:DB8::1", true, false),
        ] {
            assert_eq!((ip(text).is_empty(), canonical_ip(text).is_empty()), (good, canonical), "{text}");
        }
        assert!(!non_special("127.0.0.1").is_empty());
    }

    #[test]
    fn ranges() {
        for (text, good) in [
            ("10.0.0.0/8", true),
            ("::/0", true),
            ("0.0.0.0/0", true),
            ("10.0.0.1/8", false),
            ("10.0.0.0/08", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0", false),
        ] {
            assert_eq!(cidr(text).is_empty(), good, "{text}");
        }
        assert!(contains(([10u8, 0, 0, 0].into(), 8), "10.2.3.4".parse().unwrap()));
    }
}
