//! The rules, by the chains they are in.

use api::cidr::Cidr;
use nftables::{
    Ct, DynsetOp, Expr, Family, FibOf, Meta, Reject, Rule, Value, Verdict, destination_address, destination_port,
    in_range, is_new, l4proto, set_mark_bits, source_address,
};

use super::expressions::{KEY, by_way, go, go_dispatch, is_local, load_way, take_way};
use super::{AFFINITY, Frame, GUARD_CHAIN, KINDS, Map, RANGE_CHAIN, Shape, Way};

/// Mark of connections that leave with this node's address. Upstream's default bit (`masqueradeBit` 14).
const MASQUERADE_MARK: u32 = 0x4000;

impl Frame<'_> {
    /// All rules but those of shapes, source ranges and ranges of cluster addresses.
    pub(super) fn rules(&self) -> Vec<Rule> {
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
            new("forward", RANGE_CHAIN),
            new("filter-output", "remember"),
            new("filter-output", "unserved"),
            new("filter-output", "unused-ports"),
            new("filter-output", RANGE_CHAIN),
        ]);
        rules
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

    /// The rules of [`RANGE_CHAIN`]: what still goes to a cluster address has found no Service there, and would leave
    /// this host by its default route. Dropped, as upstream does; the address may be one of a Service just created.
    pub fn range_rules(&self, ranges: &[Cidr]) -> Vec<Rule> {
        let rule = |range: &Cidr| {
            let mut expressions = vec![destination_address(self.family(), KEY)];
            expressions.extend(in_range(KEY, range.base, range.prefix, true, self.behind()));
            expressions.push(go(Verdict::Drop));
            Rule::new(RANGE_CHAIN, expressions).with_comment(range.to_string())
        };
        self.own(ranges).iter().map(rule).collect()
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
}
