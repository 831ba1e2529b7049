//! What the kernel has: tables, chains, rules, sets and elements. For the start and for repairs; nobody needs to list
//! anything in normal operation.

use std::collections::HashSet;
use std::time::Duration;

use nix::libc;

use crate::batch::{COMMENT, Table};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::*;
use crate::message::{Attributes, Message, Writer, read_comment};
use crate::socket::Socket;

const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// The kernel enlarges a set's hash table some time after many elements came, and loses its place in a dump then. As it
/// counts on, each element that it leaves out is made up for by one that comes twice, which tells.
const GROWTH_TRIES: u32 = 100;
const GROWTH_PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    pub family: Family,
    pub name: String,
    /// Another number for every table that is made.
    pub handle: u64,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChain {
    pub name: String,
    /// Hook number and priority of a base chain.
    pub base: Option<(u32, i32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    /// Names of its expressions, in order ([`crate::Expr::name`]).
    pub expressions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSet {
    pub name: String,
    pub handle: u64,
    pub key_bytes: u32,
    /// 0 for a set.
    pub data_bytes: u32,
}

fn get(kind: u16, table: Option<Table<'_>>, fill: impl Fn(&mut Writer)) -> impl Fn(&mut Writer) {
    let family = table.map_or(libc::AF_UNSPEC as u8, |table| table.family as u8);
    move |out: &mut Writer| out.message(SUBSYSTEM_NFTABLES << 8 | kind, DUMP, family, 0, |out| fill(out))
}

impl Socket {
    fn collect<T>(
        &mut self,
        what: &'static str,
        request: &dyn Fn(&mut Writer),
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.list(what, request, &mut |answer| match answer {
            None => found.clear(),
            Some(answer) => found.extend(read(answer)),
        })?;
        Ok(found)
    }

    /// All tables of all families.
    pub fn tables(&mut self) -> Result<Vec<FoundTable>, Error> {
        self.collect("the list of tables", &get(MSG_GETTABLE, None, |_| {}), |answer| {
            let attributes = answer.attributes();
            Some(FoundTable {
                family: Family::of(answer.family())?,
                name: attributes.text(TABLE_NAME)?.to_owned(),
                handle: attributes.long(TABLE_HANDLE)?,
                comment: attributes.find(TABLE_USERDATA).and_then(|bytes| read_comment(bytes, COMMENT)),
            })
        })
    }

    pub fn table(&mut self, table: Table<'_>) -> Result<Option<FoundTable>, Error> {
        let found = self.tables()?;
        Ok(found.into_iter().find(|found| found.family == table.family && found.name == table.name))
    }

    /// All chains of a table; none if there is no such table.
    pub fn chains(&mut self, table: Table<'_>) -> Result<Vec<FoundChain>, Error> {
        let request = get(MSG_GETCHAIN, Some(table), |out| out.text(CHAIN_TABLE, table.name));
        self.collect("the list of chains", &request, |answer| {
            let attributes = answer.attributes();
            if attributes.text(CHAIN_TABLE)? != table.name {
                return None;
            }
            let base = attributes
                .nested(CHAIN_HOOK)
                .and_then(|hook| Some((hook.number(HOOK_HOOKNUM)?, hook.number(HOOK_PRIORITY)? as i32)));
            Some(FoundChain { name: attributes.text(CHAIN_NAME)?.to_owned(), base })
        })
    }

    /// All rules of a table, those of a chain in their order.
    pub fn rules(&mut self, table: Table<'_>) -> Result<Vec<FoundRule>, Error> {
        let request = get(MSG_GETRULE, Some(table), |out| out.text(RULE_TABLE, table.name));
        self.collect("the list of rules", &request, |answer| {
            let attributes = answer.attributes();
            if attributes.text(RULE_TABLE)? != table.name {
                return None;
            }
            let expressions = attributes.nested(RULE_EXPRESSIONS).into_iter().flatten();
            let name = |(_, one): (u16, &[u8])| Attributes(one).text(EXPR_NAME).map(ToOwned::to_owned);
            Some(FoundRule {
                chain: attributes.text(RULE_CHAIN)?.to_owned(),
                handle: attributes.long(RULE_HANDLE)?,
                comment: attributes.find(RULE_USERDATA).and_then(|bytes| read_comment(bytes, COMMENT)),
                expressions: expressions.filter_map(name).collect(),
            })
        })
    }

    /// All sets and maps of a table.
    pub fn sets(&mut self, table: Table<'_>) -> Result<Vec<FoundSet>, Error> {
        let request = get(MSG_GETSET, Some(table), |out| out.text(SET_TABLE, table.name));
        self.collect("the list of sets", &request, |answer| {
            let attributes = answer.attributes();
            if attributes.text(SET_TABLE)? != table.name {
                return None;
            }
            Some(FoundSet {
                name: attributes.text(SET_NAME)?.to_owned(),
                handle: attributes.long(SET_HANDLE)?,
                key_bytes: attributes.number(SET_KEY_LEN)?,
                data_bytes: attributes.number(SET_DATA_LEN).unwrap_or(0),
            })
        })
    }

    /// All elements of a set or map; none if there is no such set.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>, Error> {
        let request = get(MSG_GETSETELEM, Some(table), |out| {
            out.text(ELEM_LIST_TABLE, table.name);
            out.text(ELEM_LIST_SET, set);
        });
        for _ in 0..GROWTH_TRIES {
            let mut found = Vec::new();
            self.list("a set", &request, &mut |answer| match answer {
                None => found.clear(),
                Some(answer) => {
                    let elements = answer.attributes().nested(ELEM_LIST_ELEMENTS).into_iter().flatten();
                    found.extend(elements.filter_map(|(_, element)| Element::read(Attributes(element))));
                }
            })?;
            if !repeats(&found) {
                return Ok(found);
            }
            std::thread::sleep(GROWTH_PAUSE);
        }
        Err(Error::Changing { what: "a set", tries: GROWTH_TRIES })
    }
}

fn repeats(elements: &[Element]) -> bool {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.iter().any(|element| !seen.insert((&element.key, element.ends_interval)))
}
