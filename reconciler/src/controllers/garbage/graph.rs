//! Who owns whom, for every object of the cluster. Pure: it is fed with what was observed and says which objects to
//! look at. Owners that were never observed have no node; their dependents are known all the same, because the links
//! are kept by owner uid.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use api_client::{OwnerReference, Revision};

/// An object's uid in 16 bytes; uids that are no UUIDs are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    pub fn parse(text: &str) -> Self {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if hex.len() == 32
            && let Ok(number) = u128::from_str_radix(&hex, 16)
        {
            return Self(number);
        }
        // FNV-1a, 128 bits.
        Self(text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        }))
    }

    /// As a queue key; [`Uid::parse`] reads it back.
    pub fn key(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// A resource of the monitor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceId(pub u16);

/// An owner reference as a dependent states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub uid: Uid,
    pub reference: Arc<OwnerReference>,
}

/// What the monitors saw of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub resource: ResourceId,
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub revision: Revision,
    pub owners: Box<[Owner]>,
    /// Marked for deletion.
    pub deleting: bool,
    /// Has the finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// Has the finalizer `orphan`.
    pub orphan: bool,
}

impl Node {
    /// Waits until the dependents that block it are gone.
    pub fn is_deleting_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// Deleted uids remembered, so that dependents need not ask the server (`absentOwnerCache`); the oldest are forgotten.
const ABSENT_MAX: usize = 4096;

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    absent: HashMap<Uid, ()>,
    absent_order: VecDeque<Uid>,
}

impl Graph {
    pub fn get(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn dependents(&self, uid: Uid) -> impl Iterator<Item = (Uid, &Node)> {
        let dependents = self.dependents.get(&uid).into_iter().flatten();
        dependents.filter_map(|dependent| Some((*dependent, self.nodes.get(dependent)?)))
    }

    /// Dependents that hold up the foreground deletion of `uid`.
    pub fn blocking(&self, uid: Uid) -> impl Iterator<Item = (Uid, &Node)> {
        let blocks = move |node: &Node| node.owners.iter().any(|o| o.uid == uid && o.reference.block_owner_deletion);
        self.dependents(uid).filter(move |(_, node)| blocks(node))
    }

    /// Certainly deleted.
    pub fn is_absent(&self, uid: Uid) -> bool {
        self.absent.contains_key(&uid)
    }

    /// Notes an addition or change; gives the objects to look at.
    pub fn observe(&mut self, node: Node) -> Vec<Uid> {
        let uid = Uid::parse(&node.uid);
        let mut visit = Vec::new();
        let old = self.nodes.get(&uid);
        let old_owners = old.map(|n| n.owners.clone()).unwrap_or_default();
        let was_deleting_dependents = old.is_some_and(Node::is_deleting_dependents);
        if old_owners != node.owners {
            self.relink(uid, &old_owners, &node, &mut visit);
        }
        if node.deleting && (node.foreground || node.orphan) {
            visit.push(uid);
        }
        if node.is_deleting_dependents() && !was_deleting_dependents {
            visit.extend(self.dependents.get(&uid).into_iter().flatten());
        }
        self.nodes.insert(uid, node);
        visit
    }

    /// Follows a change of owners.
    fn relink(&mut self, uid: Uid, old: &[Owner], node: &Node, visit: &mut Vec<Uid>) {
        for gone in old.iter().filter(|o| !node.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(uid, gone.uid);
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid).or_default().insert(uid);
            // An owner we don't know, or know otherwise: look whether it is there.
            if self.nodes.get(&owner.uid).is_none_or(|known| !self.may_own(known, node)) {
                visit.push(uid);
            }
        }
        // Owners that were blocked may go on; owners in deletion must hear of new dependents.
        let deleting = |uid: &Uid| self.nodes.get(uid).is_some_and(Node::is_deleting_dependents);
        let mut affected: Vec<Uid> = old.iter().chain(&node.owners).map(|o| o.uid).filter(deleting).collect();
        if affected.iter().any(|owner| node.owners.iter().any(|o| o.uid == *owner)) {
            visit.push(uid);
        }
        visit.append(&mut affected);
    }

    /// A namespaced owner owns in its namespace only, and is not being deleted dependents first.
    fn may_own(&self, owner: &Node, dependent: &Node) -> bool {
        owner.namespace.is_empty() || owner.namespace == dependent.namespace
    }

    fn unlink(&mut self, uid: Uid, owner: Uid) {
        if let Some(dependents) = self.dependents.get_mut(&owner) {
            dependents.remove(&uid);
            if dependents.is_empty() {
                self.dependents.remove(&owner);
            }
        }
    }

    /// Notes that an object is gone; gives its dependents, and its owners that wait for that.
    pub fn remove(&mut self, uid: Uid) -> Vec<Uid> {
        let mut visit: Vec<Uid> = self.dependents.get(&uid).into_iter().flatten().copied().collect();
        if !visit.is_empty() {
            self.note_absent(uid);
        }
        if let Some(node) = self.nodes.remove(&uid) {
            for owner in &node.owners {
                self.unlink(uid, owner.uid);
                if self.nodes.get(&owner.uid).is_some_and(Node::is_deleting_dependents) {
                    visit.push(owner.uid);
                }
            }
        }
        visit
    }

    /// Notes an owner that the server doesn't have.
    pub fn note_absent(&mut self, uid: Uid) {
        if self.absent.insert(uid, ()).is_none() {
            self.absent_order.push_back(uid);
        }
        while self.absent_order.len() > ABSENT_MAX
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// The objects of a resource are exactly these: removes the others. Gives the objects to look at.
    pub fn retain(&mut self, resource: ResourceId, uids: &std::collections::HashSet<Uid>) -> Vec<Uid> {
        let stale = |(uid, node): (&Uid, &Node)| (node.resource == resource && !uids.contains(uid)).then_some(*uid);
        let stale: Vec<Uid> = self.nodes.iter().filter_map(stale).collect();
        stale.into_iter().flat_map(|uid| self.remove(uid)).collect()
    }
}
