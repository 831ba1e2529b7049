//! Laws of field sets and of apply on arbitrary input.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::apply::fields_v1::{Wire, parse, write};
use crate::apply::set::Set;
use crate::apply::{Request, Update, apply, keep_unchanged_times, track};
use crate::schema::Schemas;

fn key() -> impl Strategy<Value = String> {
    let keys = [
        "f:a",
        "f:b",
        "f:c",
        ".",
        "k:{\"name\":\"x\"}",
        "k:{\"name\":\"y\",\"port\":1}",
        "v:1",
        "v:\"s\"",
        "v:1.5",
        "v:null",
        "i:0",
        "i:-1",
    ];
    proptest::sample::select(keys.map(str::to_owned).to_vec())
}

/// Arbitrary sets in wire form.
fn fields() -> impl Strategy<Value = Value> {
    let leaf = Just(json!({}));
    leaf.prop_recursive(4, 30, 5, |inner| {
        proptest::collection::vec((key(), inner), 0..5)
            .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
    })
}

fn sets() -> impl Strategy<Value = Set> {
    fields().prop_map(|fields| parse(&fields).expect("valid by construction"))
}

/// Pod-like objects, mostly of the right types.
fn objects() -> impl Strategy<Value = Value> {
    let name = || proptest::sample::select(vec!["x", "y", "z"]);
    let labels = || proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let env = proptest::collection::btree_map(name(), "[a-b]", 0..3).prop_map(|env| {
        let items = env.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
        Value::Array(items.collect())
    });
    let ports = proptest::collection::btree_set(1u16..4, 0..3).prop_map(|ports| {
        Value::Array(ports.into_iter().map(|port| json!({"containerPort": port, "protocol": "TCP"})).collect())
    });
    let container = (env, ports, proptest::option::of("[a-b]"), proptest::collection::vec("[a-b]", 0..2)).prop_map(
        |(env, ports, image, args)| {
            let mut container = json!({"env": env, "ports": ports, "args": args});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            container
        },
    );
    let containers = proptest::collection::btree_map(name(), container, 0..3).prop_map(|containers| {
        let items = containers.into_iter().map(|(name, mut container)| {
            container["name"] = name.into();
            container
        });
        Value::Array(items.collect())
    });
    let finalizers = proptest::collection::btree_set("[a-c]", 0..3);
    (labels(), finalizers, containers, proptest::option::of(labels())).prop_map(
        |(labels, finalizers, containers, selector)| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "nodeSelector": selector}})
        },
    )
}

/// Without nulls, empty lists and empty maps: a list that is emptied is owned otherwise than one created empty.
fn solid(value: &Value) -> Value {
    let is_solid = |v: &Value| match v {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(map) => {
            map.iter().map(|(k, v)| (k.clone(), solid(v))).filter(|(_, v)| is_solid(v)).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(solid).filter(is_solid).collect(),
        scalar => scalar.clone(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn applied(live: Option<&Value>, config: &Value, manager: &str, second: i64) -> Value {
    let mut object = apply(Request {
        schema: Schemas::builtin().type_named("io.k8s.api.core.v1.Pod").expect("built in"),
        live,
        config,
        manager,
        force: true,
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        now: at(second),
        reset_fields: &["status"],
        only_fields: &[],
        versions: None,
    })
    .expect("forced");
    object["metadata"]["uid"] = "u".into();
    object
}

fn written(live: Option<&Value>, new: &Value, manager: &str, second: i64) -> Value {
    let mut new = new.clone();
    track(Update {
        schema: Schemas::builtin().type_named("io.k8s.api.core.v1.Pod").expect("built in"),
        live,
        new: &mut new,
        manager,
        api_version: "v1",
        subresource: "",
        now: at(second),
        reset_fields: &["status"],
        only_fields: &[],
        versions: None,
    });
    new["metadata"]["uid"] = "u".into();
    new
}

fn owned_by(object: &Value, manager: &str) -> Set {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let of_manager = entries.iter().filter(|entry| entry["manager"] == manager);
    of_manager.fold(Set::default(), |all, entry| all.union(&parse(&entry["fieldsV1"]).expect("canonical")))
}

fn without_descendants(set: &Set, gone: &Set) -> Set {
    let mut left = set.clone();
    left.subtract_with_descendants(gone);
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sets_obey_their_laws(a in sets(), b in sets(), c in sets()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.difference(&b).difference(&c), a.difference(&b.union(&c)));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert!(without_descendants(&a, &b).difference(&a.difference(&b)).is_empty());
        for path in a.paths() {
            prop_assert!(a.contains(&path.0));
            prop_assert_eq!(b.contains(&path.0), a.intersection(&b).contains(&path.0));
        }
    }

    #[test]
    fn the_wire_form_round_trips_and_answers_alike(a in sets(), b in sets()) {
        let wire = write(&a);
        prop_assert_eq!(parse(&wire), Ok(a.clone()));
        prop_assert_eq!(write(&parse(&wire).expect("canonical")), wire.clone());
        prop_assert_eq!(Wire(&wire).has_any(&b), !a.intersection(&b).is_empty());
        prop_assert_eq!(Wire(&wire).has_all(&b), b.difference(&a).is_empty());
    }

    #[test]
    fn applying_twice_is_applying_once(live in objects(), config in objects()) {
        let live = written(None, &live, "u", 1);
        let once = applied(Some(&live), &config, "m", 2);
        prop_assert_eq!(&applied(Some(&once), &config, "m", 3), &once);
    }

    #[test]
    fn what_is_applied_is_there_and_owned(live in objects(), config in objects()) {
        let live = written(None, &live, "u", 1);
        let object = applied(Some(&live), &config, "m", 2);
        let labels = config["metadata"]["labels"].as_object().expect("labels");
        for (key, value) in labels {
            prop_assert_eq!(&object["metadata"]["labels"][key], value);
        }
        let owned = owned_by(&object, "m");
        let finalizers = config["metadata"]["finalizers"].as_array().expect("finalizers");
        for finalizer in finalizers {
            prop_assert!(object["metadata"]["finalizers"].as_array().expect("list").contains(finalizer));
            let fields = json!({"f:metadata": {"f:finalizers": {format!("v:{finalizer}"): {}}}});
            prop_assert!(parse(&fields).expect("valid").difference(&owned).is_empty());
        }
    }

    #[test]
    fn taking_everything_back_leaves_the_others(first in objects(), config in objects()) {
        let before = applied(None, &first, "m1", 1);
        let after = applied(Some(&applied(Some(&before), &config, "m2", 2)), &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}), "m2", 3);
        prop_assert!(owned_by(&after, "m2").is_empty());
        // What m1 still owns is as it applied it.
        let still = owned_by(&after, "m1");
        prop_assert!(still.difference(&owned_by(&before, "m1")).is_empty());
        let again = applied(Some(&after), &first, "m1", 4);
        prop_assert_eq!(owned_by(&again, "m1"), owned_by(&before, "m1"));
    }

    #[test]
    fn an_update_without_change_changes_no_owner(live in objects(), config in objects()) {
        let live = applied(Some(&written(None, &live, "u", 1)), &config, "m", 2);
        prop_assert_eq!(written(Some(&live), &live, "other", 9), live.clone());
        let mut resent = live.clone();
        resent["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        prop_assert_eq!(written(Some(&live), &resent, "other", 9), live.clone());
    }

    #[test]
    fn an_update_moves_exactly_what_changed(old in objects(), new in objects()) {
        let (mut old, mut new) = (solid(&old), solid(&new));
        // An object nobody owns anything of would not be tracked.
        old["data"] = "x".into();
        new["data"] = "x".into();
        let live = written(None, &old, "u", 1);
        new["metadata"]["uid"] = "u".into();
        let after = written(Some(&live), &new, "w", 2);
        prop_assert!(owned_by(&after, "u").intersection(&owned_by(&after, "w")).is_empty());
        let all = owned_by(&after, "u").union(&owned_by(&after, "w"));
        // Together they own what a creator of the new object would.
        prop_assert!(owned_by(&written(None, &new, "u", 1), "u").difference(&all).is_empty());
    }

    #[test]
    fn nothing_panics(live in crate::patch::arbitrary(), new in crate::patch::arbitrary(), fields in fields()) {
        for name in ["io.k8s.api.core.v1.Pod", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"] {
            let schema = Schemas::builtin().type_named(name).expect("built in");
            let mut live = live.clone();
            if let Some(map) = live.as_object_mut() {
                map.insert("metadata".to_owned(), json!({"uid": "u", "managedFields": [{
                    "manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                    "fieldsV1": fields}]}));
                map.insert("apiVersion".to_owned(), "v1".into());
                map.insert("kind".to_owned(), "Pod".into());
            }
            let mut config = new.clone();
            if let Some(map) = config.as_object_mut() {
                map.insert("apiVersion".to_owned(), "v1".into());
                map.insert("kind".to_owned(), "Pod".into());
            }
            let request = |live, config, manager| Request {
                schema, live, config, manager, force: true, api_version: "v1", kind: "Pod", subresource: "",
                now: at(1), reset_fields: &["status"], only_fields: &[], versions: None,
            };
            // Only that each returns is asked here.
            let _outcomes = (
                apply(request(Some(&live), &config, "m")).map_err(|e| e.status()),
                apply(request(None, &config, "kubectl")).map_err(|e| e.status()),
                apply(request(Some(&config), &live, "kubectl")).map_err(|e| e.status()),
            );
            for base in [None, Some(&live)] {
                let mut new = new.clone();
                track(Update {
                    schema, live: base, new: &mut new, manager: "m", api_version: "v1", subresource: "", now: at(1),
                    reset_fields: &[], only_fields: &["spec.*.a"], versions: None,
                });
                keep_unchanged_times(&live, &mut new);
            }
        }
    }
}
