//! Which pods a replica set makes and deletes, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use jiff::Timestamp;
use serde_json::json;

use super::plan::{self, Change, Failure, Status, Wanted};
use crate::objects::Pod;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// `name [node] [phase] [ready=SECONDS_AGO] [cost=N] [restarts=N] [age=SECONDS]`
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let mut pod = Pod::default();
    pod.metadata.name = words.next().unwrap().into();
    pod.metadata.uid = pod.metadata.name.clone();
    pod.status.phase = "Running".into();
    pod.spec.node_name = "n1".into();
    let ago = |seconds: &str| (now() - Duration::from_secs(seconds.parse().unwrap())).to_string();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("node", node) => pod.spec.node_name = node.into(),
            ("phase", phase) => pod.status.phase = phase.into(),
            ("cost", cost) => pod.metadata.annotations.deletion_cost = Some(cost.into()),
            ("age", age) => pod.metadata.creation_timestamp = Some(ago(age).parse().unwrap()),
            ("ready", since) => {
                let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": ago(since)});
                pod.status.conditions = vec![serde_json::from_value(condition).unwrap()];
            }
            ("restarts", count) => {
                let status = json!({"name": "c", "restartCount": count.parse::<i32>().unwrap()});
                pod.status.container_statuses = vec![serde_json::from_value(status).unwrap()];
            }
            (other, _) => panic!("unknown word {other}"),
        }
    }
    Arc::new(pod)
}

fn wanted(replicas: i32) -> Wanted {
    Wanted { replicas, generation: 3, ..Wanted::default() }
}

/// The order in which these pods would be deleted.
fn deletion_order(pods: &[&str], related: &[&str]) -> String {
    let pods: Vec<Arc<Pod>> = pods.iter().map(|p| pod(p)).collect();
    let related: Vec<Arc<Pod>> = related.iter().map(|p| pod(p)).collect();
    let mut order = Vec::new();
    for count in 1..=pods.len() {
        let doomed = super::rank::to_delete(&pods, &related, count, now());
        let name = doomed.iter().map(|p| p.metadata.name.clone()).find(|n| !order.contains(n));
        order.extend(name);
    }
    order.join(" ")
}

#[test]
fn creates_what_is_missing_and_nothing_while_deleting() {
    let pods = [pod("a"), pod("b")];
    assert_eq!(plan::replicas(&wanted(5), &pods, Vec::new, now()), Change::Create(3));
    assert_eq!(plan::replicas(&wanted(2), &pods, Vec::new, now()), Change::Nothing);
    let deleting = Wanted { deleting: true, ..wanted(5) };
    assert_eq!(plan::replicas(&deleting, &pods, Vec::new, now()), Change::Nothing);
    assert_eq!(plan::replicas(&wanted(0), &pods, Vec::new, now()), Change::Delete(pods.to_vec()));
}

#[test]
fn the_least_useful_pods_go_first() {
    expect!["unassigned pending unknown unready cheap young old"].assert_eq(&deletion_order(
        &[
            "old ready=900000",
            "young ready=10",
            "cheap ready=900000 cost=-5",
            "unready",
            "unknown phase=Unknown",
            "pending phase=Pending",
            "unassigned node= phase=Pending",
        ],
        &[],
    ));
    expect!["restarting steady"].assert_eq(&deletion_order(&["steady restarts=1", "restarting restarts=7"], &[]));
    expect!["crowded lonely"].assert_eq(&deletion_order(
        &["lonely node=n2 ready=10", "crowded node=n1 ready=900000"],
        &["x node=n1 ready=1", "y node=n1 ready=1", "lonely node=n2 ready=10"],
    ));
    // Of like age: by uid, not by a second more or less.
    expect!["a b"].assert_eq(&deletion_order(&["b ready=1030", "a ready=1040"], &[]));
}

#[test]
fn status_counts_and_failure_comes_and_goes() {
    let old = Status { terminating_replicas: Some(0), ..Status::default() };
    let pods = [pod("a ready=30"), pod("b ready=5"), pod("c")];
    let wanted = Wanted { min_ready_seconds: 10, ..wanted(4) };
    let failure = Failure { message: "exceeded quota".into() };
    let failed = plan::status(&wanted, &old, &pods, 1, Some(&failure), now().into());
    expect![[r#"{"status":{"availableReplicas":1,"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"exceeded quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"fullyLabeledReplicas":3,"observedGeneration":3,"readyReplicas":2,"replicas":3,"terminatingReplicas":1}}"#]]
        .assert_eq(&failed.patch().to_string());
    let again = plan::status(&wanted, &failed, &pods, 1, Some(&Failure { message: "other".into() }), now().into());
    assert_eq!(again, failed, "a standing failure is not rewritten");
    let well = plan::status(&wanted, &failed, &pods, 1, None, now().into());
    assert_eq!(well.conditions, []);
    assert_eq!(plan::next_check(&wanted, &pods, now().into()), Some(Duration::from_secs(5)));
    assert_eq!(plan::next_check(&wanted, &pods[..1], now().into()), None);
}

/// Sorting panics where the order is none: many pods, ready for like times, made at like times.
#[test]
fn pods_of_like_age_are_in_some_order() {
    let pods: Vec<String> =
        (0..60).map(|n| format!("p{} ready={} age={}", n * 37 % 60, 100 + n * 7 % 5, 100 + n * 11 % 90)).collect();
    let texts: Vec<&str> = pods.iter().map(String::as_str).collect();
    assert_eq!(deletion_order(&texts, &[]).split(' ').count(), 60);
}
