//! Address blocks with exceptions as disjoint ranges in order: what an interval set of the kernel takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::cidr::Cidr;

/// First and last address, of one family.
pub type Range = (IpAddr, IpAddr);

/// The addresses of a block, as first and last; `None` when it is not an address with a prefix length.
pub fn block(cidr: &str) -> Option<Range> {
    Cidr::parse(cidr).map(|block| (block.base, block.last()))
}

/// The block without its exceptions. An exception that cannot be read, or is of another family, takes nothing away.
pub fn without(whole: Range, except: &[Range]) -> Vec<Range> {
    let mut left = vec![whole];
    for (first, last) in except.iter().filter(|(first, _)| first.is_ipv4() == whole.0.is_ipv4()) {
        let (first, last) = (number(*first), number(*last));
        left = left
            .into_iter()
            .flat_map(|(from, to)| {
                let (start, end) = (number(from), number(to));
                let before = (start < first).then(|| (from, at(from, end.min(first.wrapping_sub(1)))));
                let after = (last < end).then(|| (at(from, start.max(last.wrapping_add(1))), to));
                [before, after].into_iter().flatten()
            })
            .collect();
    }
    left
}

/// Sorted, with overlapping and adjacent ranges made one.
pub fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort();
    let mut merged: Vec<Range> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if end.is_ipv4() == first.is_ipv4() && number(first) <= number(*end).saturating_add(1) => {
                *end = (*end).max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Of the family of `like`.
fn at(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cidr: &str, except: &[&str], expected: &str) {
        let except = except.iter().map(|text| block(text).unwrap()).collect::<Vec<_>>();
        let ranges = union(without(block(cidr).unwrap(), &except));
        let text = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" ");
        assert_eq!(text, expected);
    }

    #[test]
    fn exceptions_are_cut_out() {
        check("10.0.0.7/8", &[], "10.0.0.0-10.255.255.255");
        check("10.0.0.0/30", &["10.0.0.0/31"], "10.0.0.2-10.0.0.3");
        check("10.0.0.0/30", &["10.0.0.2/32"], "10.0.0.0-10.0.0.1 10.0.0.3-10.0.0.3");
        check("10.0.0.0/30", &["10.0.0.0/8"], "");
        check("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26", "10.0.0.255/32"], "10.0.0.128-10.0.0.254");
        check("10.0.0.0/24", &["10.1.0.0/24", "fd00::/64"], "10.0.0.0-10.0.0.255");
        check("0.0.0.0/0", &["0.0.0.0/1"], "128.0.0.0-255.255.255.255");
        check("::/0", &["::/1"], "8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn neighbours_become_one() {
        let of = |text: &str| block(text).unwrap();
        let merged =
            union(vec![of("10.0.1.0/24"), of("10.0.0.0/24"), of("10.0.0.128/25"), of("fd00::/64"), of("::/0")]);
        assert_eq!(merged, [(of("10.0.0.0/24").0, of("10.0.1.0/24").1), of("::/0")]);
    }

    #[test]
    fn what_is_no_block_is_none() {
        assert!(["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129"].iter().all(|text| block(text).is_none()));
    }
}
