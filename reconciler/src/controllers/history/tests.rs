//! Which revision a template gets, and which revisions stay.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;

use super::plan::{self, Subject, Update};
use crate::objects::Owner;

fn template(image: &str) -> PodTemplateSpec {
    let containers = json!([{"name": "c", "image": image}]);
    serde_json::from_value(json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": containers}})).unwrap()
}

fn subject(template: &PodTemplateSpec, collisions: i32) -> Subject<'_> {
    let owner = Owner {
        api_version: "apps/v1".into(),
        kind: "StatefulSet",
        name: "db".into(),
        uid: "u".into(),
        deleting: false,
        finalizer: None,
    };
    Subject { owner, namespace: "a", annotations: None, template, hash_label: plan::HASH_LABEL, collisions }
}

fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
    let template = template(image);
    let mut object = plan::object(&subject(&template, 0), number);
    object["metadata"]["name"] = image.into();
    Arc::new(serde_json::from_value(object).unwrap())
}

fn check(history: &[(&str, i64)], image: &str, expected: &str) {
    let mut revisions: Vec<_> = history.iter().map(|(image, number)| revision(image, *number)).collect();
    plan::sort(&mut revisions);
    let wanted = template(image);
    let found = match plan::update(&subject(&wanted, 0), &revisions) {
        Update::Unchanged(revision) => format!("keep {}", revision.metadata.name.as_deref().unwrap()),
        Update::Renumber { revision, number } => {
            format!("{} becomes {number}", revision.metadata.name.clone().unwrap())
        }
        Update::Create { number, .. } => format!("new {number}"),
    };
    assert_eq!(found, expected);
}

#[test]
fn a_template_is_kept_renumbered_or_new() {
    check(&[], "v1", "new 1");
    check(&[("v1", 1)], "v1", "keep v1");
    check(&[("v1", 1)], "v2", "new 2");
    check(&[("v2", 5), ("v1", 3)], "v1", "v1 becomes 6");
    check(&[("v2", 5), ("v1", 3)], "v2", "keep v2");
}

#[test]
fn another_spelling_of_the_template_is_the_same_template() {
    let mut data = json!(*revision("v1", 1));
    data["data"]["spec"]["template"]["metadata"]["creationTimestamp"] = json!(null);
    data["data"]["spec"]["template"]["metadata"]["annotations"] = json!({});
    assert!(plan::keeps(&serde_json::from_value(data).unwrap(), &template("v1")));
}

#[test]
fn collisions_give_other_names() {
    let template = template("v1");
    let names: HashSet<String> = (0..5).map(|collisions| plan::name(&subject(&template, collisions))).collect();
    assert_eq!(names.len(), 5);
    let long = Owner { name: "x".repeat(253), ..subject(&template, 0).owner };
    assert!(plan::name(&Subject { owner: long, ..subject(&template, 0) }).len() <= 253);
}

#[test]
fn revisions_in_use_stay() {
    let revisions: Vec<_> = ["a", "b", "c", "d"].iter().zip(1..).map(|(name, n)| revision(name, n)).collect();
    let check = |live: &[&str], limit: Option<i32>, count_live: bool, expected: &[&str]| {
        let live: HashSet<&str> = live.iter().copied().collect();
        let excess = plan::excess(&revisions, &live, limit, count_live);
        let names: Vec<&str> = excess.iter().map(|r| r.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, expected);
    };
    check(&["d"], Some(10), false, &[]);
    check(&["d"], Some(1), false, &["a", "b"]);
    check(&["d", "a"], Some(1), false, &["b"]);
    check(&["d", "a"], Some(1), true, &["b", "c"]);
    check(&["d"], Some(0), false, &["a", "b", "c"]);
    check(&[], None, false, &[]);
}
