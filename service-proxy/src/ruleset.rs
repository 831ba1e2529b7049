//! One nftables table as a value, and the transaction that turns one such value into another.
//!
//! Invariant: the table is owned by this crate whole. A transaction is applied by the kernel entirely or not at all,
//! so traffic never meets a half-made table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// `address . protocol . port` to the chain that handles it.
pub const SERVICES: &str = "services";
/// `protocol . port` to the chain that handles it, for addresses of this node.
pub const NODE_PORTS: &str = "node_ports";
/// `address . protocol . port` of Services that have no endpoint here: refused rather than left to time out.
pub const REFUSED: &str = "refused";
/// `address . address` of every endpoint: a pod that reaches itself through its Service is masqueraded, or it would
/// see its own address as the client's.
pub const HAIRPIN: &str = "hairpin";

/// Mark of connections that leave with this node's address. Upstream's default bit (`masqueradeBit` 14).
const MASQUERADE_MARK: &str = "0x4000";

/// The dynamic part of the table; the rest follows from [`Table`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ruleset {
    /// Rules by chain name.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Chain names by key, in [`SERVICES`].
    pub services: BTreeMap<String, String>,
    /// Chain names by key, in [`NODE_PORTS`].
    pub node_ports: BTreeMap<String, String>,
    /// Keys of [`REFUSED`].
    pub refused: BTreeSet<String>,
    /// Keys of [`HAIRPIN`].
    pub hairpin: BTreeSet<String>,
}

/// What does not change while a proxy runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Name of the nftables table, in family `ip`.
    pub name: String,
    /// Range of all pods of the cluster. What pods send to anywhere else leaves with the node's address.
    pub pod_cidr: String,
}

/// The rule that marks a connection for masquerading.
pub fn mark_for_masquerade() -> String {
    format!("meta mark set meta mark or {MASQUERADE_MARK}")
}

/// A transaction that replaces whatever table of this name exists by `ruleset`. The only full write; made at start
/// and to repair a table that somebody else changed.
pub fn replacement(table: &Table, ruleset: &Ruleset) -> String {
    let name = &table.name;
    let mut out = format!("add table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n{}}}\n", frame(table));
    out.push_str(&difference(table, &Ruleset::default(), ruleset));
    out
}

/// A transaction that removes the table.
pub fn removal(table: &Table) -> String {
    format!("add table ip {0}\ndelete table ip {0}\n", table.name)
}

/// The fixed part: maps, sets and base chains.
///
/// What pods send to pods keeps its address on every node. What they send elsewhere leaves with the node's. What the
/// host itself sends to a Service gets the address of the way it takes to the pod: where that is a tunnel, the answer
/// would otherwise come outside it.
fn frame(table: &Table) -> String {
    let pods = &table.pod_cidr;
    format!(
        "  map {SERVICES} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map {NODE_PORTS} {{ type inet_proto . inet_service : verdict; }}
  set {REFUSED} {{ type ipv4_addr . inet_proto . inet_service; }}
  set {HAIRPIN} {{ type ipv4_addr . ipv4_addr; }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @{SERVICES};
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS};
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump dispatch; }}
  chain output {{ type nat hook output priority -100; jump dispatch; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    meta mark & {MASQUERADE_MARK} == {MASQUERADE_MARK} meta mark set meta mark xor {MASQUERADE_MARK} masquerade;
    ip saddr . ip daddr @{HAIRPIN} masquerade;
    ct status dnat ip saddr != {pods} ip daddr {pods} fib saddr type local masquerade;
    ip saddr {pods} ip daddr != {pods} ip daddr != 224.0.0.0/4 masquerade;
  }}
  chain refuse {{ ip daddr . meta l4proto . th dport @{REFUSED} reject; }}
  chain refuse_forward {{ type filter hook forward priority filter; ct state new jump refuse; }}
  chain refuse_output {{ type filter hook output priority filter; ct state new jump refuse; }}
"
    )
}

/// The transaction from `old` to `new`; empty when they are equal. New chains come before the elements that point at
/// them, and elements go before the chains they pointed at.
pub fn difference(table: &Table, old: &Ruleset, new: &Ruleset) -> String {
    let mut out = String::new();
    let name = &table.name;
    for (chain, rules) in &new.chains {
        let before = old.chains.get(chain);
        if before == Some(rules) {
            continue;
        }
        line(&mut out, format_args!("add chain ip {name} {chain}"));
        if before.is_some() {
            line(&mut out, format_args!("flush chain ip {name} {chain}"));
        }
        for rule in rules {
            line(&mut out, format_args!("add rule ip {name} {chain} {rule}"));
        }
    }
    map_difference(&mut out, name, SERVICES, &old.services, &new.services);
    map_difference(&mut out, name, NODE_PORTS, &old.node_ports, &new.node_ports);
    set_difference(&mut out, name, REFUSED, &old.refused, &new.refused);
    set_difference(&mut out, name, HAIRPIN, &old.hairpin, &new.hairpin);
    for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
        // A chain may refer to another one that goes too, so all are emptied before any is deleted.
        line(&mut out, format_args!("flush chain ip {name} {chain}"));
    }
    for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
        line(&mut out, format_args!("delete chain ip {name} {chain}"));
    }
    out
}

fn map_difference(
    out: &mut String,
    table: &str,
    map: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) {
    for (key, chain) in old {
        if new.get(key) != Some(chain) {
            line(out, format_args!("delete element ip {table} {map} {{ {key} }}"));
        }
    }
    for (key, chain) in new {
        if old.get(key) != Some(chain) {
            line(out, format_args!("add element ip {table} {map} {{ {key} : goto {chain} }}"));
        }
    }
}

fn set_difference(out: &mut String, table: &str, set: &str, old: &BTreeSet<String>, new: &BTreeSet<String>) {
    for key in old.difference(new) {
        line(out, format_args!("delete element ip {table} {set} {{ {key} }}"));
    }
    for key in new.difference(old) {
        line(out, format_args!("add element ip {table} {set} {{ {key} }}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn table() -> Table {
        Table { name: "keelson".to_owned(), pod_cidr: "10.244.0.0/16".to_owned() }
    }

    fn one(rule: &str) -> Ruleset {
        let mut ruleset = Ruleset::default();
        ruleset.chains.insert("svc/default/web/tcp/80".to_owned(), vec![rule.to_owned()]);
        ruleset.services.insert("10.96.0.7 . tcp . 80".to_owned(), "svc/default/web/tcp/80".to_owned());
        ruleset
    }

    #[test]
    fn equal_rulesets_need_no_transaction() {
        assert_eq!(difference(&table(), &one("a"), &one("a")), "");
    }

    #[test]
    fn a_changed_chain_is_flushed_and_filled_in_one_transaction() {
        expect![[r#"
            add chain ip keelson svc/default/web/tcp/80
            flush chain ip keelson svc/default/web/tcp/80
            add rule ip keelson svc/default/web/tcp/80 b
        "#]]
        .assert_eq(&difference(&table(), &one("a"), &one("b")));
    }

    #[test]
    fn elements_go_before_their_chain() {
        expect![[r#"
            delete element ip keelson services { 10.96.0.7 . tcp . 80 }
            flush chain ip keelson svc/default/web/tcp/80
            delete chain ip keelson svc/default/web/tcp/80
        "#]]
        .assert_eq(&difference(&table(), &one("a"), &Ruleset::default()));
    }
}
