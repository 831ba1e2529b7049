//! Verdicts of the garbage collector over small graphs written as text.

use std::collections::HashMap;
use std::sync::Arc;

use api_client::{OwnerReference, Revision};
use expect_test::{Expect, expect};

use super::graph::{Graph, Node, Owner, ResourceId, Uid};
use super::plan::{self, Standing, Verdict};

/// `[namespace/]name [deleting] [foreground] [orphan] [< owner[!] …]`; `!` blocks the owner's deletion. An object's uid
/// is its name.
fn node(line: &str) -> Node {
    let (head, owners) = line.split_once('<').unwrap_or((line, ""));
    let mut words = head.split_whitespace();
    let name = words.next().expect("a name");
    let (namespace, name) = name.split_once('/').unwrap_or(("a", name));
    let words: Vec<&str> = words.collect();
    let owner = |text: &str| {
        let name = text.trim_end_matches('!').to_owned();
        let block_owner_deletion = text.ends_with('!');
        let reference =
            OwnerReference { uid: name.clone(), name: name.clone(), block_owner_deletion, ..Default::default() };
        Owner { uid: Uid::parse(&name), reference: Arc::new(reference) }
    };
    Node {
        resource: ResourceId(0),
        namespace: namespace.into(),
        name: name.into(),
        uid: name.into(),
        revision: Revision(1),
        owners: owners.split_whitespace().map(owner).collect(),
        deleting: words.contains(&"deleting"),
        foreground: words.contains(&"foreground"),
        orphan: words.contains(&"orphan"),
    }
}

struct World {
    graph: Graph,
    names: HashMap<Uid, String>,
}

impl World {
    fn new(lines: &str) -> Self {
        let mut world = Self { graph: Graph::default(), names: HashMap::new() };
        lines.lines().filter(|l| !l.trim().is_empty()).for_each(|l| drop(world.observe(l)));
        world
    }

    fn observe(&mut self, line: &str) -> String {
        let node = node(line);
        self.names.insert(Uid::parse(&node.uid), node.uid.to_string());
        let visit = self.graph.observe(node);
        self.show(&visit)
    }

    fn remove(&mut self, name: &str) -> String {
        let visit = self.graph.remove(Uid::parse(name));
        self.show(&visit)
    }

    fn show(&self, uids: &[Uid]) -> String {
        let mut names: Vec<&str> = uids.iter().map(|u| self.names[u].as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(" ")
    }

    fn judge(&self, name: &str) -> String {
        self.judge_asked(name, &[])
    }

    fn judge_asked(&self, name: &str, asked: &[(&str, Standing)]) -> String {
        let asked: HashMap<Uid, Standing> = asked.iter().map(|(n, s)| (Uid::parse(n), *s)).collect();
        match plan::judge(&self.graph, Uid::parse(name), |o| asked.get(&o.uid).copied()) {
            Verdict::Ask(owners) => {
                format!("ask {}", owners.iter().map(|o| o.reference.name.as_str()).collect::<Vec<_>>().join(" "))
            }
            Verdict::DropOwners(owners) => {
                let mut names: Vec<String> = asked_names(&owners);
                names.sort();
                format!("drop {}", names.len())
            }
            Verdict::Orphan(dependents) => format!("orphan {}", self.show(&dependents)),
            Verdict::DeleteDependents(dependents) => format!("delete dependents {}", self.show(&dependents)),
            other => format!("{other:?}"),
        }
    }
}

fn asked_names(uids: &[Uid]) -> Vec<String> {
    uids.iter().map(|u| u.key()).collect()
}

fn check(actual: &str, expected: Expect) {
    expected.assert_eq(actual);
}

#[test]
fn dependents_of_a_deleted_owner_are_deleted_in_the_background() {
    let mut world = World::new("deploy\nrs < deploy!\npod1 < rs!\npod2 < rs!");
    check(&world.judge("rs"), expect!["Nothing"]);
    check(&world.remove("deploy"), expect!["rs"]);
    check(&world.judge("rs"), expect!["Delete { policy: Background, unblock: false }"]);
    check(&world.remove("rs"), expect!["pod1 pod2"]);
    check(&world.judge("pod1"), expect!["Delete { policy: Background, unblock: false }"]);
}

#[test]
fn an_owner_never_seen_is_asked_for() {
    let mut world = World::new("");
    check(&world.observe("pod < ghost"), expect!["pod"]);
    check(&world.judge("pod"), expect!["ask ghost"]);
    check(&world.judge_asked("pod", &[("ghost", Standing::Solid)]), expect!["Nothing"]);
    check(
        &world.judge_asked("pod", &[("ghost", Standing::Dangling)]),
        expect!["Delete { policy: Background, unblock: false }"],
    );
}

#[test]
fn one_owner_left_is_enough() {
    let mut world = World::new("a\nb\nboth < a b");
    world.remove("a");
    check(&world.judge("both"), expect!["drop 1"]);
    world.observe("both < b");
    check(&world.judge("both"), expect!["Nothing"]);
}

#[test]
fn foreground_deletion_goes_from_the_leaves_to_the_root() {
    let mut world = World::new("deploy\nrs < deploy!\npod1 < rs!\npod2 < rs!\nloose < deploy");
    check(&world.observe("deploy deleting foreground"), expect!["deploy loose rs"]);
    check(&world.judge("deploy"), expect!["delete dependents rs"]);
    check(&world.judge("loose"), expect!["Delete { policy: Background, unblock: false }"]);
    check(&world.judge("rs"), expect!["Delete { policy: Foreground, unblock: false }"]);
    check(&world.observe("rs deleting foreground < deploy!"), expect!["pod1 pod2 rs"]);
    check(&world.judge("rs"), expect!["delete dependents pod1 pod2"]);
    check(&world.judge("pod1"), expect!["Delete { policy: Background, unblock: false }"]);
    world.observe("pod1 deleting < rs!");
    check(&world.judge("rs"), expect!["delete dependents pod2"]);
    check(&world.remove("pod1"), expect!["rs"]);
    check(&world.remove("pod2"), expect!["rs"]);
    check(&world.judge("rs"), expect!["FinishForeground"]);
    check(&world.remove("rs"), expect!["deploy"]);
    check(&world.judge("deploy"), expect!["FinishForeground"]);
}

#[test]
fn a_cycle_under_foreground_deletion_is_broken() {
    let mut world = World::new("a < b!\nb < a!");
    world.observe("a < b!");
    check(&world.observe("a deleting foreground < b!"), expect!["a b"]);
    check(&world.judge("b"), expect!["Delete { policy: Foreground, unblock: true }"]);
}

#[test]
fn orphaning_leaves_the_dependents() {
    let mut world = World::new("deploy\nrs < deploy!");
    check(&world.observe("deploy deleting orphan"), expect!["deploy"]);
    check(&world.judge("deploy"), expect!["orphan rs"]);
    check(&world.judge("rs"), expect!["Nothing"]);
    world.observe("rs");
    check(&world.judge("deploy"), expect!["orphan "]);
}

#[test]
fn an_owner_in_another_namespace_is_asked_for() {
    let mut world = World::new("b/owner");
    check(&world.observe("a/pod < owner"), expect!["pod"]);
    check(&world.judge("pod"), expect!["ask owner"]);
    // Cluster-scoped owners own everywhere.
    world.observe("/root");
    check(&world.observe("a/leaf < root"), expect![""]);
    check(&world.judge("leaf"), expect!["Nothing"]);
}

#[test]
fn a_dependent_that_lets_go_frees_its_owner() {
    let mut world = World::new("rs deleting foreground\npod < rs!");
    check(&world.judge("rs"), expect!["delete dependents pod"]);
    check(&world.observe("pod"), expect!["rs"]);
    check(&world.judge("rs"), expect!["FinishForeground"]);
}

#[test]
fn after_a_new_list_what_is_missing_counts_as_deleted() {
    let mut world = World::new("rs\npod < rs");
    let left = [Uid::parse("pod")].into();
    let visit = world.graph.retain(ResourceId(0), &left);
    check(&world.show(&visit), expect!["pod"]);
    assert_eq!(world.graph.len(), 1);
}
