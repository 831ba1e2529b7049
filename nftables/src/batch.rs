//! A transaction: changes that take effect together, in the order they were added, or not at all.

use nix::libc;

use crate::element::Element;
use crate::expression::Expr;
use crate::kernel::*;
use crate::message::{Writer, comment};
use crate::set::Set;

/// Elements are sent in messages of at most this many bytes: the list is one attribute, whose length has 16 bits.
const ELEMENTS_BYTES_MAX: usize = 60_000;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// Fails when it exists.
const EXCLUSIVE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
/// Comments of tables, chains and rules have this type in their user data (sets another one).
pub(crate) const COMMENT: u8 = 0;

/// A table is known by its family and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// Where a base chain sees packets (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// Type ("filter", "nat", "route"), hook and priority of a base chain.
    pub base: Option<(&'static str, Hook, i32)>,
    /// A base chain drops what no rule gave a verdict.
    pub drops: bool,
}

impl Chain {
    /// A chain that others jump to.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, drops: false }
    }

    /// A chain at a hook, whose policy is to accept.
    pub fn base(name: impl Into<String>, kind: &'static str, hook: Hook, priority: i32) -> Self {
        Self { name: name.into(), base: Some((kind, hook, priority)), drops: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    pub expressions: Vec<Expr>,
    /// At most 253 bytes.
    pub comment: Option<String>,
}

impl Rule {
    pub fn new(chain: impl Into<String>, expressions: Vec<Expr>) -> Self {
        Self { chain: chain.into(), expressions, comment: None }
    }

    pub fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

/// Changes under construction. [`crate::Socket::commit`] applies them.
#[derive(Debug)]
pub struct Batch {
    pub(crate) out: Writer,
    /// New sets are numbered within a transaction.
    sets: u32,
    changes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        let mut out = Writer::default();
        out.message(BATCH_BEGIN, 0, libc::AF_UNSPEC as u8, SUBSYSTEM_NFTABLES, |_| {});
        Self { out, sets: 0, changes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.0.len()
    }

    /// Success when there is one. Its comment is given with the table's creation only.
    pub fn add_table(&mut self, table: Table<'_>, text: Option<&str>) {
        self.change(MSG_NEWTABLE, CREATE, table, |out| {
            out.text(TABLE_NAME, table.name);
            if let Some(text) = text {
                out.bytes(TABLE_USERDATA, &comment(COMMENT, text));
            }
        });
    }

    /// With everything in it. Fails when there is none: adding it before makes that certain.
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.change(MSG_DELTABLE, 0, table, |out| out.text(TABLE_NAME, table.name));
    }

    /// Success when there is one of the same kind.
    pub fn add_chain(&mut self, table: Table<'_>, chain: &Chain) {
        self.change(MSG_NEWCHAIN, CREATE, table, |out| {
            out.text(CHAIN_TABLE, table.name);
            out.text(CHAIN_NAME, &chain.name);
            if let Some((kind, hook, priority)) = chain.base {
                out.nested(CHAIN_HOOK, |out| {
                    out.number(HOOK_HOOKNUM, hook as u32);
                    out.number(HOOK_PRIORITY, priority as u32);
                });
                out.text(CHAIN_TYPE, kind);
                out.number(CHAIN_POLICY, u32::from(!chain.drops));
            }
        });
    }

    /// Fails while rules or elements jump to it. Kernels before 6.2 notice only some time after the transaction that
    /// an element with a jump has gone.
    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) {
        self.change(MSG_DELCHAIN, 0, table, |out| {
            out.text(CHAIN_TABLE, table.name);
            out.text(CHAIN_NAME, chain);
        });
    }

    /// Takes all rules out of a chain.
    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) {
        self.change(MSG_DELRULE, 0, table, |out| {
            out.text(RULE_TABLE, table.name);
            out.text(RULE_CHAIN, chain);
        });
    }

    /// Behind the rules the chain has.
    pub fn add_rule(&mut self, table: Table<'_>, rule: &Rule) {
        self.change(MSG_NEWRULE, APPEND, table, |out| {
            out.text(RULE_TABLE, table.name);
            out.text(RULE_CHAIN, &rule.chain);
            out.nested(RULE_EXPRESSIONS, |out| rule.expressions.iter().for_each(|expression| expression.write(out)));
            if let Some(text) = &rule.comment {
                out.bytes(RULE_USERDATA, &comment(COMMENT, text));
            }
        });
    }

    /// By the handle the kernel gave it ([`crate::FoundRule`]).
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) {
        self.change(MSG_DELRULE, 0, table, |out| {
            out.text(RULE_TABLE, table.name);
            out.text(RULE_CHAIN, chain);
            out.long(RULE_HANDLE, handle);
        });
    }

    /// Success when there is one of the same kind.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        self.change(MSG_NEWSET, CREATE, table, |out| set.write(out, table, id));
    }

    /// Fails while rules look into it.
    pub fn delete_set(&mut self, table: Table<'_>, set: &str) {
        self.change(MSG_DELSET, 0, table, |out| {
            out.text(SET_TABLE, table.name);
            out.text(SET_NAME, set);
        });
    }

    /// Fails when one of the keys is there. To change what a map gives for a key, delete and add it.
    pub fn add_elements<E: std::borrow::Borrow<Element>>(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        self.elements(MSG_NEWSETELEM, EXCLUSIVE, table, set, elements);
    }

    /// Fails when one of the keys is not there. Their data does not count.
    pub fn delete_elements<E: std::borrow::Borrow<Element>>(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        self.elements(MSG_DELSETELEM, 0, table, set, elements);
    }

    /// Takes all elements out of a set.
    pub fn flush_set(&mut self, table: Table<'_>, set: &str) {
        self.change(MSG_DELSETELEM, 0, table, |out| {
            out.text(ELEM_LIST_TABLE, table.name);
            out.text(ELEM_LIST_SET, set);
        });
    }

    fn elements<E: std::borrow::Borrow<Element>>(
        &mut self,
        kind: u16,
        flags: u16,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.change(kind, flags, table, |out| {
                out.text(ELEM_LIST_TABLE, table.name);
                out.text(ELEM_LIST_SET, set);
                out.nested(ELEM_LIST_ELEMENTS, |out| {
                    let start = out.0.len();
                    let fits = |out: &Writer, element: &E| {
                        out.0.len() == start || out.0.len() - start + element.borrow().bytes() <= ELEMENTS_BYTES_MAX
                    };
                    while let Some(element) = elements.next_if(|element| fits(out, element)) {
                        element.borrow().write(out, kind == MSG_NEWSETELEM);
                    }
                });
            });
        }
    }

    fn change(&mut self, kind: u16, flags: u16, table: Table<'_>, fill: impl FnOnce(&mut Writer)) {
        self.changes += 1;
        self.out.message(SUBSYSTEM_NFTABLES << 8 | kind, flags, table.family as u8, 0, fill);
    }
}
