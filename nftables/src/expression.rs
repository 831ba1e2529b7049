//! What rules are made of: the kernel's expressions, which load registers, look values up, and give a verdict.
//!
//! A rule runs its expressions in order until one of them does not match. The functions at the end are the usual
//! matches, spelled in expressions.

use crate::kernel::{
    DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, Family, LIST_ELEM, REG_VERDICT, REG32_00, VERDICT_CHAIN,
    VERDICT_CODE,
};
use crate::message::{Attributes, Writer};

/// One of the sixteen registers of four bytes. Longer values take the following ones, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// The register `count` further.
    pub const fn plus(self, count: u8) -> Self {
        Self(self.0 + count)
    }

    fn number(self) -> u32 {
        REG32_00 + u32::from(self.0)
    }
}

/// What becomes of a packet, or of the way through the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    /// This base chain is done; chains of other hooks and tables still see the packet.
    Accept,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Continue => -1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.nested(DATA_VERDICT, |out| {
            out.number(VERDICT_CODE, self.code() as u32);
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                out.text(VERDICT_CHAIN, chain);
            }
        });
    }

    pub(crate) fn read(data: Attributes<'_>) -> Option<Self> {
        let verdict = data.nested(DATA_VERDICT)?;
        let chain = || verdict.text(VERDICT_CHAIN).map(ToOwned::to_owned);
        match verdict.number(VERDICT_CODE)? as i32 {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            -1 => Some(Self::Continue),
            -3 => Some(Self::Jump(chain()?)),
            -4 => Some(Self::Goto(chain()?)),
            -5 => Some(Self::Return),
            _ => None,
        }
    }
}

/// Where in a packet a payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What is known of a packet besides its bytes (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// For queues, a number of 32 bits. A router gives each packet it forwards another one.
    Priority = 2,
    Mark = 3,
    /// Indexes of interfaces.
    InInterface = 4,
    OutInterface = 5,
    /// Names of interfaces, 16 bytes.
    InName = 6,
    OutName = 7,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, one byte.
    Family = 15,
    /// One byte.
    Protocol = 16,
}

/// What is known of the packet's connection (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// Bits: [`Ct::NEW`] and its like.
    State = 0,
    /// 0 from the side that opened it, 1 back; one byte.
    Direction = 1,
    /// Bits: [`Ct::DNAT`] and its like.
    Status = 2,
    Mark = 3,
}

/// What the first packet of the connection looked like (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    DestinationPort = 12,
    DestinationIpv4 = 20,
    DestinationIpv6 = 22,
}

impl Ct {
    /// Bits of the state (`NF_CT_STATE_BIT`).
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    /// Bits of the status: its source, its destination was translated (`IPS_SRC_NAT`, `IPS_DST_NAT`).
    pub const SNAT: u32 = 1 << 4;
    pub const DNAT: u32 = 1 << 5;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
    Less = 2,
    LessOrEqual = 3,
    Greater = 4,
    GreaterOrEqual = 5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynsetOp {
    Add = 0,
    /// Add, or give what is there its full time again. What a map holds for the key stays.
    Update = 1,
    Delete = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    Source = 0,
    Destination = 1,
}

/// Which address of the packet is looked up in the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibOf {
    Source = 1,
    Destination = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP or ICMPv6: port unreachable.
    PortUnreachable,
    TcpReset,
    AdminProhibited,
}

impl Reject {
    /// Type and code. A table of one family must say it in that family's own codes: the kernel drops what is said in
    /// those for both, and sends nothing.
    fn numbers(self, family: Family) -> (u32, u8) {
        match (self, family) {
            (Self::TcpReset, _) => (1, 0),
            (Self::PortUnreachable, Family::Ip) => (0, 3),
            (Self::PortUnreachable, Family::Ip6) => (0, 4),
            (Self::PortUnreachable, _) => (2, 1),
            (Self::AdminProhibited, Family::Ip) => (0, 13),
            (Self::AdminProhibited, Family::Ip6) => (0, 1),
            (Self::AdminProhibited, _) => (2, 3),
        }
    }
}

/// One expression. `to` is the first register it fills, `from` the first one it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        to: Register,
    },
    Meta {
        key: Meta,
        to: Register,
    },
    SetMeta {
        key: Meta,
        from: Register,
    },
    Ct {
        key: Ct,
        to: Register,
    },
    CtOriginal {
        key: Original,
        to: Register,
    },
    /// Matches, or ends the rule.
    Compare {
        op: Compare,
        from: Register,
        value: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`, over the length of `mask`.
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// With `to`, what the map gives goes there. `inverted`: matches what is not in the set.
    Lookup {
        set: String,
        from: Register,
        to: Option<Register>,
        inverted: bool,
    },
    /// The verdict a map of verdicts gives; without one the rule ends.
    VerdictMap {
        map: String,
        from: Register,
    },
    Immediate {
        to: Register,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    /// A random number below `modulus`.
    Numgen {
        to: Register,
        modulus: u32,
    },
    /// Ends the rule when the set is full.
    Dynset {
        set: String,
        op: DynsetOp,
        key: Register,
        data: Option<Register>,
        timeout_ms: Option<u64>,
    },
    Nat {
        kind: Nat,
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    /// With source ports at random.
    Masquerade,
    /// In the table's family.
    Reject(Family, Reject),
    /// The kind of address it is to this host (`RTN_LOCAL` is 2), a number.
    FibType {
        of: FibOf,
        to: Register,
    },
    Counter,
}

impl Expr {
    /// Matches what is in the set.
    pub fn lookup(set: impl Into<String>, from: Register) -> Self {
        Self::Lookup { set: set.into(), from, to: None, inverted: false }
    }

    /// Matches what is in the map, and loads what it gives.
    pub fn load(map: impl Into<String>, from: Register, to: Register) -> Self {
        Self::Lookup { set: map.into(), from, to: Some(to), inverted: false }
    }

    /// The kernel's name of it, as dumps give it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } | Self::CtOriginal { .. } => "ct",
            Self::Compare { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Numgen { .. } => "numgen",
            Self::Dynset { .. } => "dynset",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(..) => "reject",
            Self::FibType { .. } => "fib",
            Self::Counter => "counter",
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.nested(LIST_ELEM, |out| {
            out.text(EXPR_NAME, self.name());
            out.nested(EXPR_DATA, |out| self.attributes(out));
        });
    }

    /// Each arm: the attributes of this expression, numbered as in its `enum nft_*_attributes`.
    fn attributes(&self, out: &mut Writer) {
        /// `NFT_NG_RANDOM`
        const RANDOM: u32 = 1;
        /// `NFT_FIB_RESULT_ADDRTYPE`
        const ADDRESS_TYPE: u32 = 3;
        /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
        const RANDOM_PORTS: u32 = 1 << 4;
        match self {
            Self::Payload { header, offset, length, to } => {
                numbers(out, &[(1, to.number()), (2, *header as u32), (3, *offset), (4, *length)]);
            }
            Self::Meta { key, to } => numbers(out, &[(1, to.number()), (2, *key as u32)]),
            Self::SetMeta { key, from } => numbers(out, &[(2, *key as u32), (3, from.number())]),
            Self::Ct { key, to } => numbers(out, &[(1, to.number()), (2, *key as u32)]),
            Self::CtOriginal { key, to } => {
                numbers(out, &[(1, to.number()), (2, *key as u32)]);
                out.bytes(3, &[0]);
            }
            Self::Compare { op, from, value } => {
                numbers(out, &[(1, from.number()), (2, *op as u32)]);
                out.nested(3, |out| out.bytes(DATA_VALUE, value));
            }
            Self::Bitwise { from, to, mask, xor } => {
                numbers(out, &[(1, from.number()), (2, to.number()), (3, mask.len() as u32)]);
                out.nested(4, |out| out.bytes(DATA_VALUE, mask));
                out.nested(5, |out| out.bytes(DATA_VALUE, xor));
            }
            Self::Lookup { set, from, to, inverted } => {
                out.text(1, set);
                out.number(2, from.number());
                if let Some(to) = to {
                    out.number(3, to.number());
                }
                if *inverted {
                    out.number(5, 1);
                }
            }
            Self::VerdictMap { map, from } => {
                out.text(1, map);
                numbers(out, &[(2, from.number()), (3, REG_VERDICT)]);
            }
            Self::Immediate { to, value } => {
                out.number(1, to.number());
                out.nested(2, |out| out.bytes(DATA_VALUE, value));
            }
            Self::Verdict(verdict) => {
                out.number(1, REG_VERDICT);
                out.nested(2, |out| verdict.write(out));
            }
            Self::Numgen { to, modulus } => numbers(out, &[(1, to.number()), (2, *modulus), (3, RANDOM), (4, 0)]),
            Self::Dynset { set, op, key, data, timeout_ms } => {
                out.text(1, set);
                numbers(out, &[(3, *op as u32), (4, key.number())]);
                if let Some(data) = data {
                    out.number(5, data.number());
                }
                if let Some(timeout) = timeout_ms {
                    out.long(6, *timeout);
                }
            }
            Self::Nat { kind, family, address, port } => {
                numbers(out, &[(1, *kind as u32), (2, *family as u32), (3, address.number())]);
                if let Some(port) = port {
                    out.number(5, port.number());
                }
            }
            Self::Masquerade => out.number(1, RANDOM_PORTS),
            Self::Reject(family, kind) => {
                let (kind, code) = kind.numbers(*family);
                out.number(1, kind);
                out.bytes(2, &[code]);
            }
            Self::FibType { of, to } => numbers(out, &[(1, to.number()), (2, ADDRESS_TYPE), (3, *of as u32)]),
            Self::Counter => {}
        }
    }
}

fn numbers(out: &mut Writer, all: &[(u16, u32)]) {
    for (kind, value) in all {
        out.number(*kind, *value);
    }
}

/// Loads the source address of a packet: one register, or four in family `Ip6`.
pub fn source_address(family: Family, to: Register) -> Expr {
    address(family, to, 12, 8)
}

/// Loads the destination address of a packet: one register, or four in family `Ip6`.
pub fn destination_address(family: Family, to: Register) -> Expr {
    address(family, to, 16, 24)
}

fn address(family: Family, to: Register, v4: u32, v6: u32) -> Expr {
    let (offset, length) = if family == Family::Ip6 { (v6, 16) } else { (v4, 4) };
    Expr::Payload { header: Header::Network, offset, length, to }
}

/// Loads the protocol above IP (`IPPROTO_TCP`), one byte.
pub fn l4proto(to: Register) -> Expr {
    Expr::Meta { key: Meta::Protocol, to }
}

/// Loads the source port of TCP, UDP, SCTP and their like.
pub fn source_port(to: Register) -> Expr {
    Expr::Payload { header: Header::Transport, offset: 0, length: 2, to }
}

/// Loads the destination port of TCP, UDP, SCTP and their like.
pub fn destination_port(to: Register) -> Expr {
    Expr::Payload { header: Header::Transport, offset: 2, length: 2, to }
}

pub fn equals(from: Register, value: impl Into<Vec<u8>>) -> Expr {
    Expr::Compare { op: Compare::Equal, from, value: value.into() }
}

/// Matches a connection's first packet; uses the register.
pub fn is_new(scratch: Register) -> Vec<Expr> {
    has_bits(Expr::Ct { key: Ct::State, to: scratch }, scratch, Ct::NEW)
}

/// Matches when one of the bits is set in what `load` loads into `scratch`.
fn has_bits(load: Expr, scratch: Register, bits: u32) -> Vec<Expr> {
    let mask = bits.to_ne_bytes().to_vec();
    vec![
        load,
        Expr::Bitwise { from: scratch, to: scratch, mask, xor: vec![0; 4] },
        Expr::Compare { op: Compare::NotEqual, from: scratch, value: vec![0; 4] },
    ]
}

impl Ct {
    /// Matches when one of the bits is set.
    pub fn has(self, bits: u32, scratch: Register) -> Vec<Expr> {
        has_bits(Expr::Ct { key: self, to: scratch }, scratch, bits)
    }
}

impl Meta {
    /// Matches when one of the bits is set.
    pub fn has(self, bits: u32, scratch: Register) -> Vec<Expr> {
        has_bits(Expr::Meta { key: self, to: scratch }, scratch, bits)
    }
}

/// Sets bits of the packet's mark, or takes them away; uses the register.
pub fn set_mark_bits(bits: u32, on: bool, scratch: Register) -> Vec<Expr> {
    let xor = if on { bits } else { 0 };
    vec![
        Expr::Meta { key: Meta::Mark, to: scratch },
        Expr::Bitwise {
            from: scratch,
            to: scratch,
            mask: (!bits).to_ne_bytes().to_vec(),
            xor: xor.to_ne_bytes().to_vec(),
        },
        Expr::SetMeta { key: Meta::Mark, from: scratch },
    ]
}

/// Matches an address in the register when it is in `base/prefix` or, with `inside` false, when it is not; uses the
/// registers from `scratch` on. `base` is the range's first address.
pub fn in_range(from: Register, base: std::net::IpAddr, prefix: u8, inside: bool, scratch: Register) -> Vec<Expr> {
    let value = crate::Value::new().address(base).0;
    let mut mask = vec![0; value.len()];
    for (at, byte) in mask.iter_mut().enumerate() {
        let bits = usize::from(prefix).saturating_sub(at * 8).min(8);
        *byte = !(0xff_u32 >> bits) as u8;
    }
    let op = if inside { Compare::Equal } else { Compare::NotEqual };
    vec![
        Expr::Bitwise { from, to: scratch, xor: vec![0; mask.len()], mask },
        Expr::Compare { op, from: scratch, value },
    ]
}
