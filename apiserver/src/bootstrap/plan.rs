//! What a start must write so that a bootstrap object is as it should be. Pure: the wanted and the found object in, the
//! object to write out.
//!
//! Upstream adds what is missing and takes nothing away (`rbac/reconciliation`): an operator's additional rules,
//! subjects and labels stay.

use serde_json::{Map, Value};

use super::data::{AUTOUPDATE, FLOW_AUTOUPDATE};
use crate::authz::rule::{self, Rule};

/// `None` when the found object will do as it is.
pub fn update(wanted: &Value, found: &Value) -> Option<Value> {
    let annotation = |key: &str| api::meta::annotations(found).and_then(|a| a.get(key)).and_then(Value::as_str);
    if annotation(AUTOUPDATE) == Some("false") || annotation(FLOW_AUTOUPDATE) == Some("false") {
        return None;
    }
    let mut next = found.clone();
    for field in ["labels", "annotations"] {
        if let Some(extra) = missing_members(&wanted["metadata"][field], &found["metadata"][field]) {
            let map = api::meta::metadata_mut(&mut next).entry(field).or_insert(Value::Null);
            api::meta::object_mut(map).extend(extra);
        }
    }
    // Of a ConfigMap: what this server says counts, what others added stays.
    if let Some(extra) = missing_members(&wanted["data"], &found["data"]) {
        api::meta::object_mut(&mut next["data"]).extend(extra);
    }
    // Rules of an aggregated role belong to the aggregation.
    if let Some(rules) = wanted.get("rules").and_then(Value::as_array)
        && wanted.get("aggregationRule").is_none()
    {
        let held = Rule::parse_all(found);
        let lacking = rules.iter().filter(|rule| !rule::missing(&held, &[Rule::parse(rule)]).is_empty());
        append(&mut next, "rules", lacking.cloned().collect());
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        next["aggregationRule"] = aggregation.clone();
    }
    if let Some(subjects) = wanted.get("subjects").and_then(Value::as_array) {
        let there = found.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
        let same = |a: &Value, b: &Value| {
            let text = |v: &Value, f: &str| v.get(f).and_then(Value::as_str).unwrap_or_default().to_owned();
            ["kind", "name", "namespace"].iter().all(|f| text(a, f) == text(b, f))
        };
        let lacking = subjects.iter().filter(|s| !there.iter().any(|t| same(s, t)));
        append(&mut next, "subjects", lacking.cloned().collect());
    }
    if annotation(FLOW_AUTOUPDATE) == Some("true") && !contains(&found["spec"], &wanted["spec"]) {
        next["spec"] = wanted["spec"].clone();
    }
    (next != *found).then_some(next)
}

fn missing_members(wanted: &Value, found: &Value) -> Option<Map<String, Value>> {
    let missing: Map<String, Value> = wanted
        .as_object()?
        .iter()
        .filter(|(k, v)| found.get(*k) != Some(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    (!missing.is_empty()).then_some(missing)
}

fn append(object: &mut Value, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match object.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.extend(items),
        None => object[field] = Value::Array(items),
    }
}

/// Whether everything in `part` is in `whole` with the same value; lists must be as long.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|w| contains(w, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| contains(w, p))
        }
        (whole, part) => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_brought_up_to_date_and_what_others_added_stays() {
        let wanted = json!({"metadata": {"name": "c"}, "data": {"podCIDR": "10.1.0.0/16", "clusterDomain": "x"}});
        let found = json!({"metadata": {"name": "c"}, "data": {"podCIDR": "10.0.0.0/16", "note": "mine"}});
        let next = update(&wanted, &found).expect("a change");
        assert_eq!(next["data"], json!({"podCIDR": "10.1.0.0/16", "clusterDomain": "x", "note": "mine"}));
        assert_eq!(update(&wanted, &next), None);
    }

    fn role(rules: Value) -> Value {
        json!({"metadata": {"name": "r", "annotations": {AUTOUPDATE: "true"}}, "rules": rules})
    }

    #[test]
    fn missing_rules_are_added_and_own_ones_stay() {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let own = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["z"]});
        assert_eq!(update(&role(json!([pods])), &role(json!([pods, own]))), None);
        let next = update(&role(json!([pods])), &role(json!([own]))).unwrap();
        assert_eq!(next["rules"], json!([own, pods]));
        let wider = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        assert_eq!(update(&role(json!([pods])), &role(json!([wider]))), None);
    }

    #[test]
    fn an_operator_may_keep_an_object_as_it_is() {
        let found = json!({"metadata": {"name": "r", "annotations": {AUTOUPDATE: "false"}}, "rules": []});
        assert_eq!(update(&role(json!([{"verbs": ["*"]}])), &found), None);
    }

    #[test]
    fn missing_subjects_and_labels_are_added() {
        let subject = |name: &str| json!({"kind": "Group", "name": name, "apiGroup": "rbac.authorization.k8s.io"});
        let wanted = json!({"metadata": {"labels": {"a": "b"}}, "subjects": [subject("x")]});
        let found = json!({"metadata": {"labels": {"c": "d"}}, "subjects": [subject("y")]});
        let next = update(&wanted, &found).unwrap();
        assert_eq!(next["subjects"], json!([subject("y"), subject("x")]));
        assert_eq!(next["metadata"]["labels"], json!({"a": "b", "c": "d"}));
        assert_eq!(update(&wanted, &next), None);
    }

    #[test]
    fn flow_specs_follow_unless_told_otherwise() {
        let object = |shares: i64, auto: &str| json!({"metadata": {"annotations": {FLOW_AUTOUPDATE: auto}}, "spec": {"limited": {"shares": shares}}});
        assert_eq!(update(&object(5, "true"), &object(9, "true")).unwrap()["spec"]["limited"]["shares"], 5);
        assert_eq!(update(&object(5, "true"), &object(9, "false")), None);
    }
}
