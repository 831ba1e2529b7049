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

mod expressions;
mod map;
mod rules;
mod way;

use std::hash::{DefaultHasher, Hash, Hasher};

use api::cidr::Cidr;
use nftables::{Batch, Chain, Element, Hook, Rule, Set, Table, Type, Value, Verdict};

pub use map::{AFFINITY, DATA_MAPS, GUARD_CHAIN, KINDS, KINDS_COUNT, Map, NOWHERE, RANGE_CHAIN};
pub use way::{Shape, Way, fixed_shapes};

use crate::plan::Kind;

/// Priorities of `dstnat`, `srcnat` and `filter`, and of what must see the destination before it is translated.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;
const BEFORE_DSTNAT: i32 = DSTNAT - 10;
/// Clients with affinity that are remembered; more of them are served, but forgotten at once.
const AFFINITY_CLIENTS_MAX: u32 = 1 << 20;

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

impl<'a> Frame<'a> {
    pub fn table(&self) -> Table<'a> {
        Table { family: self.family(), name: &self.fixed.name }
    }

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
            RANGE_CHAIN,
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

    /// Names of all chains with the expressions of their rules, as a dump shows them.
    pub fn expected(
        &self,
        shapes: &[Shape],
        prefixes: impl IntoIterator<Item = u8>,
        ranges: &[Cidr],
    ) -> Vec<(String, Vec<Vec<String>>)> {
        let mut chains: Vec<String> = self.chains().into_iter().map(|chain| chain.name).collect();
        chains.extend(shapes.iter().map(Shape::chain));
        let mut rules = self.rules();
        rules.extend(shapes.iter().flat_map(|shape| self.shape_rules(shape)));
        rules.extend(self.guard_rules(prefixes));
        rules.extend(self.range_rules(ranges));
        let names = |rule: &Rule| rule.expressions.iter().map(|e| e.name().to_owned()).collect::<Vec<_>>();
        let of = |chain: &String| rules.iter().filter(|rule| rule.chain == *chain).map(names).collect();
        chains.iter().map(|chain| (chain.clone(), of(chain))).collect()
    }
}
