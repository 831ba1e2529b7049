//! Field sets: their wire form, their algebra, and adaptation to a changed schema.

use serde_json::{Value, json};

use crate::apply::element::Element;
use crate::apply::fields_v1::{Wire, parse, write};
use crate::apply::reconcile::{is_stale, reconcile};
use crate::apply::set::Set;
use crate::apply::typed::Type;
use crate::schema::Schemas;

fn set(fields: Value) -> Set {
    parse(&fields).expect("a valid set")
}

fn paths(set: &Set) -> Vec<String> {
    set.paths().iter().map(ToString::to_string).collect()
}

fn without_descendants(set: &Set, gone: &Set) -> Set {
    let mut left = set.clone();
    left.subtract_with_descendants(gone);
    left
}

#[test]
fn every_kind_of_step_is_read_and_written() {
    let fields = json!({
        "f:a": {".": {}, "f:b": {}, "k:{\"name\":\"x\",\"port\":80}": {"f:c": {}}},
        "f:list": {"v:\"s\"": {}, "v:1": {}, "v:true": {}, "i:3": {}},
    });
    assert_eq!(
        paths(&set(fields.clone())),
        [".a", ".a.b", r#".a[name="x",port=80].c"#, ".list[=1]", ".list[=\"s\"]", ".list[=true]", ".list[3]"]
    );
    assert_eq!(write(&set(fields.clone())), fields);
}

#[test]
fn reading_is_lenient_where_upstream_is() {
    // Keys in any order and form, unknown steps, a lone dot, null for nothing below.
    assert_eq!(write(&set(json!({"k:{\"b\": 1, \"a\": 2}": {}}))), json!({"k:{\"a\":2,\"b\":1}": {}}));
    assert_eq!(
        write(&set(json!({"f:a": {".": {}}, "x:new": {"f:b": {}}, "f:c": null}))),
        json!({"f:a": {}, "f:c": {}})
    );
    assert_eq!(set(Value::Null), Set::default());
    assert_eq!(set(json!({".": {}})), Set::default());
    for bad in [json!({"f": {}}), json!({"name": {}}), json!({"v:{": {}}), json!({"k:1": {}}), json!({"i:x": {}})] {
        assert!(parse(&bad).is_err(), "{bad}");
    }
    assert!(parse(&json!({"f:a": 1})).is_err());
    assert!(parse(&json!([])).is_err());
}

#[test]
fn nesting_has_a_limit() {
    let mut fields = json!({});
    for _ in 0..500 {
        fields = json!({"f:a": fields});
    }
    assert!(parse(&fields).expect_err("too deep").contains("128 levels"));
}

#[test]
fn algebra() {
    let left = set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}));
    let right = set(json!({"f:a": {"f:b": {}}, "f:e": {}}));
    assert_eq!(paths(&left.union(&right)), [".a", ".d", ".e", ".a.b", ".a.c"]);
    assert_eq!(paths(&left.intersection(&right)), [".a.b"]);
    assert_eq!(paths(&left.difference(&right)), [".a", ".d", ".a.c"]);
    let top = set(json!({"f:a": {}}));
    assert_eq!(paths(&left.difference(&top)), [".d", ".a.b", ".a.c"]);
    assert_eq!(paths(&without_descendants(&left, &top)), [".d"]);
    assert!(left.contains(&[Element::field("a"), Element::field("c")]));
    assert!(!left.contains(&[Element::field("a"), Element::field("x")]));
    assert!(!left.contains(&[]));
}

#[test]
fn patterns_match_by_step() {
    let fields = set(json!({
        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:resources": {"f:limits": {}}}}},
        "f:status": {},
    }));
    let pattern = vec!["spec", "containers", "*", "resources"];
    assert_eq!(
        paths(&fields.matching(&[pattern])),
        [".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].resources.limits"]
    );
}

#[test]
fn the_wire_form_answers_without_parsing() {
    let fields = json!({"f:a": {"f:b": {}, "k:{\"name\":\"x\"}": {".": {}, "f:c": {}}}});
    let check = |asked: Value, any: bool, all: bool| {
        let asked = set(asked);
        assert_eq!((Wire(&fields).has_any(&asked), Wire(&fields).has_all(&asked)), (any, all), "{:?}", asked.paths());
    };
    check(json!({"f:a": {"f:b": {}}}), true, true);
    check(json!({"f:a": {}}), false, false);
    check(json!({"f:a": {"f:b": {}, "f:z": {}}}), true, false);
    check(json!({"f:a": {"k:{\"name\":\"x\"}": {}}}), true, true);
    check(json!({"f:a": {"k:{\"name\":\"x\"}": {"f:c": {}}}}), true, true);
    check(json!({"f:a": {"k:{\"name\":\"y\"}": {}}}), false, false);
}

#[test]
fn what_became_atomic_is_owned_as_a_whole() {
    let ty = Type::of(Schemas::builtin().type_named("io.k8s.api.core.v1.Service").expect("built in"));
    // The selector is atomic now; the ports still are not.
    let old = json!({"f:spec": {"f:selector": {".": {}, "f:app": {}}, "f:ports": {"k:{\"port\":80}": {"f:name": {}}}}});
    assert!(is_stale(ty, &old));
    let new = json!({"f:spec": {"f:selector": {}, "f:ports": {"k:{\"port\":80}": {"f:name": {}}}}});
    assert_eq!(write(&reconcile(ty, &set(old))), new);
    assert!(!is_stale(ty, &new));
    assert_eq!(write(&reconcile(ty, &set(new.clone()))), new);
}
