//! What the table of one family holds, Service by Service, and what has to change in it. Pure: elements in, elements
//! out; nothing here speaks to the kernel.
//!
//! Invariant: after a change was applied, the elements of the table are exactly those this state would make anew. An
//! endpoint keeps its index in its list as long as it can, so that a change costs what changed.
//!
//! Two Services may claim the same key, such as an external address. The first one has it; when it goes, the next one
//! gets it.

mod item;
mod list;

use std::collections::{BTreeMap, HashMap, HashSet};

use api::meta::ObjectKey;
use nftables::Value;

pub use item::{Changes, Item, Key, frontend_value};
use list::{Endpoints, placed, restored};

use crate::endpoints::Backend;
use crate::plan::{Entry, Frontend, Kind, List, Plan, Port, Unserved};
use crate::table::{Map, Shape, Way, fixed_shapes};

/// What an earlier run left: lists by what leads to them, and their endpoints by index.
#[derive(Debug, Default)]
pub struct Left {
    /// List number by map and key of a frontend.
    pub lists: HashMap<(Map, Value), u32>,
    pub endpoints: HashMap<u32, BTreeMap<u32, Backend>>,
}

#[derive(Debug, Default)]
pub struct State {
    services: HashMap<ObjectKey, Held>,
    /// Who has each key.
    claims: HashMap<Key, Claim>,
    /// Who else wants a key that somebody has, in order.
    waiting: HashMap<Key, Vec<Claim>>,
    /// How many elements need each of the chains that are there.
    shapes: BTreeMap<Shape, usize>,
    /// How many source ranges have each length of prefix.
    prefixes: BTreeMap<u8, usize>,
    /// Numbers of lists.
    used: HashSet<u32>,
    last: u32,
    last_owner: u32,
    unserved_here: UnservedHere,
    left: Left,
}

/// Ports whose traffic must stay on the node and finds no endpoint there, though there are some elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnservedHere {
    /// By their internal traffic policy.
    pub internal: usize,
    /// By their external traffic policy.
    pub external: usize,
}

impl UnservedHere {
    fn of(plan: Option<&Plan>) -> Self {
        let mut all = Self::default();
        for port in plan.into_iter().flat_map(|plan| &plan.ports) {
            let drops = |is_internal: bool| {
                let of = |entry: &&Entry| (entry.kind == Kind::Internal) == is_internal;
                port.entries.iter().filter(of).any(|entry| entry.unserved == Some(Unserved::Dropped))
            };
            all.internal += usize::from(drops(true));
            all.external += usize::from(drops(false));
        }
        all
    }
}

/// A Service's wish for a key, and what the map should give for it.
#[derive(Clone, Copy, Debug)]
struct Claim {
    owner: u32,
    data: Option<u32>,
}

#[derive(Debug, Default)]
struct Held {
    /// The Service among all, for as long as it is there.
    owner: u32,
    unserved_here: UnservedHere,
    lists: Vec<(ListId, Endpoints)>,
    /// Sorted.
    claims: Box<[(Key, Option<u32>)]>,
    /// Frontends with affinity, and where their clients may be.
    sticky: Box<[(Frontend, Vec<Backend>)]>,
}

/// Protocol and port of a Service, and which of its lists.
type ListId = (u8, u16, List);
/// What keys gave before a change.
type Touched = HashMap<Key, Option<Option<u32>>>;

/// A Service's part of the table under construction.
#[derive(Default)]
struct Wanted {
    lists: Vec<(ListId, Endpoints)>,
    claims: Vec<(Key, Option<u32>)>,
    sticky: Vec<(Frontend, Vec<Backend>)>,
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

    pub fn unserved_here(&self) -> UnservedHere {
        self.unserved_here
    }

    /// What these Services have to be changed to; `None` for one that is gone. Each of them at most once.
    pub fn update(&mut self, services: Vec<(ObjectKey, Option<Plan>)>) -> Changes {
        let mut changes = Changes::default();
        let mut touched = Touched::with_capacity(services.len() * 2);
        let prefixes = self.prefixes();
        for (name, plan) in services {
            self.update_one(name, plan.as_ref(), &mut changes, &mut touched);
        }
        for (key, before) in touched {
            let after = self.claims.get(&key).map(|claim| claim.data);
            if before == after {
                continue;
            }
            if let Some(data) = before {
                changes.delete(Item::Claim(key, data));
            }
            if let Some(data) = after {
                changes.add(Item::Claim(key, data));
            }
        }
        changes.guards = prefixes != self.prefixes();
        changes
    }

    /// Everything the table should hold.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let claims = self.claims.iter().map(|(key, claim)| Item::Claim(*key, claim.data));
        let lists = self.services.values().flat_map(|held| &held.lists);
        claims.chain(lists.flat_map(|(_, list)| list.items()))
    }

    /// Knows a chain that an earlier run made; without use it is idle.
    pub fn has_shape(&mut self, shape: Shape) {
        self.shapes.entry(shape).or_default();
    }

    /// Forgets what an earlier run left; called when all Services were looked at.
    pub fn settle(&mut self) {
        self.left = Left::default();
        self.used = self.services.values().flat_map(|held| &held.lists).map(|(_, list)| list.number).collect();
    }

    /// All frontends with affinity, and where their clients may be.
    pub fn sticky(&self) -> Vec<(Frontend, Vec<Backend>)> {
        self.services.values().flat_map(|held| held.sticky.iter().cloned()).collect()
    }

    /// Chains that no frontend leads to, and forgets them.
    pub fn take_idle_shapes(&mut self) -> Vec<Shape> {
        let idle = |(shape, uses): (&Shape, &usize)| (*uses == 0 && !shape.is_fixed()).then_some(*shape);
        let found: Vec<Shape> = self.shapes.iter().filter_map(idle).collect();
        self.shapes.retain(|shape, _| !found.contains(shape));
        found
    }

    fn update_one(&mut self, name: ObjectKey, plan: Option<&Plan>, changes: &mut Changes, touched: &mut Touched) {
        let mut before = self.services.remove(&name).unwrap_or_else(|| self.new_owner());
        let mut wanted = Wanted::default();
        for port in plan.into_iter().flat_map(|plan| &plan.ports) {
            self.update_port(port, &mut before, &mut wanted, changes);
        }
        for (_, list) in before.lists {
            self.used.remove(&list.number);
            list::write(&list.backends, &Endpoints { number: list.number, backends: [].into() }, changes);
        }
        wanted.claims.extend(plan.map(|plan| (Key::ClusterIp(plan.cluster_ip), None)));
        wanted.claims.sort_unstable();
        wanted.claims.dedup_by(|a, b| a.0 == b.0);
        self.update_claims(before.owner, &before.claims, &wanted.claims, changes, touched);
        for (frontend, had) in before.sticky {
            let has = wanted.sticky.iter().find(|(other, _)| *other == frontend).map(|(_, has)| has.clone());
            let has = has.unwrap_or_default();
            if had.iter().any(|backend| !has.contains(backend)) {
                changes.forgotten.push((frontend, has));
            }
        }
        let unserved_here = UnservedHere::of(plan);
        let (all, had) = (self.unserved_here, before.unserved_here);
        self.unserved_here = UnservedHere {
            internal: all.internal + unserved_here.internal - had.internal,
            external: all.external + unserved_here.external - had.external,
        };
        if plan.is_some() {
            wanted.lists.shrink_to_fit();
            let (owner, lists) = (before.owner, wanted.lists);
            let (claims, sticky) = (wanted.claims.into(), wanted.sticky.into());
            self.services.insert(name, Held { owner, unserved_here, lists, claims, sticky });
        }
    }

    fn new_owner(&mut self) -> Held {
        self.last_owner = self.last_owner.wrapping_add(1);
        Held { owner: self.last_owner, ..Held::default() }
    }

    fn update_port(&mut self, port: &Port, before: &mut Held, wanted: &mut Wanted, changes: &mut Changes) {
        let has_external_local = port.entries.iter().any(|entry| entry.kind == Kind::ExternalLocal && entry.is_served);
        for (list, backends) in [(List::Cluster, &port.endpoints.cluster), (List::Local, &port.endpoints.local)] {
            // A list of nothing has a number, too, where another way starts from it.
            if backends.is_empty() && !(list == List::Local && has_external_local) {
                continue;
            }
            let id = (port.protocol, port.port, list);
            let held = before.lists.iter().position(|(other, _)| *other == id);
            let held = held.map(|at| before.lists.swap_remove(at).1).unwrap_or_else(|| self.new_list(port, list));
            let now = Endpoints { number: held.number, backends: placed(&held.backends, backends) };
            list::write(&held.backends, &now, changes);
            wanted.lists.push((id, now));
        }
        for entry in &port.entries {
            claim_entry(port, entry, wanted);
        }
        if has_external_local {
            let (from, to) = (way(None, port, List::Local, wanted), way(None, port, List::Cluster, wanted));
            wanted.claims.push((Key::List(from.list()), Some(to.0)));
        }
        for backend in &port.endpoints.here {
            wanted.claims.push((Key::Hairpin(backend.address, port.protocol, backend.port), None));
        }
    }

    /// A new list, or one that an earlier run made for the same frontends.
    fn new_list(&mut self, port: &Port, list: List) -> Endpoints {
        let left = port.entries.iter().filter(|entry| entry.list == list);
        let led_to = |entry: &Entry| self.left.lists.get(&(Map::Frontends, frontend_value(&entry.frontend))).copied();
        let mut left = left.filter_map(led_to).collect::<Vec<_>>();
        // The other list of a Service with local endpoints is known by where its way starts.
        if list == List::Cluster {
            let local = port.entries.iter().filter(|entry| entry.kind == Kind::ExternalLocal);
            let way = |local: u32| self.left.lists.get(&(Map::Everywhere, Value::new().number(local))).copied();
            left.extend(local.filter_map(led_to).filter_map(way));
        }
        // Taken once: two Services that claimed one key do not share a list.
        for number in left {
            if let Some(found) = self.left.endpoints.remove(&number) {
                return Endpoints { number, backends: restored(found) };
            }
        }
        Endpoints { number: self.next_number(), backends: [].into() }
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
        owner: u32,
        before: &[(Key, Option<u32>)],
        after: &[(Key, Option<u32>)],
        changes: &mut Changes,
        touched: &mut Touched,
    ) {
        for (key, data) in after {
            let known = before.binary_search_by(|(other, _)| other.cmp(key));
            if known.is_ok_and(|at| before[at].1 == *data) {
                continue;
            }
            if let Some(prefix) = key.prefix() {
                *self.prefixes.entry(prefix).or_default() += 1;
            }
            if let Some(shape) = key.shape(*data) {
                let uses = self.shapes.entry(shape).or_insert_with(|| {
                    changes.shapes.push(shape);
                    0
                });
                *uses += 1;
            }
            self.claim(Claim { owner, data: *data }, *key, touched);
        }
        for (key, data) in before {
            let known = after.binary_search_by(|(other, _)| other.cmp(key));
            if known.is_ok_and(|at| after[at].1 == *data) {
                continue;
            }
            if let Some(uses) = key.shape(*data).and_then(|shape| self.shapes.get_mut(&shape)) {
                *uses -= 1;
            }
            if known.is_err() {
                self.withdraw(owner, *key, touched);
            }
            if let Some(prefix) = key.prefix() {
                self.prefixes.entry(prefix).and_modify(|count| *count -= 1);
            }
        }
    }

    /// Whoever has a key keeps it; others wait.
    fn claim(&mut self, claim: Claim, key: Key, touched: &mut Touched) {
        let Some(first) = self.claims.get_mut(&key) else {
            touched.entry(key).or_insert(None);
            self.claims.insert(key, claim);
            return;
        };
        if first.owner == claim.owner {
            touched.entry(key).or_insert(Some(first.data));
            *first = claim;
            return;
        }
        let waiting = self.waiting.entry(key).or_default();
        match waiting.iter_mut().find(|other| other.owner == claim.owner) {
            Some(other) => *other = claim,
            None => waiting.push(claim),
        }
    }

    fn withdraw(&mut self, owner: u32, key: Key, touched: &mut Touched) {
        let waiting = self.waiting.get_mut(&key);
        match self.claims.get(&key) {
            Some(first) if first.owner == owner => {
                touched.entry(key).or_insert(Some(first.data));
                match waiting.map(|waiting| waiting.remove(0)) {
                    Some(next) => drop(self.claims.insert(key, next)),
                    None => drop(self.claims.remove(&key)),
                }
            }
            _ => waiting.into_iter().for_each(|waiting| waiting.retain(|other| other.owner != owner)),
        }
        if self.waiting.get(&key).is_some_and(Vec::is_empty) {
            self.waiting.remove(&key);
        }
    }
}

fn way(kind: Option<Kind>, port: &Port, list: List, wanted: &Wanted) -> Way {
    let id = (port.protocol, port.port, list);
    let list = wanted.lists.iter().find(|(other, _)| *other == id).map(|(_, list)| list);
    Way::new(kind, list.map_or(0, |list| list.backends.len() as u32), list.map_or(0, |list| list.number))
}

fn claim_entry(port: &Port, entry: &Entry, wanted: &mut Wanted) {
    let frontend = entry.frontend;
    if entry.is_served {
        let way = way(Some(entry.kind), port, entry.list, wanted);
        wanted.claims.push((Key::Frontend(Map::Frontends, frontend), Some(way.0)));
        if port.affinity_seconds != 0 {
            wanted.claims.push((Key::Frontend(Map::Sticky, frontend), Some(port.affinity_seconds)));
            let (cluster, local) = (&port.endpoints.cluster, &port.endpoints.local);
            wanted.sticky.push((frontend, cluster.iter().chain(local).copied().collect()));
        }
    }
    if !entry.sources.is_empty() {
        wanted.claims.push((Key::Frontend(Map::Guarded, frontend), None));
        wanted.claims.extend(entry.sources.iter().map(|range| (Key::Source(frontend, *range), None)));
    }
    match entry.unserved {
        Some(Unserved::Refused) => wanted.claims.push((Key::Frontend(Map::Refused, frontend), None)),
        Some(Unserved::Dropped) => wanted.claims.push((Key::Frontend(Map::Dropped, frontend), None)),
        None => {}
    }
}

#[cfg(test)]
mod tests;
