//! Daemon sets played through on made-up objects: each reconcile's steps are applied and shown, then pods come up or
//! go, until nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_client::{Change, ObjectKey};
use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::failed_key;
use super::place::Place;
use super::plan::{self, Input, Plan};
use crate::objects::{Node, Owner, Pod};

struct World {
    set: Value,
    nodes: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    /// Images whose pods never become ready.
    broken: Vec<&'static str>,
    failed: Backoff,
    made: u32,
    now: Timestamp,
}

impl World {
    fn new(nodes: i32, spec: Value) -> Self {
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "a", "uid": "set", "generation": 1},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
            },
        });
        let set = api::patch::merge(&set, &json!({"spec": spec})).unwrap();
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let mut world = Self {
            set,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            broken: vec![],
            failed: Backoff::default(),
            made: 0,
            now,
        };
        (1..=nodes).for_each(|n| world.node(&format!("n{n}"), json!({}), json!([])));
        world
    }

    fn node(&mut self, name: &str, labels: Value, taints: Value) {
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        self.nodes.insert(name.to_owned(), node);
    }

    fn spec(&mut self, patch: Value) -> &mut Self {
        self.set = api::patch::merge(&self.set, &json!({"spec": patch})).unwrap();
        self
    }

    fn image(&mut self, image: &str) -> &mut Self {
        self.spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}))
    }

    /// The image serves as the template's hash.
    fn hash(&self) -> String {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }

    fn plan(&self) -> Plan {
        let set: DaemonSet = serde_json::from_value(self.set.clone()).unwrap();
        let nodes: Vec<Arc<Node>> =
            self.nodes.values().map(|n| Arc::new(serde_json::from_value(n.clone()).unwrap())).collect();
        let pods: Vec<Arc<Pod>> =
            self.pods.values().map(|p| Arc::new(serde_json::from_value(p.clone()).unwrap())).collect();
        plan::plan(&Input {
            set: &set,
            place: &Place::of(&set),
            nodes: &nodes,
            pods: &pods,
            hash: &self.hash(),
            generation: None,
            collisions: None,
            failed_pause: &|node| self.failed.left(&failed_key(&set, node), self.now),
            clock: self.now.into(),
        })
    }

    /// One reconcile; what it did.
    fn reconcile(&mut self) -> String {
        let set: DaemonSet = serde_json::from_value(self.set.clone()).unwrap();
        let plan = self.plan();
        let mut done = Vec::new();
        for node in &plan.failed {
            self.failed.note(failed_key(&set, node), self.now);
        }
        for node in plan.create {
            self.made += 1;
            let mut pod = Place::of(&set).pod(&Owner::of(&set), &node, &self.hash(), None);
            let name = format!("{node}-{}", self.made);
            pod["metadata"]["name"] = name.clone().into();
            pod["metadata"]["namespace"] = "a".into();
            pod["metadata"]["uid"] = name.clone().into();
            pod["metadata"]["creationTimestamp"] =
                (self.now + Duration::from_secs(u64::from(self.made))).to_string().into();
            pod["status"] = json!({"phase": "Pending"});
            self.pods.insert(name, pod);
            done.push(format!("+{node}@{}", self.hash()));
        }
        for pod in plan.delete {
            self.pods.get_mut(&pod.metadata.name).unwrap()["metadata"]["deletionTimestamp"] =
                self.now.to_string().into();
            done.push(format!("-{}", pod.metadata.name));
        }
        if let Some(patch) = plan.status {
            self.set = api::patch::merge(&self.set, &patch).unwrap();
        }
        done.join(" ")
    }

    /// Deleted pods go, others are bound to the node they are meant for and start.
    fn kubelet(&mut self) -> bool {
        let before = self.pods.clone();
        self.pods.retain(|_, pod| pod["metadata"]["deletionTimestamp"].is_null());
        for pod in self.pods.values_mut().filter(|pod| pod["status"]["phase"] == "Pending") {
            let target = serde_json::from_value::<Pod>(pod.clone()).unwrap().spec.target_node.unwrap();
            if !self.nodes.contains_key(&target) {
                continue;
            }
            pod["spec"]["nodeName"] = target.into();
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            let ready = if self.broken.contains(&image) { "False" } else { "True" };
            let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": self.now.to_string()});
            pod["status"] = json!({"phase": "Running", "conditions": [condition]});
        }
        self.pods != before
    }

    fn settle(&mut self) -> String {
        let mut seen = Vec::new();
        for _ in 0..100 {
            let status = self.set["status"].clone();
            let done = self.reconcile();
            let wrote = !done.is_empty() || self.set["status"] != status;
            if !done.is_empty() {
                seen.push(done);
            }
            if !self.kubelet() && !wrote {
                return seen.join(" | ");
            }
        }
        panic!("does not settle: {}", seen.join(" | "));
    }

    fn check(&mut self, expected: Expect) -> &mut Self {
        expected.assert_eq(&self.settle());
        self
    }

    fn pod_on(&mut self, node: &str) -> &mut Value {
        self.pods.values_mut().find(|pod| pod["spec"]["nodeName"] == node).unwrap()
    }

    /// desired/current/misscheduled/ready/updated/available/unavailable
    fn status(&self) -> String {
        let fields = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberMisscheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ];
        let status = &self.set["status"];
        let counts: Vec<String> = fields.iter().map(|f| status[f].as_i64().unwrap_or_default().to_string()).collect();
        counts.join("/")
    }
}

fn taint(key: &str, effect: &str) -> Value {
    json!([{"key": key, "effect": effect}])
}

#[test]
fn every_node_gets_one_and_nodes_come_and_go() {
    let mut world = World::new(2, json!({}));
    world.check(expect!["+n1@v1 +n2@v1"]);
    assert_eq!(world.status(), "2/2/0/2/2/2/0");
    world.node("n3", json!({}), json!([]));
    world.check(expect!["+n3@v1"]);
    world.nodes.remove("n3");
    // Its pod is the pod collector's.
    world.check(expect![""]);
    assert_eq!(world.status(), "2/2/0/2/2/2/0");
}

#[test]
fn a_pod_tolerates_trouble_and_names_its_node() {
    let mut world = World::new(1, json!({"template": {"spec": {"hostNetwork": true}}}));
    world.reconcile();
    let pod = world.pods.values().next().unwrap();
    let tolerated: Vec<String> = pod["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            format!(
                "{}:{}",
                t["key"].as_str().unwrap().replace("node.kubernetes.io/", ""),
                t["effect"].as_str().unwrap()
            )
        })
        .collect();
    expect!["not-ready:NoExecute unreachable:NoExecute disk-pressure:NoSchedule memory-pressure:NoSchedule pid-pressure:NoSchedule unschedulable:NoSchedule network-unavailable:NoSchedule"]
        .assert_eq(&tolerated.join(" "));
    expect![[r#"{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]}}}"#]]
        .assert_eq(&pod["spec"]["affinity"].to_string());
    assert_eq!(pod["spec"].get("nodeName"), None, "the scheduler binds it");
    assert_eq!(pod["metadata"]["generateName"], "d-");
    assert_eq!(pod["metadata"]["labels"], json!({"app": "d", "controller-revision-hash": "v1"}));
}

#[test]
fn selectors_affinity_and_taints_say_where() {
    let mut world = World::new(1, json!({"template": {"spec": {"nodeSelector": {"color": "blue"}}}}));
    world.check(expect![""]);
    world.node("n1", json!({"color": "blue"}), json!([]));
    world.check(expect!["+n1@v1"]);
    world.node("n1", json!({"color": "green"}), json!([]));
    world.check(expect!["-n1-1"]);
    let not_in = json!([{"key": "color", "operator": "NotIn", "values": ["green"]}]);
    let terms = json!([{"matchExpressions": not_in}]);
    let affinity = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }});
    world.node("n2", json!({}), json!([]));
    world.spec(json!({"template": {"spec": {"nodeSelector": null, "affinity": affinity}}})).check(expect!["+n2@v1"]);
    // A taint that comes later keeps new pods away, and drives out the ones there only if it says so.
    world.node("n2", json!({}), taint("x", "NoSchedule"));
    world.check(expect![""]);
    assert_eq!(world.status(), "0/0/1/0/0/0/0");
    world.node("n2", json!({}), taint("x", "NoExecute"));
    world.check(expect!["-n2-2"]);
    world.node("n2", json!({}), taint("node.kubernetes.io/unreachable", "NoExecute"));
    world.check(expect!["+n2@v1"]);
}

#[test]
fn failed_pods_are_replaced_with_growing_pauses() {
    let mut world = World::new(1, json!({}));
    world.settle();
    world.pod_on("n1")["status"]["phase"] = "Failed".into();
    world.check(expect!["-n1-1 | +n1@v1"]);
    world.pod_on("n1")["status"]["phase"] = "Failed".into();
    world.check(expect![""]);
    assert_eq!(world.plan().check_after, Some(Duration::from_secs(1)));
    world.now += Duration::from_secs(1);
    let events = world.plan().events;
    expect!["Found failed daemon pod a/n1-2 on node n1, will try to kill it"].assert_eq(&events[0].message);
    world.check(expect!["-n1-2 | +n1@v1"]);
    world.pod_on("n1")["status"]["phase"] = "Succeeded".into();
    world.check(expect!["-n1-3 | +n1@v1"]);
}

#[test]
fn a_rollout_keeps_to_the_limit() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.image("v2").check(expect!["-n1-1 | +n1@v2 | -n2-2 | +n2@v2 | -n3-3 | +n3@v2"]);
    assert_eq!(world.status(), "3/3/0/3/3/3/0");
    world.spec(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}}));
    world.image("v3").check(expect!["-n1-4 -n2-5 | +n1@v3 +n2@v3 | -n3-6 | +n3@v3"]);
}

#[test]
fn a_broken_rollout_stands_and_is_rolled_back() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.broken = vec!["bad"];
    world.image("bad").check(expect!["-n1-1 | +n1@bad"]);
    assert_eq!(world.status(), "3/3/0/2/1/2/1");
    world.image("v1").check(expect!["-n1-4 | +n1@v1"]);
    assert_eq!(world.status(), "3/3/0/3/3/3/0");
}

#[test]
fn a_surge_starts_the_new_before_it_ends_the_old() {
    let strategy = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}});
    let mut world = World::new(2, strategy);
    world.settle();
    world.image("v2").check(expect!["+n1@v2 | -n1-1 | +n2@v2 | -n2-2"]);
    world.broken = vec!["bad"];
    world.image("bad").check(expect!["+n1@bad"]);
    assert_eq!(world.status(), "2/2/0/2/0/2/0", "the old ones are still there");
    world.image("v2").check(expect!["-n1-5"]);
}

#[test]
fn a_surge_leaves_a_node_only_when_another_took_over() {
    let strategy = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}});
    let mut world = World::new(0, strategy);
    world.node("n1", json!({"on": "1"}), json!([]));
    world.node("n2", json!({"on": "2"}), json!([]));
    world.spec(json!({"template": {"spec": {"nodeSelector": {"on": "1"}}}})).check(expect!["+n1@v1"]);
    // A node that no longer fits loses its pod at once, whatever the strategy.
    world.spec(json!({"template": {"spec": {"nodeSelector": {"on": "2"}}}})).check(expect!["+n2@v1 -n1-1"]);
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut world = World::new(2, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.settle();
    world.image("v2").check(expect![""]);
    assert_eq!(world.status(), "2/2/0/2/0/2/0");
    world.pods.remove("n1-1");
    world.check(expect!["+n1@v2"]);
    assert_eq!(world.status(), "2/2/0/2/1/2/0");
}

#[test]
fn one_too_many_goes_and_so_does_one_for_a_node_that_is_gone() {
    let mut world = World::new(1, json!({}));
    world.settle();
    let mut second = world.pods["n1-1"].clone();
    second["metadata"]["name"] = "n1-0".into();
    second["metadata"]["creationTimestamp"] = "2026-01-01T13:00:00Z".into();
    world.pods.insert("n1-0".into(), second);
    world.check(expect!["-n1-0"]);
    world.node("n2", json!({}), json!([]));
    world.reconcile();
    world.nodes.remove("n2");
    world.check(expect!["-n2-2"]);
}

#[test]
fn availability_takes_its_time() {
    let mut world = World::new(2, json!({"minReadySeconds": 10}));
    world.settle();
    assert_eq!(world.status(), "2/2/0/2/2/0/2");
    assert_eq!(world.plan().check_after, Some(Duration::from_secs(10)));
    world.now += Duration::from_secs(10);
    world.settle();
    assert_eq!(world.status(), "2/2/0/2/2/2/0");
}

#[test]
fn a_new_revision_with_an_owner_wakes_nobody() {
    let revision = |owner: bool| {
        let owners =
            json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "set", "controller": true}]);
        let owners = if owner { owners } else { json!([]) };
        let object = json!({"metadata": {"name": "d-1", "namespace": "a", "ownerReferences": owners}, "revision": 1});
        Some(Arc::new(serde_json::from_value::<ControllerRevision>(object).unwrap()))
    };
    let check = |old, new, expected| {
        let key = ObjectKey::new("a", "d-1");
        assert_eq!(super::is_new_of_owner(&Change { key, old, new }), expected);
    };
    check(None, revision(true), true);
    check(None, revision(false), false);
    check(revision(true), revision(true), false);
    check(revision(true), None, false);
}
