//! The shape of the table: its maps, chains and rules. Their number depends on how many *different* counts of
//! endpoints there are, never on how many Services; Services are elements.
//!
//! A new connection takes this way:
//! 1. `services` looks its destination up in [`Map::Frontends`], which gives one number made of kind, count and list
//!    ([`Way`]). Node ports have the address 0 there. The kind leads to a chain that marks what is to be masqueraded.
//! 2. `dispatch` sends clients with affinity to where they were before, and all others by the count to the chain
//!    `pick-COUNT`. Those chains differ only in the bound of a random number.
//! 3. List and random number together are a key of [`Map::Endpoints`], which gives the address and port to go to.
//! 4. When the destination is the endpoint's, `remember` keeps it for clients with affinity.
//!
//! From rule to rule the number travels as the packet's priority: newer kernels hand no registers on, and `nft` cannot
//! list a lookup by what another one gave. A packet that is forwarded gets its priority from its type of service after
//! all this, and one of this host gets 0, as most have; only first packets of connections come here at all.
//!
//! Two lookups of one packet may fall on both sides of a transaction. A random number that is no longer in the list
//! gets the list's first endpoint; failing that, the packet is dropped, and its sender tries again.

use std::hash::{DefaultHasher, Hash, Hasher};

use nftables::{
    Batch, Chain, Ct, DynsetOp, Element, Expr, Family, FibOf, Hook, Meta, Nat, Original, Register, Reject, Rule, Set,
    Table, Type, Value, Verdict, destination_address, destination_port, equals, in_range, is_new, l4proto,
    set_mark_bits, source_address,
};

use crate::plan::Kind;
use api::cidr::Cidr;

/// Mark of connections that leave with this node's address. Upstream's default bit (`masqueradeBit` 14).
const MASQUERADE_MARK: u32 = 0x4000;
/// Priorities of `dstnat`, `srcnat` and `filter`, and of what must see the destination before it is translated.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;
const BEFORE_DSTNAT: i32 = DSTNAT - 10;
/// Clients with affinity that are remembered; more of them are served, but forgotten at once.
const AFFINITY_CLIENTS_MAX: u32 = 1 << 20;
/// Chains for this many endpoints are always there, so that most changes need no new chain.
const COUNTS_AT_HAND: u32 = 8;

/// Maps and sets whose elements Services are. A *frontend* is `address . protocol . port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Map {
    /// Frontend to its [`Way`].
    Frontends,
    /// List of endpoints on this node to the [`Way`] to all endpoints, for what pods and the node itself send.
    Everywhere,
    /// `list . index` to `address . port`.
    Endpoints,
    /// `address . address . protocol . port` of endpoints on this node: one that reaches itself through its Service is
    /// masqueraded, or it would see its own address as the client's and answer itself.
    Hairpins,
    /// Frontends without any endpoint: refused rather than left to time out.
    Refused,
    /// Frontends without an endpoint on this node, where they need one.
    Dropped,
    ClusterIps,
    /// Frontends that only some may use.
    Guarded,
    /// `frontend . prefix length . address` that may.
    Sources,
    /// Frontends with affinity, to the seconds it lasts.
    Sticky,
    /// Count to the chain that picks one of so many.
    Picks,
    /// Seconds to the chain that keeps a client for so long.
    Times,
}

/// All that hold data of Services, in an order in which elements can be added.
pub const DATA_MAPS: [Map; 10] = [
    Map::Endpoints,
    Map::Sources,
    Map::Guarded,
    Map::Hairpins,
    Map::ClusterIps,
    Map::Sticky,
    Map::Everywhere,
    Map::Frontends,
    Map::Refused,
    Map::Dropped,
];

pub const GUARD_CHAIN: &str = "guards";
pub const KINDS: &str = "kinds";
pub const KINDS_COUNT: usize = 3;
/// An empty chain: there is no endpoint to go to.
pub const NOWHERE: &str = "none";
/// `frontend . client` to `address . port`; filled by rules.
pub const AFFINITY: &str = "affinity";

impl Map {
    pub fn name(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Everywhere => "everywhere",
            Self::Endpoints => "endpoints",
            Self::Hairpins => "hairpins",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::ClusterIps => "cluster-ips",
            Self::Guarded => "guarded",
            Self::Sources => "sources",
            Self::Sticky => "sticky",
            Self::Picks => "picks",
            Self::Times => "times",
        }
    }

    fn set(self, ip: Type) -> Set {
        let frontend = [ip, Type::Protocol, Type::Port];
        match self {
            Self::Frontends | Self::Sticky => Set::map(self.name(), &frontend, &[Type::Mark]),
            Self::Everywhere => Set::map(self.name(), &[Type::Mark], &[Type::Mark]),
            Self::Endpoints => Set::map(self.name(), &[Type::Mark, Type::Mark], &[ip, Type::Port]),
            Self::Hairpins => Set::new(self.name(), &[ip, ip, Type::Protocol, Type::Port]),
            Self::Refused | Self::Dropped | Self::Guarded => Set::new(self.name(), &frontend),
            Self::ClusterIps => Set::new(self.name(), &[ip]),
            Self::Sources => Set::new(self.name(), &[ip, Type::Protocol, Type::Port, Type::Mark, ip]),
            Self::Picks | Self::Times => Set::verdicts(self.name(), &[Type::Mark]),
        }
    }
}

/// Where a frontend's connections go, in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way(pub u32);

impl Way {
    const LIST_BITS: u32 = 18;
    const COUNT_BITS: u32 = 12;
    /// Lists and endpoints in a list that the number has room for.
    pub const LIST_MAX: u32 = (1 << Self::LIST_BITS) - 1;
    pub const COUNT_MAX: u32 = (1 << Self::COUNT_BITS) - 1;
    const COUNT_MASK: u32 = Self::COUNT_MAX << Self::LIST_BITS;
    const KIND_SHIFT: u32 = Self::LIST_BITS + Self::COUNT_BITS;
    const KIND_MASK: u32 = u32::MAX << Self::KIND_SHIFT;

    /// `kind`: none for a way that is entered behind the kinds.
    pub fn new(kind: Option<Kind>, count: u32, list: u32) -> Self {
        debug_assert!(count <= Self::COUNT_MAX && list <= Self::LIST_MAX, "room in the number");
        Self(kind.map_or(0, |kind| kind as u32) << Self::KIND_SHIFT | count << Self::LIST_BITS | list)
    }

    pub fn list(self) -> u32 {
        self.0 & Self::LIST_MAX
    }

    pub fn count(self) -> u32 {
        (self.0 & Self::COUNT_MASK) >> Self::LIST_BITS
    }
}

/// A chain that is there because some Service needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// Picks one of so many endpoints; never of 0.
    Pick(u32),
    /// Keeps a client for so many seconds.
    Remember(u32),
}

impl Shape {
    pub fn chain(&self) -> String {
        match self {
            Self::Pick(count) => format!("pick-{count}"),
            Self::Remember(seconds) => format!("remember-{seconds}"),
        }
    }

    /// What leads there.
    pub fn element(&self) -> (Map, Element) {
        let (map, number) = match self {
            Self::Pick(count) => (Map::Picks, Way::new(None, *count, 0).0),
            Self::Remember(seconds) => (Map::Times, *seconds),
        };
        (map, Element::with_verdict(Value::new().number(number), Verdict::Goto(self.chain())))
    }

    /// Part of every table.
    pub fn is_fixed(&self) -> bool {
        fixed_shapes().any(|shape| shape == *self)
    }
}

/// What does not change while a proxy runs.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Fixed {
    /// Name of the tables, in families `ip` and `ip6`.
    pub name: String,
    /// Ranges of all pods of the cluster. Clients elsewhere are outside.
    pub pods: Vec<Cidr>,
    /// What pods send out of the cluster leaves with the node's address.
    pub masquerades_egress: bool,
    /// Node ports answer on addresses of these ranges only; on all of the node's when there are none.
    pub node_port_ranges: Vec<Cidr>,
    /// Node ports answer on 127.0.0.1, too. There is no such thing in version 6.
    pub localhost_node_ports: bool,
}

/// The table of one family.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub fixed: &'a Fixed,
    pub ipv6: bool,
}

/// The first register of a key. What follows a key: [`Frame::behind`].
const KEY: Register = Register(0);

impl<'a> Frame<'a> {
    pub fn table(&self) -> Table<'a> {
        Table { family: self.family(), name: &self.fixed.name }
    }

    fn family(&self) -> Family {
        if self.ipv6 { Family::Ip6 } else { Family::Ip }
    }

    fn ip(&self) -> Type {
        if self.ipv6 { Type::Ipv6 } else { Type::Ipv4 }
    }

    fn words(&self) -> u8 {
        self.ip().registers()
    }

    /// The first register behind a frontend.
    fn behind(&self) -> Register {
        KEY.plus(self.words() + 2)
    }

    fn pods(&self) -> Vec<Cidr> {
        self.fixed.pods.iter().copied().filter(|range| range.base.is_ipv6() == self.ipv6).collect()
    }

    fn node_port_ranges(&self) -> Vec<Cidr> {
        self.fixed.node_port_ranges.iter().copied().filter(|range| range.base.is_ipv6() == self.ipv6).collect()
    }

    /// Says which table this is: one with another comment was made by another version or with other options, and is
    /// made anew.
    pub fn comment(&self) -> String {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", (self.chains(), self.rules(), self.sets())).hash(&mut hasher);
        format!("Services; layout {:016x}", hasher.finish())
    }

    /// Adds everything that is there without any Service. The table itself must be there, and empty.
    pub fn write(&self, batch: &mut Batch) {
        let table = self.table();
        self.sets().iter().for_each(|set| batch.add_set(table, set));
        self.chains().iter().for_each(|chain| batch.add_chain(table, chain));
        self.rules().iter().for_each(|rule| batch.add_rule(table, rule));
        let kinds: [_; KINDS_COUNT] =
            [(Kind::Internal, "internal"), (Kind::External, "external"), (Kind::ExternalLocal, "external-local")];
        let element = |number: u32, chain: &str| {
            Element::with_verdict(Value::new().number(number), Verdict::Goto(chain.to_owned()))
        };
        let kinds = kinds.map(|(kind, chain)| element(Way::new(Some(kind), 0, 0).0, chain));
        batch.add_elements(table, KINDS, kinds);
        batch.add_elements(table, Map::Picks.name(), [element(Way::new(None, 0, 0).0, NOWHERE)]);
        for shape in fixed_shapes() {
            self.write_shape(batch, &shape);
        }
    }

    pub fn write_shape(&self, batch: &mut Batch, shape: &Shape) {
        let table = self.table();
        batch.add_chain(table, &Chain::new(shape.chain()));
        // It may be one that was about to go.
        batch.flush_chain(table, &shape.chain());
        self.shape_rules(shape).iter().for_each(|rule| batch.add_rule(table, rule));
        let (map, element) = shape.element();
        batch.add_elements(table, map.name(), [element]);
    }

    fn sets(&self) -> Vec<Set> {
        let ip = self.ip();
        let mut sets: Vec<Set> = DATA_MAPS.iter().chain(&[Map::Picks, Map::Times]).map(|map| map.set(ip)).collect();
        sets.push(Set::verdicts(KINDS, &[Type::Mark]));
        let client = [ip, Type::Protocol, Type::Port, ip];
        sets.push(Set::map(AFFINITY, &client, &[ip, Type::Port]).dynamic(AFFINITY_CLIENTS_MAX));
        sets
    }

    fn chains(&self) -> Vec<Chain> {
        let plain = [
            NOWHERE,
            "services",
            "internal",
            "external",
            "external-local",
            "dispatch",
            "remember",
            "unserved",
            "unserved-nodes",
            "unused-ports",
            GUARD_CHAIN,
        ];
        let mut chains: Vec<Chain> = plain.map(Chain::new).into();
        chains.extend([
            Chain::base("guard-prerouting", "filter", Hook::Prerouting, BEFORE_DSTNAT),
            Chain::base("guard-output", "filter", Hook::Output, BEFORE_DSTNAT),
            Chain::base("prerouting", "nat", Hook::Prerouting, DSTNAT),
            Chain::base("output", "nat", Hook::Output, DSTNAT),
            Chain::base("input", "filter", Hook::Input, FILTER),
            Chain::base("forward", "filter", Hook::Forward, FILTER),
            Chain::base("filter-output", "filter", Hook::Output, FILTER),
            Chain::base("postrouting", "nat", Hook::Postrouting, SRCNAT),
        ]);
        chains
    }

    /// All rules but those of shapes and source ranges.
    fn rules(&self) -> Vec<Rule> {
        let mut rules = self.hook_rules();
        rules.extend(self.service_rules());
        rules.extend(self.remember_rules());
        rules.extend(self.unserved_rules());
        rules.extend(self.postrouting_rules());
        rules
    }

    fn hook_rules(&self) -> Vec<Rule> {
        let jump = |chain: &str, to: &str| Rule::new(chain, vec![go(Verdict::Jump(to.to_owned()))]);
        let new =
            |chain: &str, to: &str| Rule::new(chain, [is_new(KEY), vec![go(Verdict::Jump(to.to_owned()))]].concat());
        let mut rules = vec![
            jump("prerouting", "services"),
            jump("output", "services"),
            new("guard-prerouting", GUARD_CHAIN),
            new("guard-output", GUARD_CHAIN),
        ];
        if self.fixed.localhost_node_ports && !self.ipv6 {
            // The kernel routes to 127.0.0.1 from anywhere now; only answers may come.
            let lo = Value::new().interface("lo").0;
            let not_lo = Expr::Compare { op: nftables::Compare::NotEqual, from: KEY, value: lo };
            let expressions = [
                vec![Expr::Meta { key: Meta::InName, to: KEY }, not_lo, destination_address(Family::Ip, KEY)],
                self.loopback(true),
                is_new(KEY),
                vec![go(Verdict::Drop)],
            ];
            rules
                .push(Rule::new("input", expressions.concat()).with_comment("nobody else reaches the host's loopback"));
        }
        rules.extend([
            new("input", "remember"),
            new("input", "unserved"),
            new("input", "unserved-nodes"),
            new("forward", "remember"),
            new("forward", "unserved"),
            new("forward", "unused-ports"),
            new("filter-output", "remember"),
            new("filter-output", "unserved"),
            new("filter-output", "unused-ports"),
        ]);
        rules
    }

    /// Whether the destination in [`KEY`] is, or is not, a loopback address.
    fn loopback(&self, inside: bool) -> Vec<Expr> {
        let range = if self.ipv6 { "::1/128" } else { "127.0.0.0/8" };
        let range = Cidr::parse(range).expect("a range");
        in_range(KEY, range.base, range.prefix, inside, self.behind())
    }

    fn key(&self) -> Vec<Expr> {
        vec![
            destination_address(self.family(), KEY),
            l4proto(KEY.plus(self.words())),
            destination_port(KEY.plus(self.words() + 1)),
        ]
    }

    /// The key of node ports: an address of zeros.
    fn node_key(&self) -> Vec<Expr> {
        let zeros = Expr::Immediate { to: KEY, value: vec![0; usize::from(self.words()) * 4] };
        [vec![zeros], self.key().split_off(1)].concat()
    }

    /// Whether node ports answer on the destination's address.
    fn node_address(&self) -> Vec<Expr> {
        let mut expressions = vec![destination_address(self.family(), KEY)];
        if self.ipv6 || !self.fixed.localhost_node_ports {
            expressions.extend(self.loopback(false));
        }
        expressions.extend([Expr::FibType { of: FibOf::Destination, to: self.behind() }, is_local(self.behind())]);
        expressions
    }

    /// Rules that need an address of the node's: one, or one for each range.
    fn node_rules(&self, chain: &str, then: &[Expr]) -> Vec<Rule> {
        let ranges = self.node_port_ranges();
        if ranges.is_empty() {
            return vec![Rule::new(chain, [self.node_address(), then.to_vec()].concat())];
        }
        let within = |range: &Cidr| {
            let inside = in_range(KEY, range.base, range.prefix, true, self.behind());
            Rule::new(chain, [self.node_address(), inside, then.to_vec()].concat())
        };
        ranges.iter().map(within).collect()
    }

    fn service_rules(&self) -> Vec<Rule> {
        let family = self.family();
        let way = |key: Vec<Expr>| {
            let found = vec![Expr::load(Map::Frontends.name(), KEY, self.behind())];
            [key, found, take_way(self.behind()), by_way(Way::KIND_MASK, KINDS)].concat()
        };
        let mut rules = vec![Rule::new("services", way(self.key()))];
        rules.extend(self.node_rules("services", &way(self.node_key())));

        let outside: Vec<Expr> =
            self.pods().iter().flat_map(|r| in_range(KEY, r.base, r.prefix, false, self.behind())).collect();
        if !outside.is_empty() {
            let source = vec![source_address(family, KEY)];
            let expressions = [source, outside, set_mark_bits(MASQUERADE_MARK, true, KEY)].concat();
            rules.push(Rule::new("internal", expressions).with_comment("from outside the pod network"));
        }
        let goto = |chain: &str| Rule::new(chain, vec![go(Verdict::Goto("dispatch".to_owned()))]);
        rules.push(goto("internal"));
        rules.push(Rule::new("external", set_mark_bits(MASQUERADE_MARK, true, KEY)));
        rules.push(goto("external"));

        let all = [load_way(Way::LIST_MAX), vec![Expr::load(Map::Everywhere.name(), KEY, KEY)], take_way(KEY)].concat();
        for range in self.pods() {
            let inside = in_range(KEY, range.base, range.prefix, true, self.behind());
            let when = [vec![source_address(family, KEY)], inside, all.clone(), vec![go_dispatch()]].concat();
            rules.push(Rule::new("external-local", when).with_comment("from a pod"));
        }
        let from_here = vec![Expr::FibType { of: FibOf::Source, to: KEY }, is_local(KEY)];
        let mark = [from_here.clone(), set_mark_bits(MASQUERADE_MARK, true, KEY)].concat();
        rules.push(Rule::new("external-local", mark).with_comment("from this node"));
        rules.push(Rule::new("external-local", [from_here, all, vec![go_dispatch()]].concat()));
        rules.push(goto("external-local"));

        let before = [vec![Expr::load(AFFINITY, KEY, KEY)], self.clear_way(), vec![self.nat(KEY)]].concat();
        let client = vec![source_address(family, self.behind())];
        let before = [self.key(), client, before].concat();
        rules.push(Rule::new("dispatch", before).with_comment("where the client was before"));
        rules.push(Rule::new("dispatch", by_way(Way::COUNT_MASK, Map::Picks.name())));
        rules
    }

    /// Keeps the endpoint a new connection goes to, if its frontend has affinity.
    fn remember_rules(&self) -> Vec<Rule> {
        let then = vec![Expr::load(Map::Sticky.name(), KEY, KEY)];
        let then = [then, take_way(KEY), by_way(u32::MAX, Map::Times.name())].concat();
        let translated = Ct::Status.has(Ct::DNAT, KEY);
        let rule = |key| Rule::new("remember", [translated.clone(), key, then.clone()].concat());
        let mut of_node = vec![Expr::Immediate { to: KEY, value: vec![0; usize::from(self.words()) * 4] }];
        of_node.extend(self.original_key().split_off(1));
        vec![rule(self.original_key()), rule(of_node)]
    }

    /// The frontend that the connection was opened to.
    fn original_key(&self) -> Vec<Expr> {
        let address = if self.ipv6 { Original::DestinationIpv6 } else { Original::DestinationIpv4 };
        vec![
            Expr::CtOriginal { key: address, to: KEY },
            l4proto(KEY.plus(self.words())),
            Expr::CtOriginal { key: Original::DestinationPort, to: KEY.plus(self.words() + 1) },
        ]
    }

    fn unserved_rules(&self) -> Vec<Rule> {
        let refuse = Expr::Reject(self.family(), Reject::PortUnreachable);
        let mut rules = Vec::new();
        for (map, then) in [(Map::Refused, refuse.clone()), (Map::Dropped, go(Verdict::Drop))] {
            let lookup = vec![Expr::lookup(map.name(), KEY), then];
            rules.push(Rule::new("unserved", [self.key(), lookup.clone()].concat()));
            rules.extend(self.node_rules("unserved-nodes", &[self.node_key(), lookup].concat()));
        }
        let address = destination_address(self.family(), KEY);
        let expressions = vec![address, Expr::lookup(Map::ClusterIps.name(), KEY), refuse];
        rules.push(Rule::new("unused-ports", expressions).with_comment("a port that the Service does not have"));
        rules
    }

    fn postrouting_rules(&self) -> Vec<Rule> {
        let (family, words) = (self.family(), self.words());
        let marked =
            [Meta::Mark.has(MASQUERADE_MARK, KEY), set_mark_bits(MASQUERADE_MARK, false, KEY), vec![Expr::Masquerade]];
        let pair = vec![
            source_address(family, KEY),
            destination_address(family, KEY.plus(words)),
            l4proto(KEY.plus(2 * words)),
            destination_port(KEY.plus(2 * words + 1)),
            Expr::lookup(Map::Hairpins.name(), KEY),
            Expr::Masquerade,
        ];
        let hairpin = [Ct::Status.has(Ct::DNAT, KEY), pair].concat();
        let mut rules =
            vec![Rule::new("postrouting", marked.concat()), Rule::new("postrouting", hairpin).with_comment("hairpin")];
        if !self.fixed.masquerades_egress {
            return rules;
        }
        let multicast = if self.ipv6 { "ff00::/8" } else { "224.0.0.0/4" };
        let multicast = Cidr::parse(multicast).expect("a range");
        for range in self.pods() {
            let mut expressions = vec![source_address(family, KEY)];
            expressions.extend(in_range(KEY, range.base, range.prefix, true, self.behind()));
            expressions.push(destination_address(family, KEY));
            for other in self.pods().iter().chain([&multicast]) {
                expressions.extend(in_range(KEY, other.base, other.prefix, false, self.behind()));
            }
            expressions.push(Expr::Masquerade);
            rules.push(Rule::new("postrouting", expressions).with_comment("from a pod to outside"));
        }
        rules
    }

    pub fn shape_rules(&self, shape: &Shape) -> Vec<Rule> {
        let rule = |expressions: Vec<Expr>| Rule::new(shape.chain(), expressions);
        match shape {
            Shape::Pick(count) => {
                let index = KEY.plus(1);
                let pick = |index: Expr| {
                    let list = Expr::Meta { key: Meta::Priority, to: KEY };
                    let found = Expr::load(Map::Endpoints.name(), KEY, KEY);
                    [vec![list, index, found], self.clear_way(), vec![self.nat(KEY)]].concat()
                };
                vec![
                    rule([load_way(Way::LIST_MAX), vec![Expr::SetMeta { key: Meta::Priority, from: KEY }]].concat()),
                    rule(pick(Expr::Numgen { to: index, modulus: *count })),
                    rule(pick(Expr::Immediate { to: index, value: vec![0; 4] })),
                    rule(vec![go(Verdict::Drop)]),
                ]
            }
            Shape::Remember(seconds) => {
                let (client, data) = (self.behind(), self.behind().plus(self.words()));
                let to = [
                    source_address(self.family(), client),
                    destination_address(self.family(), data),
                    destination_port(data.plus(self.words())),
                ];
                let timeout_ms = Some(u64::from(*seconds) * 1000);
                let (set, op) = (AFFINITY.to_owned(), DynsetOp::Update);
                let keep = Expr::Dynset { set, op, key: KEY, data: Some(data), timeout_ms };
                vec![rule(self.clear_way()), rule([self.original_key(), to.into(), vec![keep]].concat())]
            }
        }
    }

    /// The packet's priority is 0 again; what the registers hold stays.
    fn clear_way(&self) -> Vec<Expr> {
        let free = self.behind().plus(2 * self.words());
        vec![Expr::Immediate { to: free, value: vec![0; 4] }, Expr::SetMeta { key: Meta::Priority, from: free }]
    }

    fn nat(&self, address: Register) -> Expr {
        let port = Some(address.plus(self.words()));
        Expr::Nat { kind: Nat::Destination, family: self.family(), address, port }
    }

    /// The rules of [`GUARD_CHAIN`]: one for each length of prefix that source ranges have.
    pub fn guard_rules(&self, prefixes: impl IntoIterator<Item = u8>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for prefix in prefixes {
            let length = Expr::Immediate { to: self.behind(), value: u32::from(prefix).to_ne_bytes().to_vec() };
            let source = self.behind().plus(1);
            let zero: std::net::IpAddr = if self.ipv6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
            // Only the mask of the comparison is wanted.
            let masked = in_range(source, zero, prefix, true, source).into_iter().take(1);
            let mut expressions = self.key();
            expressions.extend([length, source_address(self.family(), source)]);
            expressions.extend(masked);
            expressions.extend([Expr::lookup(Map::Sources.name(), KEY), go(Verdict::Return)]);
            rules.push(Rule::new(GUARD_CHAIN, expressions));
        }
        if !rules.is_empty() {
            let guarded = vec![Expr::lookup(Map::Guarded.name(), KEY), go(Verdict::Drop)];
            rules.push(Rule::new(GUARD_CHAIN, [self.key(), guarded].concat()));
        }
        rules
    }

    /// Names of all chains with the expressions of their rules, as a dump shows them.
    pub fn expected(
        &self,
        shapes: &[Shape],
        prefixes: impl IntoIterator<Item = u8>,
    ) -> Vec<(String, Vec<Vec<String>>)> {
        let mut chains: Vec<String> = self.chains().into_iter().map(|chain| chain.name).collect();
        chains.extend(shapes.iter().map(Shape::chain));
        let mut rules = self.rules();
        rules.extend(shapes.iter().flat_map(|shape| self.shape_rules(shape)));
        rules.extend(self.guard_rules(prefixes));
        let names = |rule: &Rule| rule.expressions.iter().map(|e| e.name().to_owned()).collect::<Vec<_>>();
        let of = |chain: &String| rules.iter().filter(|rule| rule.chain == *chain).map(names).collect();
        chains.iter().map(|chain| (chain.clone(), of(chain))).collect()
    }
}

pub fn fixed_shapes() -> impl Iterator<Item = Shape> {
    (1..=COUNTS_AT_HAND).map(Shape::Pick)
}

/// Takes the way in the register along.
fn take_way(from: Register) -> Vec<Expr> {
    vec![Expr::SetMeta { key: Meta::Priority, from }]
}

/// Loads what is taken along, under a mask.
fn load_way(mask: u32) -> Vec<Expr> {
    let mut expressions = vec![Expr::Meta { key: Meta::Priority, to: KEY }];
    if mask != u32::MAX {
        let mask = mask.to_ne_bytes().to_vec();
        expressions.push(Expr::Bitwise { from: KEY, to: KEY, mask, xor: vec![0; 4] });
    }
    expressions
}

fn by_way(mask: u32, map: &str) -> Vec<Expr> {
    [load_way(mask), vec![Expr::VerdictMap { map: map.to_owned(), from: KEY }]].concat()
}

fn go_dispatch() -> Expr {
    go(Verdict::Goto("dispatch".to_owned()))
}

fn go(verdict: Verdict) -> Expr {
    Expr::Verdict(verdict)
}

/// `RTN_LOCAL`: an address of this host.
fn is_local(kind: Register) -> Expr {
    equals(kind, 2_u32.to_ne_bytes())
}
