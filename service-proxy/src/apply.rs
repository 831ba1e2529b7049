//! The tables in the kernel: brought to a whole state at the start and for repairs, and changed element by element
//! after that. Blocking, like the kernel's answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::meta::ObjectKey;
use nftables::{Batch, Data, Element, Error, Monitor, Socket, Value, Verdict};
use tracing::{debug, warn};

use crate::endpoints::Backend;
use crate::plan::Plan;
use crate::state::{self, Changes, Left, State};
use crate::table::{
    AFFINITY, DATA_MAPS, Fixed, Frame, GUARD_CHAIN, KINDS, KINDS_COUNT, Map, NOWHERE, Shape, Way, fixed_shapes,
};

/// Transactions with more elements than this are made while nobody listens, as the kernel would make a message of each.
const HEARD_ELEMENTS_MAX: usize = 1_000;
/// Clients with affinity come and go while they are being deleted.
const FORGET_TRIES: u32 = 5;
/// Protocol and port of a frontend, behind its address.
const FRONTEND_TAIL_BYTES: usize = 8;

/// Services with what is planned for them, in families 4 and 6; `None` for those that are gone.
pub type Plans = Vec<(ObjectKey, [Option<Plan>; 2])>;

pub struct Tables {
    fixed: Fixed,
    socket: Socket,
    monitor: Option<Arc<Monitor>>,
    families: [FamilyTable; 2],
    /// Somebody else may have changed a table while nobody listened.
    pub is_doubtful: bool,
}

#[derive(Default)]
struct FamilyTable {
    /// There is a table of this family.
    is_active: bool,
    state: State,
    /// Chains without use, whose elements are gone: to be deleted next time.
    retired: Vec<Shape>,
    /// Clients to be looked for once more: a connection under way may have kept one after it was forgotten.
    forgotten: Vec<(Value, Vec<Backend>)>,
}

/// What the kernel has of a table that is this version's.
struct Found {
    data: HashMap<Map, Vec<Element>>,
    shapes: Vec<Shape>,
}

impl Tables {
    pub fn open(fixed: Fixed) -> Result<Self, Error> {
        let socket = Socket::open()?;
        Ok(Self { fixed, socket, monitor: None, families: Default::default(), is_doubtful: false })
    }

    /// Makes somebody listen to others' changes. Must be called inside a tokio runtime.
    pub fn listen(&mut self) -> Result<Arc<Monitor>, Error> {
        let monitor = Arc::new(Monitor::open(&[self.socket.port()?])?);
        self.monitor = Some(monitor.clone());
        Ok(monitor)
    }

    /// Brings the tables to exactly these Services, whatever is there. What is right stays untouched, so connections
    /// and clients with affinity go on.
    pub fn reconcile(&mut self, plans: Plans) -> Result<(), Error> {
        self.is_doubtful = false;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (name, [four, six]) in plans {
            if six.is_some() {
                v6.push((name.clone(), six));
            }
            v4.push((name, four));
        }
        let has_v6 = !v6.is_empty() || self.fixed.pods.iter().any(|range| range.base.is_ipv6());
        self.reconcile_family(false, v4)?;
        if has_v6 && kernel_has_ipv6() {
            self.reconcile_family(true, v6)?;
        }
        Ok(())
    }

    fn reconcile_family(&mut self, ipv6: bool, plans: Vec<(ObjectKey, Option<Plan>)>) -> Result<(), Error> {
        let fixed = self.fixed.clone();
        let frame = Frame { fixed: &fixed, ipv6 };
        let found = self.find(&frame)?;
        let mut state = State::new(found.as_ref().map(left).unwrap_or_default());
        state.update(plans);
        state.settle();
        let mut batch = Batch::new();
        let mut elements = 0;
        let wanted = state.elements();
        if let Some(found) = found {
            found.shapes.iter().for_each(|shape| state.has_shape(*shape));
            elements += repair(&mut batch, &frame, &state, &found, wanted);
        } else {
            batch.add_table(frame.table(), None);
            batch.delete_table(frame.table());
            batch.add_table(frame.table(), Some(&frame.comment()));
            frame.write(&mut batch);
            for shape in state.shapes().iter().filter(|shape| !shape.is_fixed()) {
                frame.write_shape(&mut batch, shape);
            }
            frame.guard_rules(state.prefixes()).iter().for_each(|rule| batch.add_rule(frame.table(), rule));
            for map in DATA_MAPS {
                let Some(data) = wanted.get(&map) else { continue };
                elements += data.len();
                batch.add_elements(frame.table(), map.name(), data.iter().map(|(key, data)| element(key, data)));
            }
        }
        self.commit(&mut batch, elements)?;
        let sticky = state.sticky();
        self.families[usize::from(ipv6)] = FamilyTable { is_active: true, state, ..FamilyTable::default() };
        self.forget(&frame, &sticky, true)
    }

    /// What there is, if it has this version's shape: same sets, same chains with rules of the same kind.
    fn find(&mut self, frame: &Frame<'_>) -> Result<Option<Found>, Error> {
        let table = frame.table();
        let Some(found) = self.socket.table(table)? else { return Ok(None) };
        if found.comment.as_ref() != Some(&frame.comment()) {
            return Ok(None);
        }
        let mut shapes = Vec::new();
        for map in [Map::Picks, Map::Times] {
            let chains = self.socket.elements(table, map.name())?;
            shapes.extend(chains.iter().filter_map(|element| led_to(map, element)));
        }
        let mut data = HashMap::new();
        for map in DATA_MAPS {
            data.insert(map, self.socket.elements(table, map.name())?);
        }
        // Chains that were about to be deleted do no harm; they are not looked at.
        let rules = self.socket.rules(table)?;
        let chains: HashSet<String> = self.socket.chains(table)?.into_iter().map(|chain| chain.name).collect();
        // What no Service makes: kinds, and the way to nowhere.
        let kinds = self.socket.elements(table, KINDS)?.len();
        let has_fixed = kinds == KINDS_COUNT && shapes.contains(&Shape::Pick(0));
        shapes.retain(|shape| *shape != Shape::Pick(0));
        let has_fixed = has_fixed && fixed_shapes().all(|shape| shapes.contains(&shape));
        let as_expected = frame.expected(&shapes, prefixes(&data)).into_iter().all(|(chain, expected)| {
            let found = rules.iter().filter(|rule| rule.chain == chain).map(|rule| &rule.expressions);
            chains.contains(&chain) && found.eq(expected.iter())
        });
        Ok((has_fixed && as_expected).then_some(Found { data, shapes }))
    }

    /// Changes what these Services have in the tables.
    pub fn update(&mut self, plans: Plans) -> Result<(), Error> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (name, [four, six]) in plans {
            v4.push((name.clone(), four));
            v6.push((name, six));
        }
        self.update_family(false, v4)?;
        if self.families[1].is_active {
            self.update_family(true, v6)?;
        } else if v6.iter().any(|(_, plan)| plan.is_some()) && kernel_has_ipv6() {
            // The first Services of this family.
            self.reconcile_family(true, v6)?;
        }
        Ok(())
    }

    fn update_family(&mut self, ipv6: bool, plans: Vec<(ObjectKey, Option<Plan>)>) -> Result<(), Error> {
        let fixed = self.fixed.clone();
        let frame = Frame { fixed: &fixed, ipv6 };
        let family = &mut self.families[usize::from(ipv6)];
        let changes = family.state.update(plans);
        let mut batch = Batch::new();
        write(&mut batch, &frame, &changes, &family.state);
        family.retired.retain(|shape| !changes.shapes.contains(shape));
        self.commit(&mut batch, changes.len())?;
        if changes.forgotten.is_empty() {
            return Ok(());
        }
        self.forget(&frame, &changes.forgotten, false)?;
        self.families[usize::from(ipv6)].forgotten.extend(changes.forgotten);
        Ok(())
    }

    fn commit(&mut self, batch: &mut Batch, elements: usize) -> Result<(), Error> {
        let unheard = self.monitor.clone().filter(|_| elements > HEARD_ELEMENTS_MAX);
        let Some(monitor) = unheard else { return self.socket.commit(batch) };
        let before = self.socket.generation()?;
        monitor.pause();
        let result = self.socket.commit(batch);
        monitor.resume();
        let passed = self.socket.generation()?.wrapping_sub(before);
        self.is_doubtful |= passed > 1;
        result
    }

    /// Deletes clients of these frontends that are at another endpoint than one of theirs; `others`: and those of all
    /// other frontends.
    fn forget(&mut self, frame: &Frame<'_>, frontends: &[(Value, Vec<Backend>)], others: bool) -> Result<(), Error> {
        let table = frame.table();
        let frontends: HashMap<&Value, &Vec<Backend>> = frontends.iter().map(|(key, has)| (key, has)).collect();
        let address = if frame.ipv6 { 16 } else { 4 };
        for _ in 0..FORGET_TRIES {
            let mut clients = self.socket.elements(table, AFFINITY)?;
            clients.retain(|client| {
                let Some(own) = client.key.0.get(..address + FRONTEND_TAIL_BYTES) else { return false };
                // A node port is kept by the node's address it was asked at.
                let mut of_node = own.to_vec();
                of_node[..address].fill(0);
                let has = [own.to_vec(), of_node].into_iter().find_map(|key| frontends.get(&Value(key)));
                has.map_or(others, |has| value(client).and_then(backend).is_none_or(|at| !has.contains(&at)))
            });
            let mut batch = Batch::new();
            batch.delete_elements(table, AFFINITY, clients.into_iter().map(|client| Element::new(client.key)));
            match self.socket.commit(&mut batch) {
                Err(error) if error.code() == Some(nix::libc::ENOENT) => {}
                other => return other,
            }
        }
        warn!("clients of Services that are gone are left to time out");
        Ok(())
    }

    /// Takes away clients of endpoints that are gone, and chains that nothing leads to: their elements now, the chains themselves the next time, as the kernel
    /// may take a while to see that nothing leads there. Whether there is more to do.
    pub fn tidy(&mut self) -> Result<bool, Error> {
        let fixed = self.fixed.clone();
        for ipv6 in [false, true] {
            let frame = Frame { fixed: &fixed, ipv6 };
            let family = &mut self.families[usize::from(ipv6)];
            let mut batch = Batch::new();
            for shape in std::mem::take(&mut family.retired) {
                batch.flush_chain(frame.table(), &shape.chain());
                batch.delete_chain(frame.table(), &shape.chain());
            }
            family.retired = family.state.take_idle_shapes();
            for shape in &family.retired {
                let (map, element) = shape.element();
                batch.delete_elements(frame.table(), map.name(), [element]);
            }
            self.socket.commit(&mut batch)?;
            let forgotten = std::mem::take(&mut self.families[usize::from(ipv6)].forgotten);
            if !forgotten.is_empty() {
                self.forget(&frame, &forgotten, false)?;
            }
        }
        Ok(self.families.iter().any(|family| !family.retired.is_empty()))
    }

    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Removes the tables of both families.
    pub fn remove(&mut self) -> Result<(), Error> {
        for ipv6 in [false, true] {
            let table = Frame { fixed: &self.fixed, ipv6 }.table();
            if self.socket.table(table)?.is_some() {
                let mut batch = Batch::new();
                batch.delete_table(table);
                self.socket.commit(&mut batch)?;
            }
        }
        Ok(())
    }
}

fn kernel_has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

fn write(batch: &mut Batch, frame: &Frame<'_>, changes: &Changes, state: &State) {
    let table = frame.table();
    changes.shapes.iter().for_each(|shape| frame.write_shape(batch, shape));
    for (map, elements) in &changes.deleted {
        batch.delete_elements(table, map.name(), elements);
    }
    if changes.guards {
        batch.flush_chain(table, GUARD_CHAIN);
        frame.guard_rules(state.prefixes()).iter().for_each(|rule| batch.add_rule(table, rule));
    }
    for (map, elements) in &changes.added {
        batch.add_elements(table, map.name(), elements);
    }
}

/// Adds what is missing and deletes what is too much. Returns how many elements that are.
fn repair(
    batch: &mut Batch,
    frame: &Frame<'_>,
    state: &State,
    found: &Found,
    mut wanted: BTreeMap<Map, HashMap<Value, Option<Value>>>,
) -> usize {
    let table = frame.table();
    let mut changes = Changes {
        shapes: state.shapes().into_iter().filter(|shape| !found.shapes.contains(shape)).collect(),
        guards: prefixes(&found.data) != state.prefixes(),
        ..Changes::default()
    };
    for map in DATA_MAPS {
        let mut wanted = wanted.remove(&map).unwrap_or_default();
        for element in found.data.get(&map).into_iter().flatten() {
            let is_right = wanted.get(&element.key).is_some_and(|data| *data == value(element).cloned());
            if is_right {
                wanted.remove(&element.key);
            } else {
                changes.deleted.entry(map).or_default().push(Element::new(element.key.clone()));
            }
        }
        changes.added.insert(map, wanted.iter().map(|(key, data)| self::element(key, data)).collect());
    }
    debug!(table = table.name, deleted = ?counts(&changes.deleted), added = ?counts(&changes.added), "found a table");
    write(batch, frame, &changes, state);
    changes.len()
}

fn counts(elements: &BTreeMap<Map, Vec<Element>>) -> Vec<(&'static str, usize)> {
    elements.iter().filter(|(_, all)| !all.is_empty()).map(|(map, all)| (map.name(), all.len())).collect()
}

fn element(key: &Value, data: &Option<Value>) -> Element {
    Element { data: data.clone().map(Data::Value), ..Element::new(key.clone()) }
}

fn value(element: &Element) -> Option<&Value> {
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

fn prefixes(data: &HashMap<Map, Vec<Element>>) -> Vec<u8> {
    let sources = data.get(&Map::Sources).into_iter().flatten();
    let prefix = |element: &Element| state::prefix(&(Map::Sources, element.key.clone()));
    let mut prefixes: Vec<u8> = sources.filter_map(prefix).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// The numbers an earlier run gave, from its elements.
fn left(found: &Found) -> Left {
    let mut left = Left::default();
    for map in [Map::Frontends, Map::Everywhere] {
        for element in found.data.get(&map).into_iter().flatten() {
            let Some(way) = value(element).and_then(|value| number(value, 0)).map(Way) else { continue };
            left.lists.insert((map, element.key.clone()), way.list());
            if map == Map::Everywhere {
                continue;
            }
            // A list without endpoints is a list, too.
            left.endpoints.entry(way.list()).or_default();
        }
    }
    for element in found.data.get(&Map::Endpoints).into_iter().flatten() {
        let (Some(list), Some(index)) = (number(&element.key, 0), number(&element.key, 1)) else { continue };
        let Some(backend) = value(element).and_then(backend) else { continue };
        left.endpoints.entry(list).or_default().insert(index, backend);
    }
    left.endpoints.remove(&0);
    left
}

fn backend(value: &Value) -> Option<Backend> {
    let (address, port) = value.0.split_at_checked(value.0.len().checked_sub(4)?)?;
    let port = u16::from_be_bytes(port.get(..2)?.try_into().ok()?);
    let v4 = <[u8; 4]>::try_from(address).ok().map(std::net::IpAddr::from);
    let address = v4.or_else(|| <[u8; 16]>::try_from(address).ok().map(std::net::IpAddr::from))?;
    Some(Backend { address, port })
}
