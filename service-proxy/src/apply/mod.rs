//! The tables in the kernel: brought to a whole state at the start and for repairs, and changed element by element
//! after that. Blocking, like the kernel's answers.

mod found;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::cidr::Cidr;
use api::meta::ObjectKey;
use nftables::{Batch, Element, Error, Monitor, Socket, Value};
use tracing::warn;

use crate::endpoints::Backend;
use crate::metrics::{Metrics, Sync};
use crate::plan::{Frontend, Plan};
use crate::state::{Changes, Item, State, frontend_value};
use crate::table::{AFFINITY, Fixed, Frame, GUARD_CHAIN, RANGE_CHAIN, Shape};
use found::Found;

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
    /// Ranges of cluster addresses, of both families. The next change writes what is new in them.
    pub ranges: Vec<Cidr>,
    pub metrics: Metrics,
    /// Somebody else may have changed a table while nobody listened.
    pub is_doubtful: bool,
}

#[derive(Default)]
struct FamilyTable {
    /// There is a table of this family.
    is_active: bool,
    state: State,
    /// Those the table has rules for.
    ranges: Vec<Cidr>,
    /// Chains without use, whose elements are gone: to be deleted next time.
    retired: Vec<Shape>,
    /// Clients to be looked for once more: a connection under way may have kept one after it was forgotten.
    forgotten: Vec<(Frontend, Vec<Backend>)>,
}

impl Tables {
    pub fn open(fixed: Fixed) -> Result<Self, Error> {
        let socket = Socket::open()?;
        let (families, ranges, metrics) = Default::default();
        Ok(Self { fixed, socket, monitor: None, families, ranges, metrics, is_doubtful: false })
    }

    /// Makes somebody listen to others' changes. Must be called inside a tokio runtime.
    pub fn listen(&mut self) -> Result<Arc<Monitor>, Error> {
        let monitor = Arc::new(Monitor::open(&[self.socket.port()?])?);
        self.monitor = Some(monitor.clone());
        Ok(monitor)
    }

    /// Of which families there is a table, 4 and 6.
    pub fn active(&self) -> [bool; 2] {
        [self.families[0].is_active, self.families[1].is_active]
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
        let start = Instant::now();
        let found = Found::read(&mut self.socket, &frame)?;
        let mut state = State::new(found.as_ref().map(Found::left).unwrap_or_default());
        let mut changes = state.update(plans);
        state.settle();
        let mut batch = Batch::new();
        if let Some(found) = &found {
            found.shapes.iter().for_each(|shape| state.has_shape(*shape));
            changes = found.repair(&state);
        } else {
            batch.add_table(frame.table(), None);
            batch.delete_table(frame.table());
            batch.add_table(frame.table(), Some(&frame.comment()));
            frame.write(&mut batch);
            changes.shapes = state.shapes().into_iter().filter(|shape| !shape.is_fixed()).collect();
        }
        let elements = changes.len();
        write(&mut batch, &frame, &changes, &state);
        let ranges = self.ranges.clone();
        write_ranges(&mut batch, &frame, found.as_ref().map_or(&[], |found| &found.ranges), &ranges);
        // Both are as large as the table.
        drop((changes, found));
        self.commit(&mut batch, elements, &frame)?;
        drop(batch);
        self.metrics.synced(ipv6, Sync::Full, start.elapsed());
        self.count(ipv6, &state);
        let sticky = state.sticky();
        self.families[usize::from(ipv6)] = FamilyTable { is_active: true, state, ranges, ..FamilyTable::default() };
        self.forget(&frame, &sticky, true)
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
        let start = Instant::now();
        let family = &mut self.families[usize::from(ipv6)];
        let changes = family.state.update(plans);
        let mut batch = Batch::new();
        write(&mut batch, &frame, &changes, &family.state);
        write_ranges(&mut batch, &frame, &family.ranges, &self.ranges);
        family.ranges.clone_from(&self.ranges);
        family.retired.retain(|shape| !changes.shapes.contains(shape));
        self.commit(&mut batch, changes.len(), &frame)?;
        self.metrics.synced(ipv6, Sync::Partial, start.elapsed());
        self.count(ipv6, &self.families[usize::from(ipv6)].state);
        if changes.forgotten.is_empty() {
            return Ok(());
        }
        self.forget(&frame, &changes.forgotten, false)?;
        self.families[usize::from(ipv6)].forgotten.extend(changes.forgotten);
        Ok(())
    }

    fn commit(&mut self, batch: &mut Batch, elements: usize, frame: &Frame<'_>) -> Result<(), Error> {
        let result = self.try_commit(batch, elements);
        if result.is_err() {
            self.metrics.failed(frame.ipv6);
        }
        result
    }

    fn try_commit(&mut self, batch: &mut Batch, elements: usize) -> Result<(), Error> {
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

    fn count(&self, ipv6: bool, state: &State) {
        let here = state.unserved_here();
        self.metrics.no_local_endpoints(ipv6, here.internal, here.external);
    }

    /// Deletes clients of these frontends that are at another endpoint than one of theirs; `others`: and those of all
    /// other frontends.
    fn forget(&mut self, frame: &Frame<'_>, frontends: &[(Frontend, Vec<Backend>)], others: bool) -> Result<(), Error> {
        let table = frame.table();
        let frontends: HashMap<Value, &Vec<Backend>> =
            frontends.iter().map(|(frontend, has)| (frontend_value(frontend), has)).collect();
        let address = if frame.ipv6 { 16 } else { 4 };
        for _ in 0..FORGET_TRIES {
            let mut clients = self.socket.elements(table, AFFINITY)?;
            clients.retain(|client| {
                let Some(own) = client.key.0.get(..address + FRONTEND_TAIL_BYTES) else { return false };
                // A node port is kept by the node's address it was asked at.
                let mut of_node = own.to_vec();
                of_node[..address].fill(0);
                let has = [own.to_vec(), of_node].into_iter().find_map(|key| frontends.get(&Value(key)));
                has.map_or(others, |has| {
                    found::value(client).and_then(found::backend).is_none_or(|at| !has.contains(&at))
                })
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

    /// Takes away clients of endpoints that are gone, and chains that nothing leads to: their elements now, the chains
    /// themselves the next time, as the kernel may take a while to see that nothing leads there. Whether there is more
    /// to do.
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
    for (map, items) in &changes.deleted {
        batch.delete_elements(table, map.name(), items.iter().map(|item| Element::new(item.key())));
    }
    for (map, elements) in &changes.surplus {
        batch.delete_elements(table, map.name(), elements);
    }
    if changes.guards {
        batch.flush_chain(table, GUARD_CHAIN);
        frame.guard_rules(state.prefixes()).iter().for_each(|rule| batch.add_rule(table, rule));
    }
    for (map, items) in &changes.added {
        batch.add_elements(table, map.name(), items.iter().map(Item::element));
    }
}

/// The order of ranges does not count.
fn write_ranges(batch: &mut Batch, frame: &Frame<'_>, has: &[Cidr], wanted: &[Cidr]) {
    let rules = |ranges: &[Cidr]| {
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        ranges.dedup();
        frame.range_rules(&ranges)
    };
    let wanted = rules(wanted);
    if rules(has) != wanted {
        batch.flush_chain(frame.table(), RANGE_CHAIN);
        wanted.iter().for_each(|rule| batch.add_rule(frame.table(), rule));
    }
}
