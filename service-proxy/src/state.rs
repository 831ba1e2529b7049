//! What the table of one family holds, Service by Service, and what has to change in it. Pure: elements in, elements
//! out; nothing here speaks to the kernel.
//!
//! Invariant: after a change was applied, the elements of the table are exactly those this state would make anew. An
//! endpoint keeps its index in its list as long as it can, so that a change costs what changed.
//!
//! Two Services may claim the same key, such as an external address. The first one has it; when it goes, the next one
//! gets it.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::meta::ObjectKey;
use nftables::{Data, Element, Value};

use crate::endpoints::Backend;
use crate::plan::{Entry, Frontend, Kind, List, Plan, Port, Unserved};
use crate::table::{Map, Shape, Way, fixed_shapes};
use api::cidr::Cidr;

pub type Key = (Map, Value);

/// A source's key in family 4: address, protocol, port, length of prefix, address. In family 6 it is longer.
const V4_SOURCE_BYTES: usize = 20;

/// What has to be done to the table, in this order: chains, deletions, additions.
#[derive(Debug, Default)]
pub struct Changes {
    pub shapes: Vec<Shape>,
    pub deleted: BTreeMap<Map, Vec<Element>>,
    pub added: BTreeMap<Map, Vec<Element>>,
    /// The source ranges have other lengths of prefix than before.
    pub guards: bool,
    /// Frontends with affinity that lost endpoints, with those they still have: other clients are to be forgotten.
    pub forgotten: Vec<(Value, Vec<Backend>)>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty() && self.deleted.is_empty() && self.added.is_empty() && !self.guards
    }

    /// Elements to be deleted or added.
    pub fn len(&self) -> usize {
        self.deleted.values().chain(self.added.values()).map(Vec::len).sum()
    }

    fn delete(&mut self, map: Map, element: Element) {
        self.deleted.entry(map).or_default().push(element);
    }

    fn add(&mut self, map: Map, element: Element) {
        self.added.entry(map).or_default().push(element);
    }
}

/// What an earlier run left: lists by what leads to them, and their endpoints by index.
#[derive(Debug, Default)]
pub struct Left {
    /// List number by the key of a frontend.
    pub lists: HashMap<Key, u32>,
    pub endpoints: HashMap<u32, BTreeMap<u32, Backend>>,
}

#[derive(Debug, Default)]
pub struct State {
    services: HashMap<ObjectKey, Held>,
    claims: HashMap<Key, Vec<(ObjectKey, Option<Value>)>>,
    /// How many elements need each of the chains that are there.
    shapes: BTreeMap<Shape, usize>,
    /// How many source ranges have each length of prefix.
    prefixes: BTreeMap<u8, usize>,
    /// Numbers of lists.
    used: HashSet<u32>,
    last: u32,
    left: Left,
}

#[derive(Debug, Default)]
struct Held {
    lists: BTreeMap<(u8, u16, List), Endpoints>,
    /// Sorted.
    claims: Vec<(Key, Option<Value>)>,
    /// Frontends with affinity, and where their clients may be.
    sticky: Vec<(Value, Vec<Backend>)>,
}

/// A list as the table has it: the place of an endpoint is its index.
#[derive(Debug)]
struct Endpoints {
    number: u32,
    backends: Vec<Backend>,
}

impl State {
    /// A state without Services that goes on with the numbers an earlier run gave.
    pub fn new(left: Left) -> Self {
        let shapes = fixed_shapes().map(|shape| (shape, 0)).collect();
        // What an earlier run used is not given to anybody else before all Services were looked at.
        let used = left.endpoints.keys().chain(left.lists.values()).copied().collect();
        Self { shapes, used, left, ..Self::default() }
    }

    /// Chains that are there, with or without use.
    pub fn shapes(&self) -> Vec<Shape> {
        self.shapes.keys().copied().collect()
    }

    /// Lengths of prefix that source ranges have.
    pub fn prefixes(&self) -> Vec<u8> {
        self.prefixes.iter().filter(|(_, count)| **count != 0).map(|(prefix, _)| *prefix).collect()
    }

    /// What these Services have to be changed to; `None` for one that is gone. Each of them at most once.
    pub fn update(&mut self, services: Vec<(ObjectKey, Option<Plan>)>) -> Changes {
        let mut changes = Changes::default();
        let mut touched = HashMap::new();
        let prefixes = self.prefixes();
        for (name, plan) in services {
            self.update_one(&name, plan.as_ref(), &mut changes, &mut touched);
        }
        for (key, before) in touched {
            let after = self.claims.get(&key).and_then(|claims| claims.first()).map(|(_, data)| data.clone());
            if before == after {
                continue;
            }
            if before.is_some() {
                changes.delete(key.0, Element::new(key.1.clone()));
            }
            if let Some(data) = after {
                changes.add(key.0, element(key.1, data));
            }
        }
        changes.guards = prefixes != self.prefixes();
        changes
    }

    /// Everything the table should hold.
    pub fn elements(&self) -> BTreeMap<Map, HashMap<Value, Option<Value>>> {
        let mut all: BTreeMap<Map, HashMap<Value, Option<Value>>> = BTreeMap::new();
        let mut add = |map, key, data| drop(all.entry(map).or_default().insert(key, data));
        for ((map, key), claims) in &self.claims {
            let data = claims.first().and_then(|(_, data)| data.clone());
            add(*map, key.clone(), data);
        }
        for held in self.services.values() {
            for list in held.lists.values() {
                for (index, backend) in list.backends.iter().enumerate() {
                    let key = Value::new().number(list.number);
                    let to = Value::new().address(backend.address).port(backend.port);
                    add(Map::Endpoints, key.number(index as u32), Some(to));
                }
            }
        }
        all
    }

    /// Knows a chain that an earlier run made; without use it is idle.
    pub fn has_shape(&mut self, shape: Shape) {
        self.shapes.entry(shape).or_default();
    }

    /// Forgets what an earlier run left; called when all Services were looked at.
    pub fn settle(&mut self) {
        self.left = Left::default();
        self.used = self.services.values().flat_map(|held| held.lists.values()).map(|list| list.number).collect();
    }

    /// All frontends with affinity, and where their clients may be.
    pub fn sticky(&self) -> Vec<(Value, Vec<Backend>)> {
        self.services.values().flat_map(|held| held.sticky.iter().cloned()).collect()
    }

    /// Chains that no frontend leads to, and forgets them.
    pub fn take_idle_shapes(&mut self) -> Vec<Shape> {
        let idle = |(shape, uses): (&Shape, &usize)| (*uses == 0 && !shape.is_fixed()).then_some(*shape);
        let found: Vec<Shape> = self.shapes.iter().filter_map(idle).collect();
        self.shapes.retain(|shape, _| !found.contains(shape));
        found
    }

    fn update_one(
        &mut self,
        name: &ObjectKey,
        plan: Option<&Plan>,
        changes: &mut Changes,
        touched: &mut HashMap<Key, Option<Option<Value>>>,
    ) {
        let mut before = self.services.remove(name).unwrap_or_default();
        let mut after = Held::default();
        for port in plan.into_iter().flat_map(|plan| &plan.ports) {
            self.update_port(port, &mut before, &mut after, changes);
        }
        for list in before.lists.into_values() {
            self.used.remove(&list.number);
            write_list(&list.backends, &Endpoints { number: list.number, backends: Vec::new() }, changes);
        }
        after.claims.extend(plan.map(|plan| ((Map::ClusterIps, Value::new().address(plan.cluster_ip)), None)));
        after.claims.sort();
        after.claims.dedup_by(|a, b| a.0 == b.0);
        self.update_claims(name, &before.claims, &after.claims, changes, touched);
        for (frontend, had) in before.sticky {
            let has = after.sticky.iter().find(|(other, _)| *other == frontend).map(|(_, has)| has.clone());
            let has = has.unwrap_or_default();
            if had.iter().any(|backend| !has.contains(backend)) {
                changes.forgotten.push((frontend, has));
            }
        }
        if plan.is_some() {
            self.services.insert(name.clone(), after);
        }
    }

    fn update_port(&mut self, port: &Port, before: &mut Held, after: &mut Held, changes: &mut Changes) {
        let has_external_local = port.entries.iter().any(|entry| entry.kind == Kind::ExternalLocal && entry.is_served);
        for (list, backends) in [(List::Cluster, &port.endpoints.cluster), (List::Local, &port.endpoints.local)] {
            // A list of nothing has a number, too, where another way starts from it.
            if backends.is_empty() && !(list == List::Local && has_external_local) {
                continue;
            }
            let id = (port.protocol, port.port, list);
            let held = before.lists.remove(&id).unwrap_or_else(|| self.new_list(port, list));
            let now = Endpoints { number: held.number, backends: placed(&held.backends, backends) };
            write_list(&held.backends, &now, changes);
            after.lists.insert(id, now);
        }
        for entry in &port.entries {
            claim_entry(port, entry, after);
        }
        if has_external_local {
            let (from, to) = (way(None, port, List::Local, after), way(None, port, List::Cluster, after));
            let key = (Map::Everywhere, Value::new().number(from.list()));
            after.claims.push((key, Some(Value::new().number(to.0))));
        }
        for backend in &port.endpoints.here {
            let key = Value::new().address(backend.address).address(backend.address);
            after.claims.push(((Map::Hairpins, key.protocol(port.protocol).port(backend.port)), None));
        }
    }

    /// A new list, or one that an earlier run made for the same frontends.
    fn new_list(&mut self, port: &Port, list: List) -> Endpoints {
        let left = port.entries.iter().filter(|entry| entry.list == list);
        let left = left.filter_map(|entry| self.left.lists.get(&(Map::Frontends, frontend_key(&entry.frontend))));
        let mut left = left.copied().collect::<Vec<_>>();
        // The other list of a Service with local endpoints is known by where its way starts.
        if list == List::Cluster {
            let local = port.entries.iter().filter(|entry| entry.kind == Kind::ExternalLocal);
            let local = local.filter_map(|entry| self.left.lists.get(&(Map::Frontends, frontend_key(&entry.frontend))));
            let way = |local: &u32| self.left.lists.get(&(Map::Everywhere, Value::new().number(*local))).copied();
            left.extend(local.filter_map(way));
        }
        // Taken once: two Services that claimed one key do not share a list.
        for number in left {
            if let Some(found) = self.left.endpoints.remove(&number) {
                return Endpoints { number, backends: restored(found) };
            }
        }
        Endpoints { number: self.next_number(), backends: Vec::new() }
    }

    /// A number that is free. There are more numbers than lists in any cluster; 0 stands for none.
    fn next_number(&mut self) -> u32 {
        for _ in 0..Way::LIST_MAX {
            self.last = self.last % Way::LIST_MAX + 1;
            if self.used.insert(self.last) {
                break;
            }
        }
        self.last
    }

    fn update_claims(
        &mut self,
        name: &ObjectKey,
        before: &[(Key, Option<Value>)],
        after: &[(Key, Option<Value>)],
        changes: &mut Changes,
        touched: &mut HashMap<Key, Option<Option<Value>>>,
    ) {
        for (key, data) in after {
            let known = before.binary_search_by(|(other, _)| other.cmp(key));
            if known.is_ok_and(|at| before[at].1 == *data) {
                continue;
            }
            if let Some(prefix) = prefix(key) {
                *self.prefixes.entry(prefix).or_default() += 1;
            }
            if let Some(shape) = shape(key.0, data.as_ref()) {
                let uses = self.shapes.entry(shape).or_insert_with(|| {
                    changes.shapes.push(shape);
                    0
                });
                *uses += 1;
            }
            let claims = self.claims.entry(key.clone()).or_default();
            touched.entry(key.clone()).or_insert_with(|| claims.first().map(|(_, data)| data.clone()));
            match claims.iter_mut().find(|(owner, _)| owner == name) {
                Some(claim) => claim.1.clone_from(data),
                None => claims.push((name.clone(), data.clone())),
            }
        }
        for (key, data) in before {
            let known = after.binary_search_by(|(other, _)| other.cmp(key));
            if known.is_ok_and(|at| after[at].1 == *data) {
                continue;
            }
            if let Some(uses) = shape(key.0, data.as_ref()).and_then(|shape| self.shapes.get_mut(&shape)) {
                *uses -= 1;
            }
            if known.is_err() {
                self.withdraw(name, key, touched);
            }
            if let Some(prefix) = prefix(key) {
                self.prefixes.entry(prefix).and_modify(|count| *count -= 1);
            }
        }
    }

    fn withdraw(&mut self, name: &ObjectKey, key: &Key, touched: &mut HashMap<Key, Option<Option<Value>>>) {
        let Some(claims) = self.claims.get_mut(key) else { return };
        touched.entry(key.clone()).or_insert_with(|| claims.first().map(|(_, data)| data.clone()));
        claims.retain(|(owner, _)| owner != name);
        if claims.is_empty() {
            self.claims.remove(key);
        }
    }
}

/// How a list changes from one moment to the next.
fn write_list(before: &[Backend], list: &Endpoints, changes: &mut Changes) {
    for index in 0..before.len().max(list.backends.len()) {
        let (old, new) = (before.get(index), list.backends.get(index));
        if old == new {
            continue;
        }
        let key = Value::new().number(list.number).number(index as u32);
        if old.is_some() {
            changes.delete(Map::Endpoints, Element::new(key.clone()));
        }
        if let Some(new) = new {
            let to = Value::new().address(new.address).port(new.port);
            changes.add(Map::Endpoints, Element::with_data(key, to));
        }
    }
}

/// The places of endpoints: those that stay keep theirs, new ones fill the gaps, and the last ones close them.
fn placed(before: &[Backend], wanted: &[Backend]) -> Vec<Backend> {
    let kept: HashSet<&Backend> = wanted.iter().collect();
    let had: HashSet<&Backend> = before.iter().collect();
    let mut new = wanted.iter().filter(|backend| !had.contains(backend)).copied();
    let mut places: Vec<Option<Backend>> =
        before.iter().map(|backend| if kept.contains(backend) { Some(*backend) } else { new.next() }).collect();
    places.extend(new.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_some() {
            at += 1;
        } else if let Some(last) = places.pop()
            && at < places.len()
        {
            places[at] = last;
        }
    }
    places.into_iter().flatten().collect()
}

/// In their order, as far as it has no gaps.
fn restored(found: BTreeMap<u32, Backend>) -> Vec<Backend> {
    found.into_iter().enumerate().take_while(|(at, (index, _))| *at as u32 == *index).map(|(_, (_, b))| b).collect()
}

fn way(kind: Option<Kind>, port: &Port, list: List, held: &Held) -> Way {
    let list = held.lists.get(&(port.protocol, port.port, list));
    Way::new(kind, list.map_or(0, |list| list.backends.len() as u32), list.map_or(0, |list| list.number))
}

fn claim_entry(port: &Port, entry: &Entry, after: &mut Held) {
    let key = frontend_key(&entry.frontend);
    if entry.is_served {
        let way = way(Some(entry.kind), port, entry.list, after);
        after.claims.push(((Map::Frontends, key.clone()), Some(Value::new().number(way.0))));
        if port.affinity_seconds != 0 {
            after.claims.push(((Map::Sticky, key.clone()), Some(Value::new().number(port.affinity_seconds))));
            let (cluster, local) = (&port.endpoints.cluster, &port.endpoints.local);
            after.sticky.push((key.clone(), cluster.iter().chain(local).copied().collect()));
        }
    }
    if !entry.sources.is_empty() {
        after.claims.push(((Map::Guarded, key.clone()), None));
        after.claims.extend(entry.sources.iter().map(|range| ((Map::Sources, source_key(&key, range)), None)));
    }
    match entry.unserved {
        Some(Unserved::Refused) => after.claims.push(((Map::Refused, key), None)),
        Some(Unserved::Dropped) => after.claims.push(((Map::Dropped, key), None)),
        None => {}
    }
}

fn source_key(frontend: &Value, range: &Cidr) -> Value {
    frontend.clone().number(u32::from(range.prefix)).address(range.base)
}

/// The length of prefix in the key of a source range.
pub fn prefix(key: &Key) -> Option<u8> {
    let address = if key.1.0.len() > V4_SOURCE_BYTES { 16 } else { 4 };
    let at = key.1.0.len().checked_sub(address + 4)?;
    let number = key.1.0.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)?;
    (key.0 == Map::Sources).then_some(number as u8)
}

fn element(key: Value, data: Option<Value>) -> Element {
    Element { data: data.map(Data::Value), ..Element::new(key) }
}

pub fn frontend_key(frontend: &Frontend) -> Value {
    Value::new().address(frontend.address).protocol(frontend.protocol).port(frontend.port)
}

/// The chain that an element leads to by its value.
fn shape(map: Map, data: Option<&Value>) -> Option<Shape> {
    let number = u32::from_ne_bytes(data?.0.get(..4)?.try_into().ok()?);
    match map {
        Map::Frontends | Map::Everywhere => Some(Way(number).count()).filter(|count| *count != 0).map(Shape::Pick),
        Map::Sticky => Some(Shape::Remember(number)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
