//! Elements of the table by what they say, small enough to be kept by the hundred thousand; the kernel's bytes are made
//! when an element is written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::cidr::Cidr;
use nftables::{Element, Value};

use crate::endpoints::Backend;
use crate::plan::Frontend;
use crate::table::{Map, Shape, Way};

/// The key of an element that a Service claims. Keys of lists' endpoints are not among them: a list has one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// In any of the maps and sets of frontends.
    Frontend(Map, Frontend),
    /// In [`Map::Everywhere`]: the list that the way starts from.
    List(u32),
    ClusterIp(IpAddr),
    /// An endpoint's address, protocol and port.
    Hairpin(IpAddr, u8, u16),
    Source(Frontend, Cidr),
}

impl Key {
    pub fn map(&self) -> Map {
        match self {
            Self::Frontend(map, _) => *map,
            Self::List(_) => Map::Everywhere,
            Self::ClusterIp(_) => Map::ClusterIps,
            Self::Hairpin(..) => Map::Hairpins,
            Self::Source(..) => Map::Sources,
        }
    }

    pub fn value(&self) -> Value {
        match *self {
            Self::Frontend(_, frontend) => frontend_value(&frontend),
            Self::List(number) => Value::new().number(number),
            Self::ClusterIp(address) => Value::new().address(address),
            Self::Hairpin(address, protocol, port) => {
                Value::new().address(address).address(address).protocol(protocol).port(port)
            }
            Self::Source(frontend, range) => {
                frontend_value(&frontend).number(u32::from(range.prefix)).address(range.base)
            }
        }
    }

    /// The chain that the element leads to by what the map gives.
    pub(super) fn shape(&self, data: Option<u32>) -> Option<Shape> {
        match self.map() {
            Map::Frontends | Map::Everywhere => {
                data.map(|way| Way(way).count()).filter(|count| *count != 0).map(Shape::Pick)
            }
            Map::Sticky => data.map(Shape::Remember),
            _ => None,
        }
    }

    /// The length of prefix of a source range.
    pub(super) fn prefix(&self) -> Option<u8> {
        match self {
            Self::Source(_, range) => Some(range.prefix),
            _ => None,
        }
    }
}

pub fn frontend_value(frontend: &Frontend) -> Value {
    Value::new().address(frontend.address).protocol(frontend.protocol).port(frontend.port)
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A key and the number that the map gives, where it is a map.
    Claim(Key, Option<u32>),
    Endpoint {
        list: u32,
        index: u32,
        to: Backend,
    },
}

impl Item {
    pub fn map(&self) -> Map {
        match self {
            Self::Claim(key, _) => key.map(),
            Self::Endpoint { .. } => Map::Endpoints,
        }
    }

    pub fn key(&self) -> Value {
        match self {
            Self::Claim(key, _) => key.value(),
            Self::Endpoint { list, index, .. } => Value::new().number(*list).number(*index),
        }
    }

    /// What a map gives.
    pub fn data(&self) -> Option<Value> {
        match self {
            Self::Claim(_, data) => data.map(|number| Value::new().number(number)),
            Self::Endpoint { to, .. } => Some(Value::new().address(to.address).port(to.port)),
        }
    }

    pub fn element(&self) -> Element {
        match self.data() {
            Some(data) => Element::with_data(self.key(), data),
            None => Element::new(self.key()),
        }
    }
}

/// What has to be done to the table, in this order: chains, deletions, additions.
#[derive(Debug, Default)]
pub struct Changes {
    pub shapes: Vec<Shape>,
    pub deleted: BTreeMap<Map, Vec<Item>>,
    /// Deletions of what no Service ever wanted, found in the kernel.
    pub surplus: BTreeMap<Map, Vec<Element>>,
    pub added: BTreeMap<Map, Vec<Item>>,
    /// The source ranges have other lengths of prefix than before.
    pub guards: bool,
    /// Frontends with affinity that lost endpoints, with those they still have: other clients are to be forgotten.
    pub forgotten: Vec<(Frontend, Vec<Backend>)>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty() && self.len() == 0 && !self.guards
    }

    /// Elements to be deleted or added.
    pub fn len(&self) -> usize {
        let surplus: usize = self.surplus.values().map(Vec::len).sum();
        surplus + self.deleted.values().chain(self.added.values()).map(Vec::len).sum::<usize>()
    }

    pub(super) fn delete(&mut self, item: Item) {
        self.deleted.entry(item.map()).or_default().push(item);
    }

    pub(super) fn add(&mut self, item: Item) {
        self.added.entry(item.map()).or_default().push(item);
    }
}
