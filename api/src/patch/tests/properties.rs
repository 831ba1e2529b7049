//! Laws of the patch formats on arbitrary documents: they never panic, and what they agree on they do alike.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::patch::{json as json_patch, merge, strategic};
use crate::schema::Schemas;

/// Keys that mean something to some patch, and some that do not.
fn key() -> impl Strategy<Value = String> {
    let known = [
        "spec",
        "template",
        "containers",
        "metadata",
        "finalizers",
        "labels",
        "env",
        "ports",
        "name",
        "containerPort",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "a",
        "b",
        "strategy",
        "op",
        "path",
        "from",
        "value",
    ];
    proptest::sample::select(known.map(str::to_owned).to_vec())
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        proptest::sample::select(vec!["", "a", "b", "delete", "replace", "merge", "name", "/a/-", "add", "move"])
            .prop_map(Value::from),
    ]
}

pub(crate) fn arbitrary() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Documents of objects and scalars without directives, where strategic merge and merge patch mean the same.
fn plain_maps() -> impl Strategy<Value = Value> {
    let labels = || proptest::collection::btree_map("[a-d]", "[x-z]", 0..4);
    (labels(), labels(), any::<bool>()).prop_map(|(labels, annotations, paused)| {
        json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": {"paused": paused}})
    })
}

fn has_null_below_list(value: &Value, below_list: bool) -> bool {
    match value {
        Value::Object(map) => map.values().any(|v| (below_list && v.is_null()) || has_null_below_list(v, below_list)),
        Value::Array(items) => items.iter().any(|item| has_null_below_list(item, true)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_panics(document in arbitrary(), patch in arbitrary()) {
        let schema = Schemas::builtin().type_named("io.k8s.api.apps.v1.Deployment").expect("built in");
        // Only that each returns is asked here.
        let _outcomes = (
            strategic(schema, &document, &patch).map_err(|e| e.status()),
            merge(&document, &patch).map_err(|e| e.status()),
            json_patch(&document, &patch).map_err(|e| e.status()),
            json_patch(&document, &json!([patch])).map_err(|e| e.status()),
        );
    }

    #[test]
    fn merging_twice_is_merging_once(document in arbitrary(), patch in arbitrary()) {
        // Null members of objects in lists are kept or dropped by what the list replaces.
        prop_assume!(!has_null_below_list(&patch, false));
        if let Ok(once) = merge(&document, &patch) {
            prop_assert_eq!(merge(&once, &patch), Ok(once));
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing(document in plain_maps()) {
        let schema = Schemas::builtin().type_named("io.k8s.api.apps.v1.Deployment").expect("built in");
        prop_assert_eq!(strategic(schema, &document, &json!({})), Ok(document.clone()));
        prop_assert_eq!(merge(&document, &json!({})), Ok(document.clone()));
        prop_assert_eq!(json_patch(&document, &json!([])), Ok(document));
    }

    #[test]
    fn strategic_is_merge_patch_where_there_are_no_lists(document in plain_maps(), patch in plain_maps()) {
        let schema = Schemas::builtin().type_named("io.k8s.api.apps.v1.Deployment").expect("built in");
        prop_assert_eq!(strategic(schema, &document, &patch), merge(&document, &patch));
    }
}
