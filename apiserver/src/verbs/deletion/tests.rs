//! The deletion plan, case by case.

use serde_json::json;

use super::*;

const RULES: Rules = Rules {
    returns_object: false,
    orphans_by_default: false,
    garbage_collected: true,
    spec_finalizers: false,
    cleans_instances: false,
};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn options(grace: Option<i64>) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() }
}

fn marked(plan: Plan) -> (Value, bool) {
    match plan {
        Plan::Mark { object, then_remove } => (object["metadata"].clone(), then_remove),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_object_without_finalizers_goes_at_once() {
    let object = json!({"metadata": {"name": "a"}});
    assert_eq!(plan(&object, &options(None), &RULES, None, now()), Plan::Remove);
}

#[test]
fn finalizers_keep_an_object_and_mark_it() {
    let object = json!({"metadata": {"finalizers": ["a/b"], "generation": 1}});
    let (metadata, then_remove) = marked(plan(&object, &options(None), &RULES, None, now()));
    let want = json!({"finalizers": ["a/b"], "generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
    assert_eq!((metadata, then_remove), (want, false));
}

#[test]
fn propagation_becomes_a_finalizer() {
    let check = |options: DeleteOptions, rules: &Rules, want: Option<&str>| {
        let plan = plan(&json!({"metadata": {}}), &options, rules, None, now());
        match want {
            None => assert_eq!(plan, Plan::Remove),
            Some(finalizer) => assert_eq!(marked(plan).0["finalizers"], json!([finalizer])),
        }
    };
    let policy = |p| DeleteOptions { propagation: Some(p), ..DeleteOptions::default() };
    check(policy(Propagation::Orphan), &RULES, Some("orphan"));
    check(policy(Propagation::Foreground), &RULES, Some("foregroundDeletion"));
    check(policy(Propagation::Background), &RULES, None);
    let orphaning = Rules { orphans_by_default: true, ..RULES };
    check(options(None), &orphaning, Some("orphan"));
    check(policy(Propagation::Background), &orphaning, None);
    check(policy(Propagation::Orphan), &Rules { garbage_collected: false, ..RULES }, None);
}

#[test]
fn a_graceful_deletion_waits_and_may_only_be_hastened() {
    let object = json!({"metadata": {"generation": 1}});
    let (first, then_remove) = marked(plan(&object, &options(None), &RULES, Some(30), now()));
    assert_eq!(
        (&first["deletionGracePeriodSeconds"], &first["generation"], then_remove),
        (&json!(30), &json!(2), false)
    );
    let deleting = json!({"metadata": first});
    assert_eq!(plan(&deleting, &options(None), &RULES, Some(30), now()), Plan::Pending);
    assert_eq!(plan(&deleting, &options(Some(60)), &RULES, Some(60), now()), Plan::Pending);
    let (second, _) = marked(plan(&deleting, &options(Some(5)), &RULES, Some(5), now()));
    assert_eq!(second["deletionTimestamp"], "2026-01-01T00:00:05Z");
    let (last, then_remove) = marked(plan(&deleting, &options(Some(0)), &RULES, Some(0), now()));
    assert_eq!((&last["deletionGracePeriodSeconds"], then_remove), (&json!(0), true));
}

#[test]
fn somebody_else_may_remove_what_this_deletion_has_marked() {
    let marked = json!({"metadata": {"uid": "1"}});
    assert!(is_gone(&marked, None));
    assert!(is_gone(&marked, Some(&json!({"metadata": {"uid": "2"}}))), "another of the same name");
    assert!(!is_gone(&marked, Some(&json!({"metadata": {"uid": "1", "deletionGracePeriodSeconds": 0}}))));
}
