//! What the rules of one family are put together from: keys, addresses of this node, and the number that a packet takes
//! along from rule to rule ([`super::Way`]).

use api::cidr::Cidr;
use nftables::{
    Expr, Family, FibOf, Meta, Nat, Original, Register, Rule, Type, Verdict, destination_address, destination_port,
    equals, in_range, l4proto,
};

use super::Frame;

/// The first register of a key. What follows a key: [`Frame::behind`].
pub(super) const KEY: Register = Register(0);

impl Frame<'_> {
    pub(super) fn family(&self) -> Family {
        if self.ipv6 { Family::Ip6 } else { Family::Ip }
    }

    pub(super) fn ip(&self) -> Type {
        if self.ipv6 { Type::Ipv6 } else { Type::Ipv4 }
    }

    /// Registers that an address takes.
    pub(super) fn words(&self) -> u8 {
        self.ip().registers()
    }

    /// The first register behind a frontend.
    pub(super) fn behind(&self) -> Register {
        KEY.plus(self.words() + 2)
    }

    /// Those of this family.
    pub(super) fn own(&self, ranges: &[Cidr]) -> Vec<Cidr> {
        ranges.iter().copied().filter(|range| range.base.is_ipv6() == self.ipv6).collect()
    }

    pub(super) fn pods(&self) -> Vec<Cidr> {
        self.own(&self.fixed.pods)
    }

    /// Whether the destination in [`KEY`] is, or is not, a loopback address.
    pub(super) fn loopback(&self, inside: bool) -> Vec<Expr> {
        let range = if self.ipv6 { "::1/128" } else { "127.0.0.0/8" };
        let range = Cidr::parse(range).expect("a range");
        in_range(KEY, range.base, range.prefix, inside, self.behind())
    }

    pub(super) fn key(&self) -> Vec<Expr> {
        vec![
            destination_address(self.family(), KEY),
            l4proto(KEY.plus(self.words())),
            destination_port(KEY.plus(self.words() + 1)),
        ]
    }

    /// The key of node ports: an address of zeros.
    pub(super) fn node_key(&self) -> Vec<Expr> {
        let zeros = Expr::Immediate { to: KEY, value: vec![0; usize::from(self.words()) * 4] };
        [vec![zeros], self.key().split_off(1)].concat()
    }

    /// Whether node ports answer on the destination's address.
    pub(super) fn node_address(&self) -> Vec<Expr> {
        let mut expressions = vec![destination_address(self.family(), KEY)];
        if self.ipv6 || !self.fixed.localhost_node_ports {
            expressions.extend(self.loopback(false));
        }
        expressions.extend([Expr::FibType { of: FibOf::Destination, to: self.behind() }, is_local(self.behind())]);
        expressions
    }

    /// Rules that need an address of the node's: one, or one for each range.
    pub(super) fn node_rules(&self, chain: &str, then: &[Expr]) -> Vec<Rule> {
        let ranges = self.own(&self.fixed.node_port_ranges);
        if ranges.is_empty() {
            return vec![Rule::new(chain, [self.node_address(), then.to_vec()].concat())];
        }
        let within = |range: &Cidr| {
            let inside = in_range(KEY, range.base, range.prefix, true, self.behind());
            Rule::new(chain, [self.node_address(), inside, then.to_vec()].concat())
        };
        ranges.iter().map(within).collect()
    }

    /// The frontend that the connection was opened to.
    pub(super) fn original_key(&self) -> Vec<Expr> {
        let address = if self.ipv6 { Original::DestinationIpv6 } else { Original::DestinationIpv4 };
        vec![
            Expr::CtOriginal { key: address, to: KEY },
            l4proto(KEY.plus(self.words())),
            Expr::CtOriginal { key: Original::DestinationPort, to: KEY.plus(self.words() + 1) },
        ]
    }

    /// The packet's priority is 0 again; what the registers hold stays.
    pub(super) fn clear_way(&self) -> Vec<Expr> {
        let free = self.behind().plus(2 * self.words());
        vec![Expr::Immediate { to: free, value: vec![0; 4] }, Expr::SetMeta { key: Meta::Priority, from: free }]
    }

    pub(super) fn nat(&self, address: Register) -> Expr {
        let port = Some(address.plus(self.words()));
        Expr::Nat { kind: Nat::Destination, family: self.family(), address, port }
    }
}

/// Takes the way in the register along.
pub(super) fn take_way(from: Register) -> Vec<Expr> {
    vec![Expr::SetMeta { key: Meta::Priority, from }]
}

/// Loads what is taken along, under a mask.
pub(super) fn load_way(mask: u32) -> Vec<Expr> {
    let mut expressions = vec![Expr::Meta { key: Meta::Priority, to: KEY }];
    if mask != u32::MAX {
        let mask = mask.to_ne_bytes().to_vec();
        expressions.push(Expr::Bitwise { from: KEY, to: KEY, mask, xor: vec![0; 4] });
    }
    expressions
}

pub(super) fn by_way(mask: u32, map: &str) -> Vec<Expr> {
    [load_way(mask), vec![Expr::VerdictMap { map: map.to_owned(), from: KEY }]].concat()
}

pub(super) fn go_dispatch() -> Expr {
    go(Verdict::Goto("dispatch".to_owned()))
}

pub(super) fn go(verdict: Verdict) -> Expr {
    Expr::Verdict(verdict)
}

/// `RTN_LOCAL`: an address of this host.
pub(super) fn is_local(kind: Register) -> Expr {
    equals(kind, 2_u32.to_ne_bytes())
}
