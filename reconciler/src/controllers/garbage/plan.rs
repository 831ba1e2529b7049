//! What to do with one object, from what is known of its owners. Pure; the decisions are those of
//! `GarbageCollector.attemptToDeleteItem` and `processDeletingDependentsItem`.

use api_client::Propagation;

use super::graph::{Graph, Node, Owner, Uid};

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    Solid,
    /// It is being deleted after its dependents.
    Waiting,
    /// It does not exist.
    Dangling,
    /// The server must be asked.
    Unknown,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Nothing,
    /// Ask the server for these owners, then judge again.
    Ask(Vec<Owner>),
    /// Take these owners out of its references.
    DropOwners(Vec<Uid>),
    /// Delete it. With `unblock`, first let its own references no longer block: it is part of a cycle.
    Delete {
        policy: Propagation,
        unblock: bool,
    },
    /// Take itself out of the references of these dependents, then remove its finalizer `orphan`.
    Orphan(Vec<Uid>),
    /// All that blocked it is gone: remove its finalizer `foregroundDeletion`.
    FinishForeground,
    /// These dependents must go first.
    DeleteDependents(Vec<Uid>),
}

/// What the graph alone knows of an owner of `dependent`.
pub fn standing(graph: &Graph, dependent: &Node, owner: &Owner) -> Standing {
    if graph.is_absent(owner.uid) {
        return Standing::Dangling;
    }
    match graph.get(owner.uid) {
        None => Standing::Unknown,
        // Stated with other coordinates than observed: only the server knows.
        Some(known) if !known.namespace.is_empty() && known.namespace != dependent.namespace => Standing::Unknown,
        Some(known) if *known.name != *owner.reference.name => Standing::Unknown,
        Some(known) if known.is_deleting_dependents() => Standing::Waiting,
        Some(_) => Standing::Solid,
    }
}

pub fn judge(graph: &Graph, uid: Uid, asked: impl Fn(&Owner) -> Option<Standing>) -> Verdict {
    let Some(node) = graph.get(uid) else { return Verdict::Nothing };
    if node.deleting {
        return judge_deleting(graph, uid, node);
    }
    if node.owners.is_empty() {
        return Verdict::Nothing;
    }
    let stand = |owner: &Owner| asked(owner).unwrap_or_else(|| standing(graph, node, owner));
    let of = |wanted: Standing| node.owners.iter().filter(|o| stand(o) == wanted).cloned().collect::<Vec<_>>();
    let unknown = of(Standing::Unknown);
    if !unknown.is_empty() {
        return Verdict::Ask(unknown);
    }
    let (dangling, waiting) = (of(Standing::Dangling), of(Standing::Waiting));
    if dangling.len() + waiting.len() < node.owners.len() {
        let drop: Vec<Uid> = dangling.iter().chain(&waiting).map(|o| o.uid).collect();
        return if drop.is_empty() { Verdict::Nothing } else { Verdict::DropOwners(drop) };
    }
    if !waiting.is_empty() && graph.dependents(uid).next().is_some() {
        let unblock = graph.dependents(uid).any(|(_, dependent)| dependent.is_deleting_dependents());
        return Verdict::Delete { policy: Propagation::Foreground, unblock };
    }
    let policy = match (node.orphan, node.foreground) {
        (true, _) => Propagation::Orphan,
        (false, true) => Propagation::Foreground,
        (false, false) => Propagation::Background,
    };
    Verdict::Delete { policy, unblock: false }
}

fn judge_deleting(graph: &Graph, uid: Uid, node: &Node) -> Verdict {
    if node.orphan {
        return Verdict::Orphan(graph.dependents(uid).map(|(dependent, _)| dependent).collect());
    }
    if !node.foreground {
        // Somebody else's finalizer, or a grace period: its end will be observed.
        return Verdict::Nothing;
    }
    let blocking: Vec<(Uid, bool)> = graph.blocking(uid).map(|(dependent, n)| (dependent, n.deleting)).collect();
    if blocking.is_empty() {
        return Verdict::FinishForeground;
    }
    let left = blocking.into_iter().filter(|(_, deleting)| !deleting).map(|(dependent, _)| dependent);
    Verdict::DeleteDependents(left.collect())
}
