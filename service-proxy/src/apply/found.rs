//! What the kernel has of a table that an earlier run made, and what has to change in it.

use std::collections::{HashMap, HashSet};

use api::cidr::Cidr;
use nftables::{Data, Element, Error, Socket, Value, Verdict};
use tracing::debug;

use crate::endpoints::Backend;
use crate::state::{Changes, Item, Left, State};
use crate::table::{DATA_MAPS, Frame, KINDS, KINDS_COUNT, Map, NOWHERE, RANGE_CHAIN, Shape, Way, fixed_shapes};

/// A source's key in family 4: address, protocol, port, length of prefix, address. In family 6 it is longer.
const V4_SOURCE_BYTES: usize = 20;

pub struct Found {
    data: HashMap<Map, Vec<Element>>,
    pub shapes: Vec<Shape>,
    /// Lengths of prefix that source ranges have.
    prefixes: Vec<u8>,
    pub ranges: Vec<Cidr>,
}

impl Found {
    /// What there is, if it has this version's shape: same sets, same chains with rules of the same kind.
    pub fn read(socket: &mut Socket, frame: &Frame<'_>) -> Result<Option<Self>, Error> {
        let table = frame.table();
        let Some(found) = socket.table(table)? else { return Ok(None) };
        if found.comment.as_ref() != Some(&frame.comment()) {
            return Ok(None);
        }
        let mut shapes = Vec::new();
        for map in [Map::Picks, Map::Times] {
            let chains = socket.elements(table, map.name())?;
            shapes.extend(chains.iter().filter_map(|element| led_to(map, element)));
        }
        let mut data = HashMap::new();
        for map in DATA_MAPS {
            data.insert(map, socket.elements(table, map.name())?);
        }
        let prefixes = prefixes(&data[&Map::Sources]);
        // Chains that were about to be deleted do no harm; they are not looked at.
        let rules = socket.rules(table)?;
        let chains: HashSet<String> = socket.chains(table)?.into_iter().map(|chain| chain.name).collect();
        let of_ranges = rules.iter().filter(|rule| rule.chain == RANGE_CHAIN);
        let ranges: Vec<Cidr> = of_ranges.filter_map(|rule| Cidr::parse(rule.comment.as_ref()?)).collect();
        // What no Service makes: kinds, and the way to nowhere.
        let kinds = socket.elements(table, KINDS)?.len();
        let has_fixed = kinds == KINDS_COUNT && shapes.contains(&Shape::Pick(0));
        shapes.retain(|shape| *shape != Shape::Pick(0));
        let has_fixed = has_fixed && fixed_shapes().all(|shape| shapes.contains(&shape));
        let expected = frame.expected(&shapes, prefixes.iter().copied(), &ranges);
        let as_expected = expected.into_iter().all(|(chain, expected)| {
            let found = rules.iter().filter(|rule| rule.chain == chain).map(|rule| &rule.expressions);
            chains.contains(&chain) && found.eq(expected.iter())
        });
        Ok((has_fixed && as_expected).then_some(Self { data, shapes, prefixes, ranges }))
    }

    /// The numbers an earlier run gave, from its elements.
    pub fn left(&self) -> Left {
        let mut left = Left::default();
        for map in [Map::Frontends, Map::Everywhere] {
            for element in &self.data[&map] {
                let Some(way) = value(element).and_then(|value| number(value, 0)).map(Way) else { continue };
                left.lists.insert((map, element.key.clone()), way.list());
                if map == Map::Everywhere {
                    continue;
                }
                // A list without endpoints is a list, too.
                left.endpoints.entry(way.list()).or_default();
            }
        }
        for element in &self.data[&Map::Endpoints] {
            let (Some(list), Some(index)) = (number(&element.key, 0), number(&element.key, 1)) else { continue };
            let Some(backend) = value(element).and_then(backend) else { continue };
            left.endpoints.entry(list).or_default().insert(index, backend);
        }
        left.endpoints.remove(&0);
        left
    }

    /// What is missing, and what is too much.
    pub fn repair(&self, state: &State) -> Changes {
        let mut changes = Changes {
            shapes: state.shapes().into_iter().filter(|shape| !self.shapes.contains(shape)).collect(),
            guards: self.prefixes != state.prefixes(),
            ..Changes::default()
        };
        let mut wanted: HashMap<Map, HashMap<Value, Item>> = HashMap::new();
        for item in state.items() {
            wanted.entry(item.map()).or_default().insert(item.key(), item);
        }
        for map in DATA_MAPS {
            let mut wanted = wanted.remove(&map).unwrap_or_default();
            for element in &self.data[&map] {
                let is_right = wanted.get(&element.key).is_some_and(|item| item.data().as_ref() == value(element));
                if is_right {
                    wanted.remove(&element.key);
                } else {
                    changes.surplus.entry(map).or_default().push(Element::new(element.key.clone()));
                }
            }
            if !wanted.is_empty() {
                changes.added.insert(map, wanted.into_values().collect());
            }
        }
        debug!(added = changes.len(), surplus = ?changes.surplus, "found a table");
        changes
    }
}

pub fn value(element: &Element) -> Option<&Value> {
    match &element.data {
        Some(Data::Value(value)) => Some(value),
        _ => None,
    }
}

/// The number in the nth register.
fn number(value: &Value, at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(value.0.get(at * 4..at * 4 + 4)?.try_into().ok()?))
}

/// The chain an element leads to, if it is the right one.
fn led_to(map: Map, element: &Element) -> Option<Shape> {
    let number = number(&element.key, 0)?;
    let shape = if map == Map::Picks { Shape::Pick(Way(number).count()) } else { Shape::Remember(number) };
    let chain = if shape == Shape::Pick(0) { NOWHERE.to_owned() } else { shape.chain() };
    (element.data == Some(Data::Verdict(Verdict::Goto(chain)))).then_some(shape)
}

fn prefixes(sources: &[Element]) -> Vec<u8> {
    let prefix = |element: &Element| {
        let words = element.key.0.len() / 4;
        let address = if element.key.0.len() > V4_SOURCE_BYTES { 4 } else { 1 };
        number(&element.key, words.checked_sub(address + 1)?).map(|prefix| prefix as u8)
    };
    let mut prefixes: Vec<u8> = sources.iter().filter_map(prefix).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

pub fn backend(value: &Value) -> Option<Backend> {
    let (address, port) = value.0.split_at_checked(value.0.len().checked_sub(4)?)?;
    let port = u16::from_be_bytes(port.get(..2)?.try_into().ok()?);
    let v4 = <[u8; 4]>::try_from(address).ok().map(std::net::IpAddr::from);
    let address = v4.or_else(|| <[u8; 16]>::try_from(address).ok().map(std::net::IpAddr::from))?;
    Some(Backend { address, port })
}
