//! The kernel's form of a plan: one table per address family, owned whole. Pure: what comes out are batches.
//!
//! The fixed part sees every connection between two interfaces of this host, which for pods is every one but those
//! with the host itself: those are exempt, as Kubernetes wants it. It comes after the translation of Services'
//! addresses and before that of sources, so that policies see who connects to whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nftables::{
    Batch, Chain as KernelChain, Compare, Ct, Element as KernelElement, Expr, Header, Hook, Register,
    Rule as KernelRule, Set as KernelSet, Table, Type, Value, Verdict, destination_address, destination_port, equals,
    l4proto, source_address,
};

use crate::members::{Element, Membership};
use crate::plan::{Chain, Direction, Family, Members, Plan, Port, Rule, Set};

/// Pods that reach themselves, by their address twice: no policy keeps a pod from itself.
const SELF: &str = "self";
/// Chains by pods' addresses.
const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";
const FORWARD: &str = "forward";
/// After the kernel's own defragmentation and connection tracking, beside other filters.
const PRIORITY: i32 = 0;
const COMMENT: &str = "network policies of this node; kept by keelson, changes are undone";
/// Neighbour discovery (RFC 4861): on a bridge it passes here, and without it no address is found.
const ICMPV6: u8 = 58;
const NEIGHBOR_FIRST: u8 = 133;
const NEIGHBOR_LAST: u8 = 137;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const R: Register = Register(0);

fn kernel(family: Family) -> nftables::Family {
    match family {
        Family::V4 => nftables::Family::Ip,
        Family::V6 => nftables::Family::Ip6,
    }
}

fn address(family: Family) -> Type {
    match family {
        Family::V4 => Type::Ipv4,
        Family::V6 => Type::Ipv6,
    }
}

/// The tables of this name.
pub fn tables(name: &str) -> [Table<'_>; 2] {
    FAMILIES.map(|family| Table { family: kernel(family), name })
}

fn table(name: &str, family: Family) -> Table<'_> {
    Table { family: kernel(family), name }
}

/// Everything anew, whatever was there. The kernel swaps old for new at once.
pub fn replacement(name: &str, plan: &Plan, membership: &Membership) -> Batch {
    let mut batch = removal(name);
    for family in FAMILIES {
        frame(&mut batch, name, family);
    }
    difference(&mut batch, name, &Plan::default(), plan, membership);
    batch
}

/// No tables.
pub fn removal(name: &str) -> Batch {
    let mut batch = Batch::new();
    for table in tables(name) {
        // A table that is not there cannot be deleted.
        batch.add_table(table, None);
        batch.delete_table(table);
    }
    batch
}

fn frame(batch: &mut Batch, name: &str, family: Family) {
    let (table, kind) = (table(name, family), address(family));
    let (source, destination) = (source_address(table.family, R), destination_address(table.family, R));
    batch.add_table(table, Some(COMMENT));
    batch.add_set(table, &KernelSet::new(SELF, &[kind, kind]));
    batch.add_set(table, &KernelSet::verdicts(INGRESS, &[kind]));
    batch.add_set(table, &KernelSet::verdicts(EGRESS, &[kind]));
    batch.add_chain(table, &KernelChain::base(FORWARD, "filter", Hook::Forward, PRIORITY));
    let mut rule = |expressions| batch.add_rule(table, &KernelRule::new(FORWARD, expressions));
    let mut established = Ct::State.has(Ct::ESTABLISHED | Ct::RELATED, R);
    established.push(Expr::Verdict(Verdict::Accept));
    rule(established);
    if family == Family::V6 {
        rule(vec![
            l4proto(R),
            equals(R, [ICMPV6]),
            Expr::Payload { header: Header::Transport, offset: 0, length: 1, to: R },
            Expr::Compare { op: Compare::GreaterOrEqual, from: R, value: vec![NEIGHBOR_FIRST] },
            Expr::Compare { op: Compare::LessOrEqual, from: R, value: vec![NEIGHBOR_LAST] },
            Expr::Verdict(Verdict::Accept),
        ]);
    }
    let second = destination_address(table.family, R.plus(kind.registers()));
    rule(vec![source.clone(), second, Expr::lookup(SELF, R), Expr::Verdict(Verdict::Accept)]);
    rule(vec![source, Expr::VerdictMap { map: EGRESS.to_owned(), from: R }]);
    rule(vec![destination, Expr::VerdictMap { map: INGRESS.to_owned(), from: R }]);
}

/// From one plan to the next, and what the sets of both gained and lost since they were last settled. What is referred
/// to comes before what refers to it, and goes after it.
pub fn difference(batch: &mut Batch, name: &str, old: &Plan, new: &Plan, membership: &Membership) {
    for (set, definition) in new.sets.iter().filter(|(set, _)| !old.sets.contains_key(*set)) {
        add_set(batch, table(name, definition.family), set, definition, membership);
    }
    for (set, delta) in membership.deltas().filter(|(set, _)| old.sets.contains_key(*set)) {
        let Some(definition) = new.sets.get(set) else { continue };
        let table = table(name, definition.family);
        batch.delete_elements(table, set, delta.removed.into_iter().map(element));
        batch.add_elements(table, set, delta.added.into_iter().map(element));
    }
    for (chain, definition) in new.chains.iter().filter(|(chain, _)| !old.chains.contains_key(*chain)) {
        add_chain(batch, table(name, definition.family), chain, definition);
    }
    point(batch, name, INGRESS, &old.ingress, &new.ingress);
    point(batch, name, EGRESS, &old.egress, &new.egress);
    let (before, after) = (old.isolated(), new.isolated());
    for address in before.difference(&after) {
        batch.delete_elements(table(name, Family::of(*address)), SELF, [twice(*address)]);
    }
    for address in after.difference(&before) {
        batch.add_elements(table(name, Family::of(*address)), SELF, [twice(*address)]);
    }
    let gone = old.chains.iter().filter(|(chain, _)| !new.chains.contains_key(*chain)).collect::<Vec<_>>();
    for (chain, definition) in &gone {
        batch.flush_chain(table(name, definition.family), chain);
        batch.delete_chain(table(name, definition.family), chain);
    }
    for (set, definition) in old.sets.iter().filter(|(set, _)| !new.sets.contains_key(*set)) {
        batch.delete_set(table(name, definition.family), set);
    }
}

fn twice(address: IpAddr) -> KernelElement {
    KernelElement::new(Value::new().address(address).address(address))
}

/// The elements of a map from addresses to chains. One that changes is never away: both happen in one transaction.
fn point(batch: &mut Batch, name: &str, map: &str, old: &BTreeMap<IpAddr, String>, new: &BTreeMap<IpAddr, String>) {
    for (address, _) in old.iter().filter(|(address, chain)| new.get(*address) != Some(*chain)) {
        let key = KernelElement::new(Value::new().address(*address));
        batch.delete_elements(table(name, Family::of(*address)), map, [key]);
    }
    for (address, chain) in new.iter().filter(|(address, chain)| old.get(*address) != Some(*chain)) {
        let key = Value::new().address(*address);
        let element = KernelElement::with_verdict(key, Verdict::Jump(chain.clone()));
        batch.add_elements(table(name, Family::of(*address)), map, [element]);
    }
}

fn add_set(batch: &mut Batch, table: Table<'_>, name: &str, set: &Set, membership: &Membership) {
    let kind = address(set.family);
    let elements = membership.elements(name);
    match &set.members {
        Members::Pods(_) => {
            batch.add_set(table, &KernelSet::new(name, &[kind]));
            batch.add_elements(table, name, elements.map(element));
        }
        Members::Ports { .. } => {
            batch.add_set(table, &KernelSet::new(name, &[kind, Type::Protocol, Type::Port]));
            batch.add_elements(table, name, elements.map(element));
        }
        Members::Blocks(ranges) => {
            batch.add_set(table, &KernelSet::new(name, &[kind]).intervals());
            batch.add_elements(table, name, ranges.iter().flat_map(|(first, last)| interval(*first, *last)));
        }
    }
}

fn element(element: Element) -> KernelElement {
    match element {
        Element::Address(address) => KernelElement::new(Value::new().address(address)),
        Element::Port(address, protocol, port) => {
            KernelElement::new(Value::new().address(address).protocol(protocol.number()).port(port))
        }
        // Sets of ranges are made whole and never change.
        Element::Range((first, _)) => KernelElement::new(Value::new().address(first)),
    }
}

/// Where a range starts, and where what is behind it starts, unless nothing is.
fn interval(first: IpAddr, last: IpAddr) -> Vec<KernelElement> {
    let behind = match last {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::from(std::net::Ipv6Addr::from_bits(bits))),
    };
    let start = KernelElement::new(Value::new().address(first));
    let end = behind.map(|address| KernelElement::interval_end(Value::new().address(address)));
    std::iter::once(start).chain(end).collect()
}

/// What a rule lets pass returns, to be looked at in the other direction as well; the rest is dropped, as nobody may
/// learn what is there.
fn add_chain(batch: &mut Batch, table: Table<'_>, name: &str, chain: &Chain) {
    batch.add_chain(table, &KernelChain::new(name));
    for rule in &chain.rules {
        batch.add_rule(table, &KernelRule::new(name, expressions(table.family, chain, rule)));
    }
    batch.add_rule(table, &KernelRule::new(name, vec![Expr::Verdict(Verdict::Drop)]));
}

fn expressions(family: nftables::Family, chain: &Chain, rule: &Rule) -> Vec<Expr> {
    let mut all = Vec::new();
    if let Some(set) = &rule.peer {
        all.push(match chain.direction {
            Direction::Ingress => source_address(family, R),
            Direction::Egress => destination_address(family, R),
        });
        all.push(Expr::lookup(set, R));
    }
    match &rule.port {
        Port::Any => {}
        Port::In(range) => {
            all.extend([l4proto(R), equals(R, [range.protocol.number()])]);
            if range.first == range.last {
                all.extend([destination_port(R), equals(R, range.first.to_be_bytes())]);
            } else if (range.first, range.last) != (0, u16::MAX) {
                let bound = |op, port: u16| Expr::Compare { op, from: R, value: port.to_be_bytes().to_vec() };
                all.push(destination_port(R));
                all.push(bound(Compare::GreaterOrEqual, range.first));
                all.push(bound(Compare::LessOrEqual, range.last));
            }
        }
        Port::Named(set) => {
            let after = R.plus(address(chain.family).registers());
            all.extend([destination_address(family, R), l4proto(after), destination_port(after.plus(1))]);
            all.push(Expr::lookup(set, R));
        }
    }
    all.push(Expr::Verdict(Verdict::Return));
    all
}
