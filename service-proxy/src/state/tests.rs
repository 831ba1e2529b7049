//! Tests of [`super`]: which elements a change touches.

use super::*;

fn backend(last: u8) -> Backend {
    Backend { address: [10, 244, 0, last].into(), port: 8080 }
}

fn plan_of(ip: u8, external: &[u8], backends: &[u8]) -> Plan {
    let entry = |address: [u8; 4], kind| Entry {
        frontend: Frontend { address: address.into(), protocol: 6, port: 80 },
        kind,
        list: List::Cluster,
        is_served: !backends.is_empty(),
        unserved: backends.is_empty().then_some(Unserved::Refused),
        sources: Vec::new(),
    };
    let mut entries = vec![entry([10, 96, 0, ip], Kind::Internal)];
    entries.extend(external.iter().map(|last| entry([203, 0, 113, *last], Kind::External)));
    let endpoints = crate::endpoints::Usable {
        cluster: backends.iter().map(|last| backend(*last)).collect(),
        any: !backends.is_empty(),
        ..Default::default()
    };
    let port = Port { protocol: 6, port: 80, affinity_seconds: 0, entries, endpoints };
    Plan { cluster_ip: [10, 96, 0, ip].into(), ports: vec![port] }
}

fn set(state: &mut State, name: &str, plan: Option<Plan>) -> Changes {
    state.update(vec![(ObjectKey::new("default", name), plan)])
}

#[test]
fn an_endpoint_that_goes_is_replaced_by_the_last_one() {
    let list = |numbers: &[u8]| numbers.iter().map(|last| backend(*last)).collect::<Box<[_]>>();
    assert_eq!(placed(&list(&[1, 2, 3]), &list(&[1, 3])), list(&[1, 3]));
    assert_eq!(placed(&list(&[1, 2, 3, 4]), &list(&[2, 3, 4])), list(&[4, 2, 3]));
    assert_eq!(placed(&list(&[1, 2, 3]), &list(&[1, 3, 9])), list(&[1, 9, 3]));
    assert_eq!(placed(&list(&[1, 2]), &[]), list(&[]));
    assert_eq!(placed(&[], &list(&[1, 2])), list(&[1, 2]));
}

#[test]
fn a_change_costs_what_changed() {
    let mut state = State::default();
    for n in 0..200 {
        set(&mut state, &format!("s{n}"), Some(plan_of(n, &[], &[1, 2, 3, 4, 5])));
    }
    assert!(set(&mut state, "s7", Some(plan_of(7, &[], &[1, 2, 3, 4, 5]))).is_empty());
    let changes = set(&mut state, "s7", Some(plan_of(7, &[], &[1, 2, 3, 4, 9])));
    assert_eq!(changes.len(), 2, "one endpoint out, one in: {changes:?}");
    let changes = set(&mut state, "s7", Some(plan_of(7, &[], &[1, 2, 3, 4])));
    assert_eq!(changes.len(), 3, "one endpoint out, and the frontend has another count: {changes:?}");
}

#[test]
fn the_first_service_has_an_address_and_the_next_one_inherits_it() {
    let mut state = State::default();
    set(&mut state, "first", Some(plan_of(1, &[5], &[1])));
    let changes = set(&mut state, "second", Some(plan_of(2, &[5], &[2])));
    let frontend = Frontend { address: [203, 0, 113, 5].into(), protocol: 6, port: 80 };
    let is_shared = |item: &Item| item.key() == frontend_value(&frontend);
    assert!(!changes.added[&Map::Frontends].iter().any(is_shared), "{changes:?}");
    let changes = set(&mut state, "first", None);
    assert!(changes.added[&Map::Frontends].iter().any(is_shared), "{changes:?}");
    assert!(set(&mut state, "second", None).added.is_empty());
    assert_eq!(state.items().count(), 0, "{:?}", state.items().collect::<Vec<_>>());
}

#[test]
fn chains_without_use_are_idle() {
    let mut state = State::new(Left::default());
    let many: Vec<u8> = (1..=20).collect();
    let changes = set(&mut state, "web", Some(plan_of(1, &[], &many)));
    assert_eq!(changes.shapes, [Shape::Pick(20)]);
    assert_eq!(state.take_idle_shapes(), []);
    set(&mut state, "web", Some(plan_of(1, &[], &many[..2])));
    assert_eq!(state.take_idle_shapes(), [Shape::Pick(20)]);
    let changes = set(&mut state, "web", Some(plan_of(1, &[], &many)));
    assert_eq!(changes.shapes, [Shape::Pick(20)], "it is made again");
}

#[test]
fn ports_without_an_endpoint_here_are_counted() {
    let mut state = State::default();
    let mut plan = plan_of(1, &[5, 6], &[1]);
    plan.ports[0].entries.iter_mut().for_each(|entry| entry.unserved = Some(Unserved::Dropped));
    set(&mut state, "web", Some(plan));
    assert_eq!(state.unserved_here(), UnservedHere { internal: 1, external: 1 }, "a port counts once");
    set(&mut state, "web", Some(plan_of(1, &[5, 6], &[1])));
    assert_eq!(state.unserved_here(), UnservedHere::default());
}
