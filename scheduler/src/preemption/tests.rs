//! Preemption as tables: pods in a few words, then who has to go where, or why nobody does. The expectations follow
//! `DefaultPreemption.SelectVictimsOnNode`, `pickOneNodeForPreemption` and `PodEligibleToPreemptOthers`.

use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::json;

use super::{Outcome, plan};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::cycle::{self, Failure};
use crate::objects::{Node, Pod, PodDisruptionBudget};
use crate::plugins::Context;

/// A cluster of nodes with 4 cores.
fn cluster(nodes: &[&str], pods: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for name in nodes {
        let json = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "allocatable": { "cpu": "4", "memory": "4Gi", "pods": "10" } },
        });
        cluster.set_node(Arc::new(serde_json::from_value::<Node>(json).expect("a Node")));
    }
    for text in pods {
        cluster.set_pod(&pod(text));
    }
    cluster
}

/// `NAME cpu=1 priority=5 node=n1 started=10 app=web` and words `never`, `leaving`, `apart` (from pods of app=web).
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split(' ');
    let name = words.next().expect("a name");
    let mut json = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": { "schedulerName": "default-scheduler", "containers": [{ "resources": { "requests": {} } }] },
        "status": {},
    });
    for word in words {
        match word.split_once('=') {
            Some(("cpu", cpu)) => json["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu.into(),
            Some(("priority", number)) => json["spec"]["priority"] = number.parse::<i32>().expect("a number").into(),
            Some(("node", node)) => json["spec"]["nodeName"] = node.into(),
            Some(("nominated", node)) => json["status"]["nominatedNodeName"] = node.into(),
            Some(("started", second)) => {
                json["status"]["startTime"] = format!("2024-01-01T00:00:{second:0>2}Z").into();
            }
            Some((label, value)) => json["metadata"]["labels"][label] = value.into(),
            None if word == "never" => json["spec"]["preemptionPolicy"] = "Never".into(),
            None if word == "leaving" => {
                json["metadata"]["deletionTimestamp"] = "2024-01-01T00:01:00Z".into();
                json["status"]["conditions"] =
                    json!([{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }]);
            }
            None => {
                json["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([
                    { "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "kubernetes.io/hostname" }]);
            }
        }
    }
    Arc::new(serde_json::from_value::<Pod>(json).expect("a Pod"))
}

fn budget(app: &str, allowed: i32) -> Arc<PodDisruptionBudget> {
    let json = json!({
        "metadata": { "name": app, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": app } } },
        "status": { "disruptionsAllowed": allowed, "disruptedPods": null },
    });
    Arc::new(serde_json::from_value(json).expect("a PodDisruptionBudget"))
}

fn check_in(mut cluster: Cluster, incoming: &str, expected: Expect) {
    let incoming = pod(incoming);
    if !incoming.nominated_node.is_empty() {
        cluster.nominated.add(&incoming, &incoming.nominated_node);
    }
    let config = Config::default();
    let profile = &config.profiles[0];
    let text = match cycle::schedule(&incoming, &config, profile, &mut cluster, &mut 0, 0) {
        Ok(choice) => format!("goes to {}", choice.node.metadata.name),
        Err(failure) => outcome(&Context { pod: &incoming, profile, cluster: &cluster }, &failure),
    };
    expected.assert_eq(&text);
}

fn outcome(context: &Context<'_>, failure: &Failure) -> String {
    match plan(context, failure, 0) {
        Outcome::Room { node, victims } => {
            let names: Vec<&str> = victims.iter().map(|v| v.metadata.name.as_str()).collect();
            format!("{} without {}", node.metadata.name, names.join(" "))
        }
        Outcome::Wait(message) => format!("waits: {message}"),
        Outcome::NoHelp(message) => message,
    }
}

fn check(nodes: &[&str], pods: &[&str], incoming: &str, expected: Expect) {
    check_in(cluster(nodes, pods), incoming, expected);
}

#[test]
fn the_least_important_pod_goes() {
    let pods = ["a cpu=2 priority=1 node=n1", "b cpu=2 priority=5 node=n1", "c cpu=4 priority=5 node=n2"];
    check(&["n1", "n2"], &pods, "p cpu=2 priority=10", expect!["n1 without a"]);
}

#[test]
fn no_more_pods_go_than_must() {
    let pods = ["a cpu=1 priority=1 node=n1", "b cpu=1 priority=2 node=n1", "c cpu=1 priority=3 node=n1"];
    check(&["n1"], &pods, "p cpu=2 priority=10", expect!["n1 without a"]);
    check(&["n1"], &pods, "p cpu=3 priority=10", expect!["n1 without b a"]);
}

#[test]
fn equals_do_not_make_room_for_each_other() {
    let pods = ["a cpu=4 priority=10 node=n1"];
    let expected = expect!["0/1 nodes are available: 1 No preemption victims found for incoming pod."];
    check(&["n1"], &pods, "p cpu=1 priority=10", expected);
}

#[test]
fn what_would_not_help_is_not_done() {
    let pods = ["a cpu=2 priority=1 node=n1", "b cpu=3 priority=20 node=n1", "c cpu=4 priority=20 node=n2"];
    check(
        &["n1", "n2", "n3"],
        &[&pods[..], &["d cpu=2 priority=1 node=n3", "e cpu=2 priority=1 node=n3"]].concat(),
        "p cpu=5 priority=10",
        // More than an empty node has: removing pods is not even tried.
        expect!["0/3 nodes are available: 3 Preemption is not helpful for scheduling."],
    );
    check(
        &["n1", "n2"],
        &pods,
        "p cpu=2 priority=10",
        expect!["0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod."],
    );
}

#[test]
fn who_never_preempts_waits() {
    let pods = ["a cpu=4 priority=1 node=n1"];
    let expected = expect!["waits: not eligible due to preemptionPolicy=Never."];
    check(&["n1"], &pods, "p cpu=1 priority=10 never", expected);
}

#[test]
fn one_waits_while_victims_leave() {
    let pods = ["a cpu=3 priority=1 node=n1 leaving", "b cpu=1 priority=1 node=n1"];
    let expected = expect!["waits: not eligible due to a terminating pod on the nominated node."];
    check(&["n1"], &pods, "p cpu=3 priority=10 nominated=n1", expected);
}

#[test]
fn budgets_choose_the_node_and_are_broken_last() {
    let pods = ["a cpu=4 priority=1 node=n1 app=web", "b cpu=4 priority=5 node=n2 app=db"];
    let mut guarded = cluster(&["n1", "n2"], &pods);
    guarded.budgets.insert(api_client::ObjectKey::new("default", "web"), budget("web", 0));
    check_in(guarded.clone(), "p cpu=1 priority=10", expect!["n2 without b"]);
    guarded.budgets.insert(api_client::ObjectKey::new("default", "db"), budget("db", 0));
    // Both break one: the less important pod goes.
    check_in(guarded, "p cpu=1 priority=10", expect!["n1 without a"]);
}

#[test]
fn within_a_node_guarded_pods_are_spared_first() {
    let pods = ["a cpu=2 priority=1 node=n1 app=web", "b cpu=2 priority=5 node=n1"];
    let mut guarded = cluster(&["n1"], &pods);
    guarded.budgets.insert(api_client::ObjectKey::new("default", "web"), budget("web", 0));
    check_in(guarded, "p cpu=2 priority=10", expect!["n1 without b"]);
}

#[test]
fn between_nodes_the_cheapest_wins() {
    let check_two = |first: &[&str], second: &[&str], expected| {
        check(&["n1", "n2"], &[first, second].concat(), "p cpu=4 priority=10", expected);
    };
    // The lower highest priority.
    check_two(&["a cpu=4 priority=3 node=n1"], &["b cpu=4 priority=2 node=n2"], expect!["n2 without b"]);
    // Then the lower sum, then fewer victims.
    check_two(
        &["a cpu=2 priority=3 node=n1", "b cpu=2 priority=3 node=n1"],
        &["c cpu=2 priority=3 node=n2", "d cpu=2 priority=1 node=n2"],
        expect!["n2 without c d"],
    );
    check_two(
        &["a cpu=2 priority=3 node=n1", "b cpu=2 priority=3 node=n1"],
        &["c cpu=4 priority=3 node=n2"],
        expect!["n2 without c"],
    );
    // Then the one whose victims have run for the shorter time.
    check_two(
        &["a cpu=4 priority=3 node=n1 started=10"],
        &["b cpu=4 priority=3 node=n2 started=20"],
        expect!["n2 without b"],
    );
}

#[test]
fn among_equals_those_that_ran_longer_stay() {
    let pods = ["old cpu=2 priority=1 node=n1 started=1", "new cpu=2 priority=1 node=n1 started=9"];
    check(&["n1"], &pods, "p cpu=2 priority=10", expect!["n1 without new"]);
}

#[test]
fn anti_affinity_is_lifted_with_its_pod() {
    let pods = ["a cpu=1 priority=1 node=n1 app=web", "b cpu=1 priority=1 node=n1"];
    check(&["n1"], &pods, "p cpu=1 priority=10 apart", expect!["n1 without a"]);
    let hermit = ["a cpu=1 priority=1 node=n1 apart"];
    check(&["n1"], &hermit, "p cpu=1 priority=10 app=web", expect!["n1 without a"]);
}

#[test]
fn room_that_another_waits_for_is_not_taken() {
    let mut waiting = cluster(&["n1"], &["a cpu=2 priority=1 node=n1"]);
    waiting.nominated.add(&pod("first cpu=2 priority=10"), "n1");
    // It may not pass in front of its equal, and sending `a` away makes room for it.
    check_in(waiting.clone(), "p cpu=2 priority=10", expect!["n1 without a"]);
    check_in(waiting.clone(), "p cpu=2 priority=11", expect!["goes to n1"]);
    check_in(
        waiting,
        "p cpu=1 priority=0",
        expect!["0/1 nodes are available: 1 No preemption victims found for incoming pod."],
    );
}
