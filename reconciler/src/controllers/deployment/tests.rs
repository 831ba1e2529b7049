//! Rollouts, played through on made-up objects: the plan's steps are applied, pods of healthy sets come up, and every
//! line of a script shows the sets' sizes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::plan::{self, Input, Plan, Step};

struct World {
    deployment: Value,
    sets: BTreeMap<String, Value>,
    /// Images whose pods never become ready.
    broken: Vec<String>,
    now: Timestamp,
    clock: u64,
    least_available: i64,
    most: i64,
}

impl World {
    fn new(replicas: i64, strategy: Value) -> Self {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
            },
        });
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        Self { deployment, sets: BTreeMap::new(), broken: vec![], now, clock: 0, least_available: i64::MAX, most: 0 }
    }

    fn plan(&self) -> Plan {
        let deployment: Deployment = serde_json::from_value(self.deployment.clone()).unwrap();
        let replica_sets =
            self.sets.values().map(|s| Arc::new(serde_json::from_value::<ReplicaSet>(s.clone()).unwrap())).collect();
        let running =
            |uid: &str| self.sets.values().any(|s| s["metadata"]["uid"] == uid && s["status"]["replicas"] != 0);
        plan::plan(&Input { deployment: &deployment, replica_sets, running: &running, clock: self.now.into() })
    }

    /// One reconcile: plans and applies. True when anything was written.
    fn reconcile(&mut self, events: &mut Vec<String>) -> bool {
        let plan = self.plan();
        let wrote = plan.status.is_some() || !plan.steps.is_empty();
        for step in plan.steps {
            match step {
                Step::Create { name, mut object } => {
                    self.clock += 1;
                    object["metadata"]["uid"] = name.clone().into();
                    object["metadata"]["creationTimestamp"] =
                        (self.now + Duration::from_secs(self.clock)).to_string().into();
                    object["status"] = json!({"replicas": 0});
                    self.sets.insert(name, object);
                }
                Step::Patch { key, patch } => {
                    let old = &self.sets[&key.name];
                    self.sets.insert(key.name, api::patch::merge(old, &patch).unwrap());
                }
                Step::Delete { key, .. } => {
                    self.sets.remove(&key.name);
                }
                Step::Event { message, .. } => events.push(message),
            }
        }
        if let Some(patch) = plan.status {
            self.deployment = api::patch::merge(&self.deployment, &patch).unwrap();
        }
        wrote
    }

    /// Every set gets the pods it asks for; those of healthy images are available.
    fn pods(&mut self) {
        for set in self.sets.values_mut() {
            let replicas = set["spec"]["replicas"].clone();
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
            let up = if self.broken.contains(&image) { json!(0) } else { replicas.clone() };
            set["status"] = json!({
                "replicas": replicas, "readyReplicas": up, "availableReplicas": up, "observedGeneration": 1,
                "terminatingReplicas": 0,
            });
        }
        let sum = |field: &str| self.sets.values().map(|s| s["status"][field].as_i64().unwrap()).sum::<i64>();
        self.least_available = self.least_available.min(sum("availableReplicas"));
        self.most = self.most.max(sum("replicas"));
    }

    fn image_of(set: &Value) -> String {
        set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }

    fn set_image(&mut self, image: &str) {
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        self.touch();
    }

    fn touch(&mut self) {
        let generation = self.deployment["metadata"]["generation"].as_i64().unwrap() + 1;
        self.deployment["metadata"]["generation"] = generation.into();
    }

    fn sizes(&self) -> String {
        let mut sizes: Vec<String> =
            self.sets.values().map(|s| format!("{}={}", Self::image_of(s), s["spec"]["replicas"])).collect();
        sizes.sort();
        sizes.join(" ")
    }

    /// Reconciles and lets pods come up until nothing changes; shows sizes after every step.
    fn settle(&mut self) -> String {
        let mut seen = vec![self.sizes()];
        let mut quiet = 0;
        for _ in 0..100 {
            let wrote = self.reconcile(&mut Vec::new());
            if Some(&self.sizes()) != seen.last() {
                seen.push(self.sizes());
            }
            self.pods();
            quiet = if wrote { 0 } else { quiet + 1 };
            if quiet == 2 {
                return seen.join(" | ");
            }
        }
        panic!("does not settle: {}", seen.join(" | "));
    }

    fn conditions(&self) -> String {
        let mut out = String::new();
        for c in self.deployment["status"]["conditions"].as_array().into_iter().flatten() {
            let text = |field: &str| c[field].as_str().unwrap().to_owned();
            writeln!(out, "{}={} {}: {}", text("type"), text("status"), text("reason"), text("message")).unwrap();
        }
        out
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn a_rollout_keeps_within_its_bounds() {
    let mut world = World::new(4, rolling(json!("25%"), json!("25%")));
    expect![" | v1=4"].assert_eq(&world.settle());
    (world.least_available, world.most) = (i64::MAX, 0);
    world.set_image("v2");
    expect!["v1=4 | v1=3 v2=1 | v1=3 v2=2 | v1=1 v2=2 | v1=1 v2=4 | v1=0 v2=4"].assert_eq(&world.settle());
    assert_eq!((world.least_available, world.most), (3, 5));
    expect![[r#"
        Available=True MinimumReplicasAvailable: Deployment has minimum availability.
        Progressing=True NewReplicaSetAvailable: ReplicaSet "web-5fb9c9cd8b" has successfully progressed.
    "#]]
    .assert_eq(&world.conditions().replace(world.sets.keys().last().unwrap(), "web-57f945cb65"));
}

#[test]
fn a_broken_rollout_stands_and_times_out_and_undo_recovers() {
    let mut world = World::new(4, rolling(json!(1), json!(1)));
    world.settle();
    world.broken = vec!["bad".into()];
    world.set_image("bad");
    expect!["v1=4 | bad=1 v1=3 | bad=2 v1=3"].assert_eq(&world.settle());
    assert!(world.plan().check_after.is_some_and(|after| after <= Duration::from_secs(601)));
    world.now += Duration::from_secs(700);
    world.settle();
    assert!(world.conditions().contains("Progressing=False ProgressDeadlineExceeded"), "{}", world.conditions());
    assert_eq!(world.plan().check_after, None);
    // kubectl rollout undo puts the old template back.
    world.set_image("v1");
    expect!["bad=2 v1=3 | bad=0 v1=3 | bad=0 v1=4"].assert_eq(&world.settle());
    let revisions: Vec<(String, String, Value)> = world
        .sets
        .values()
        .map(|s| {
            let annotations = &s["metadata"]["annotations"];
            (World::image_of(s), annotations[plan::REVISION].to_string(), annotations[plan::REVISION_HISTORY].clone())
        })
        .collect();
    assert!(revisions.contains(&("v1".into(), "\"3\"".into(), json!("1"))), "{revisions:?}");
    assert_eq!(world.deployment["metadata"]["annotations"][plan::REVISION], "3");
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut world = World::new(3, json!({"type": "Recreate"}));
    world.settle();
    world.set_image("v2");
    world.reconcile(&mut Vec::new());
    assert_eq!(world.sizes(), "v1=0");
    world.reconcile(&mut Vec::new());
    assert_eq!(world.sizes(), "v1=0", "its pods are still there");
    expect!["v1=0 | v1=0 v2=3"].assert_eq(&world.settle());
}

#[test]
fn scaling_halfway_keeps_the_proportions() {
    let mut world = World::new(10, rolling(json!(3), json!(2)));
    world.settle();
    world.broken = vec!["bad".into()];
    world.set_image("bad");
    world.settle();
    let check = |world: &mut World, replicas: i64, expected: Expect| {
        world.deployment["spec"]["replicas"] = replicas.into();
        world.touch();
        expected.assert_eq(&world.settle());
    };
    check(&mut world, 30, expect!["bad=5 v1=8 | bad=13 v1=20"]);
    check(&mut world, 5, expect!["bad=13 v1=20 | bad=3 v1=5 | bad=3 v1=3 | bad=5 v1=3"]);
    check(&mut world, 0, expect!["bad=5 v1=3 | bad=0 v1=0"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.settle();
    world.deployment["spec"]["paused"] = true.into();
    world.deployment["spec"]["replicas"] = 3.into();
    world.set_image("v2");
    expect!["v1=2 | v1=3"].assert_eq(&world.settle());
    assert!(world.conditions().contains("Progressing=Unknown DeploymentPaused"), "{}", world.conditions());
    world.deployment["spec"]["paused"] = false.into();
    world.touch();
    world.settle();
    assert_eq!(world.sizes(), "v1=0 v2=3");
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.deployment["spec"]["revisionHistoryLimit"] = 2.into();
    for version in 1..=6 {
        world.set_image(&format!("v{version}"));
        world.settle();
    }
    assert_eq!(world.sizes(), "v4=0 v5=0 v6=1");
}

#[test]
fn events_say_what_was_scaled_and_a_settled_plan_writes_nothing() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    let mut events = Vec::new();
    world.reconcile(&mut events);
    let name = world.sets.keys().next().unwrap().clone();
    assert_eq!(events, [format!("Scaled up replica set {name} from 0 to 2")]);
    world.settle();
    assert_eq!(world.plan(), Plan::default());
}
