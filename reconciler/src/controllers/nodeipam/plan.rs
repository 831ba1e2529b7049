//! Which part of the cluster's address ranges each node gets. Pure: everything that is taken is read from the nodes.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// Size of a node's range (`--node-cidr-mask-size-ipv4`, `-ipv6`).
const NODE_BITS_V4: u8 = 24;
const NODE_BITS_V6: u8 = 64;

/// An address range of the cluster, cut into ranges for nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u128,
    bits: u8,
    node_bits: u8,
    v6: bool,
}

impl Range {
    /// Reads `10.244.0.0/16`. A range smaller than one node's is given to one node whole.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let v6 = address.is_ipv6();
        let (width, node_bits) = if v6 { (128, NODE_BITS_V6) } else { (32, NODE_BITS_V4) };
        if bits > width {
            return None;
        }
        let number = to_number(address);
        let mask = u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or_default();
        Some(Self { first: number & mask, bits, node_bits: node_bits.max(bits), v6 })
    }

    fn width(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn count(&self) -> u128 {
        1u128.checked_shl(u32::from(self.node_bits - self.bits)).unwrap_or(u128::MAX)
    }

    fn nth(&self, index: u128) -> String {
        let number = self.first + (index << (self.width() - self.node_bits));
        format!("{}/{}", to_address(number, self.v6), self.node_bits)
    }

    /// The node ranges that `cidr` touches.
    fn taken_by(&self, cidr: &str) -> Option<std::ops::RangeInclusive<u128>> {
        let other = Self::parse(cidr).filter(|o| o.v6 == self.v6)?;
        let shift = self.width() - self.node_bits;
        let size = 1u128.checked_shl(u32::from(other.width() - other.bits)).unwrap_or(u128::MAX);
        let last = other.first.saturating_add(size - 1);
        let end = self
            .first
            .saturating_add(1u128.checked_shl(u32::from(self.width() - self.bits)).map_or(u128::MAX, |s| s - 1));
        if last < self.first || other.first > end {
            return None;
        }
        let index = |number: u128| (number.clamp(self.first, end) - self.first) >> shift;
        Some(index(other.first)..=index(last))
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn to_address(number: u128, v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(number.into()) } else { IpAddr::V4(u32::try_from(number).unwrap_or_default().into()) }
}

/// Ranges for the nodes without: one of each cluster range per node. A node for which nothing is left is among
/// `without`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub given: BTreeMap<String, Vec<String>>,
    pub without: Vec<String>,
}

/// `nodes` are names with the ranges they have.
pub fn plan<'a>(ranges: &[Range], nodes: impl Iterator<Item = (&'a str, &'a [String])>) -> Plan {
    let nodes: Vec<(&str, &[String])> = nodes.collect();
    let mut taken: Vec<HashSet<u128>> = vec![HashSet::new(); ranges.len()];
    for cidr in nodes.iter().flat_map(|(_, cidrs)| cidrs.iter()) {
        for (range, taken) in ranges.iter().zip(&mut taken) {
            // A node with a range far larger than ours is somebody's mistake; it takes all, without us counting it out.
            taken.extend(range.taken_by(cidr).into_iter().flatten().take(1 << 20));
        }
    }
    // Beyond the last one first: what a node gave back rests, as others may still have routes to it.
    let mut next: Vec<u128> =
        taken.iter().map(|taken| taken.iter().max().map_or(0, |last| last.saturating_add(1))).collect();
    let mut plan = Plan::default();
    let mut is_full = false;
    for (name, _) in nodes.iter().filter(|(_, cidrs)| cidrs.is_empty()) {
        if is_full {
            plan.without.push((*name).to_owned());
            continue;
        }
        let mut given = Vec::new();
        for ((range, taken), next) in ranges.iter().zip(&mut taken).zip(&mut next) {
            if let Some(free) = free(range, taken, *next) {
                taken.insert(free);
                given.push(range.nth(free));
                *next = free + 1;
            }
        }
        if given.len() == ranges.len() {
            plan.given.insert((*name).to_owned(), given);
        } else {
            // For the others there is nothing either, so they need no search of the whole range.
            is_full = true;
            plan.without.push((*name).to_owned());
        }
    }
    plan
}

/// The first index from `from` on that is not taken, then from the start.
fn free(range: &Range, taken: &HashSet<u128>, from: u128) -> Option<u128> {
    let first = |mut indexes: std::ops::Range<u128>| indexes.find(|index| !taken.contains(index));
    first(from..range.count()).or_else(|| first(0..from.min(range.count())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ranges: &[&str], nodes: &[(&str, &[&str])]) -> Plan {
        let ranges: Vec<Range> = ranges.iter().map(|r| Range::parse(r).expect("a range")).collect();
        let nodes: Vec<(&str, Vec<String>)> =
            nodes.iter().map(|(name, cidrs)| (*name, cidrs.iter().map(|c| (*c).to_owned()).collect())).collect();
        plan(&ranges, nodes.iter().map(|(name, cidrs)| (*name, cidrs.as_slice())))
    }

    #[test]
    fn nodes_get_ranges_that_are_free() {
        let plan = run(
            &["10.244.0.0/16", "fd00::/48"],
            &[("a", &["10.244.0.0/24", "fd00::/64"]), ("b", &[]), ("c", &["10.244.2.0/23"]), ("d", &[])],
        );
        assert_eq!(plan.given["b"], ["10.244.4.0/24", "fd00:0:0:1::/64"]);
        assert_eq!(plan.given["d"], ["10.244.5.0/24", "fd00:0:0:2::/64"]);
    }

    #[test]
    fn what_was_given_back_is_used_when_nothing_else_is_left() {
        let nodes: &[(&str, &[&str])] = &[("b", &["10.0.1.0/24"]), ("d", &["10.0.3.0/24"]), ("e", &[]), ("f", &[])];
        let plan = run(&["10.0.0.0/22"], nodes);
        assert_eq!((&*plan.given["e"][0], &*plan.given["f"][0]), ("10.0.0.0/24", "10.0.2.0/24"));
    }

    #[test]
    fn a_full_range_leaves_nodes_without() {
        let plan = run(&["10.0.0.0/23"], &[("a", &[]), ("b", &[]), ("c", &[])]);
        assert_eq!((plan.given.len(), plan.without.as_slice()), (2, ["c".to_owned()].as_slice()));
        // Small clusters: a range that is one node's.
        assert_eq!(run(&["10.0.0.0/26"], &[("a", &[])]).given["a"], ["10.0.0.0/26"]);
        assert_eq!(Range::parse("10.0.0.0/33"), None);
        assert_eq!(Range::parse("10.0.0.0"), None);
    }
}
