//! Stateful sets played through on made-up objects: each reconcile's steps are applied and shown, then pods come up or
//! go, until nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use super::plan::{self, Input, Plan, Revision, Step, revision_of};
use crate::objects::Pod;

struct World {
    set: Value,
    pods: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
    /// Images whose pods never become ready.
    broken: Vec<&'static str>,
    uids: u32,
    now: Timestamp,
}

impl World {
    fn new(replicas: i32, spec: Value) -> Self {
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "a", "uid": "set", "generation": 1},
            "spec": {
                "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
            },
        });
        let set = api::patch::merge(&set, &json!({"spec": spec})).unwrap();
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        Self { set, pods: BTreeMap::new(), claims: BTreeMap::new(), broken: vec![], uids: 0, now }
    }

    fn with_claims(replicas: i32, retention: Value) -> Self {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let policy = json!({"whenDeleted": retention[0], "whenScaled": retention[1]});
        Self::new(replicas, json!({"volumeClaimTemplates": [claim], "persistentVolumeClaimRetentionPolicy": policy}))
    }

    fn spec(&mut self, patch: Value) -> &mut Self {
        self.set = api::patch::merge(&self.set, &json!({"spec": patch})).unwrap();
        self
    }

    fn image(&mut self, image: &str) -> &mut Self {
        self.spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}))
    }

    fn plan(&self) -> Plan {
        let set: StatefulSet = serde_json::from_value(self.set.clone()).unwrap();
        let pods: Vec<Arc<Pod>> =
            self.pods.values().map(|p| Arc::new(serde_json::from_value(p.clone()).unwrap())).collect();
        let claim = |name: &str| self.claims.get(name).map(|c| Arc::new(serde_json::from_value(c.clone()).unwrap()));
        // Revisions are named after the image of their template.
        let image = |template: &Value| template["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        let update = image(&self.set["spec"]["template"]);
        let current = self.set["status"]["currentRevision"].as_str().unwrap_or(&update).to_owned();
        let template = |image: &str| -> PodTemplateSpec {
            let mut template = self.set["spec"]["template"].clone();
            template["spec"]["containers"][0]["image"] = image.into();
            serde_json::from_value(template).unwrap()
        };
        let (current_template, update_template) = (template(&current), template(&update));
        plan::plan(&Input {
            set: &set,
            pods: &pods,
            claim: &claim,
            current: Revision { name: &current, template: &current_template },
            update: Revision { name: &update, template: &update_template },
            collisions: 0,
            clock: self.now.into(),
        })
    }

    fn apply(&mut self, step: Step) -> String {
        match step {
            Step::CreateClaim { name, mut object, .. } => {
                let owners = owners(&object);
                object["metadata"]["uid"] = format!("{name}-uid").into();
                self.claims.insert(name.clone(), object);
                format!("+{name}{owners}")
            }
            Step::OwnClaim { key, patch, .. } => {
                let claim = api::patch::merge(&self.claims[&key.name], &patch).unwrap();
                let owners = owners(&claim);
                self.claims.insert(key.name.clone(), claim);
                format!("own {}{owners}", key.name)
            }
            Step::CreatePod { name, mut object } => {
                self.uids += 1;
                let revision = object["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap().to_owned();
                object["metadata"]["uid"] = format!("uid{}", self.uids).into();
                object["status"] = json!({"phase": "Pending"});
                self.pods.insert(name.clone(), object);
                format!("+{name}@{revision}")
            }
            Step::PatchPod { key, patch } => {
                let pod = api::patch::merge(&self.pods[&key.name], &patch).unwrap();
                self.pods.insert(key.name.clone(), pod);
                format!("label {}", key.name)
            }
            Step::DeletePod(pod) => {
                let name = pod.metadata.name.clone();
                self.pods.get_mut(&name).unwrap()["metadata"]["deletionTimestamp"] = self.now.to_string().into();
                format!("-{name}")
            }
            Step::Warn { reason, .. } => reason.to_owned(),
            Step::Fail { pod, why, .. } => format!("{pod}: {why}"),
        }
    }

    /// One reconcile; what it did.
    fn reconcile(&mut self) -> Vec<String> {
        let plan = self.plan();
        let mut done = Vec::new();
        'work: for stage in plan.stages {
            for step in stage.into_iter().flatten() {
                let failed = matches!(step, Step::Fail { .. });
                done.push(self.apply(step));
                if failed {
                    break 'work;
                }
            }
        }
        if let Some(patch) = plan.status {
            self.set = api::patch::merge(&self.set, &patch).unwrap();
        }
        done
    }

    /// Deleted pods go, others start; those of healthy images are ready.
    fn kubelet(&mut self) -> bool {
        let before = self.pods.clone();
        self.pods.retain(|_, pod| pod["metadata"]["deletionTimestamp"].is_null());
        for pod in self.pods.values_mut().filter(|pod| pod["status"]["phase"] == "Pending") {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            let ready = if self.broken.contains(&image) { "False" } else { "True" };
            let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": self.now.to_string()});
            pod["status"] = json!({"phase": "Running", "conditions": [condition]});
        }
        self.pods != before
    }

    /// Reconciles until nothing changes.
    fn settle(&mut self) -> String {
        let mut seen = Vec::new();
        for _ in 0..100 {
            let status = self.set["status"].clone();
            let done = self.reconcile();
            let wrote = !done.is_empty() || self.set["status"] != status;
            if !done.is_empty() {
                seen.push(done.join(" "));
            }
            if !self.kubelet() && !wrote {
                return seen.join(" | ");
            }
        }
        panic!("does not settle: {}", seen.join(" | "));
    }

    /// Like [`World::settle`], for what is tried again and again.
    fn once(&mut self) -> String {
        let done = self.reconcile().join(" ");
        self.kubelet();
        done
    }

    fn check(&mut self, expected: Expect) -> &mut Self {
        expected.assert_eq(&self.settle());
        self
    }

    fn status(&self) -> String {
        let status = &self.set["status"];
        let fields = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        let counts: Vec<String> = fields.iter().map(|f| status[f].as_i64().unwrap_or_default().to_string()).collect();
        let revision = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}>{}", counts.join("/"), revision("currentRevision"), revision("updateRevision"))
    }
}

fn owners(claim: &Value) -> String {
    let owners = claim["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let owners: Vec<&str> = owners.map(|o| o["name"].as_str().unwrap()).collect();
    if owners.is_empty() { String::new() } else { format!("({})", owners.join(",")) }
}

#[test]
fn an_ordered_set_grows_and_shrinks_one_by_one() {
    let mut world = World::new(3, json!({}));
    world.check(expect!["+db-0@v1 | +db-1@v1 | +db-2@v1"]);
    assert_eq!(world.status(), "3/3/3/3/3 v1>v1");
    world.spec(json!({"replicas": 1})).check(expect!["-db-2 | -db-1"]);
    assert_eq!(world.status(), "1/1/1/1/1 v1>v1");
}

#[test]
fn a_parallel_set_does_all_at_once() {
    let mut world = World::new(3, json!({"podManagementPolicy": "Parallel"}));
    world.check(expect!["+db-0@v1 +db-1@v1 +db-2@v1"]);
    world.spec(json!({"replicas": 1})).check(expect!["-db-2 -db-1"]);
}

#[test]
fn ordinals_may_start_anywhere_and_move() {
    let mut world = World::new(2, json!({"ordinals": {"start": 5}}));
    world.check(expect!["+db-5@v1 | +db-6@v1"]);
    world.spec(json!({"ordinals": {"start": 6}})).check(expect!["+db-7@v1 | -db-5"]);
    world.spec(json!({"ordinals": null})).check(expect!["+db-0@v1 | +db-1@v1 | -db-7 | -db-6"]);
}

#[test]
fn a_pod_knows_its_name_place_and_claim() {
    let mut world = World::with_claims(1, json!(["Retain", "Retain"]));
    world.reconcile();
    let pod = &world.pods["db-0"];
    expect![[r#"{"app":"db","apps.kubernetes.io/pod-index":"0","controller-revision-hash":"v1","statefulset.kubernetes.io/pod-name":"db-0"}"#]]
        .assert_eq(&pod["metadata"]["labels"].to_string());
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-0"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
    assert_eq!(pod["metadata"]["generateName"], Value::Null);
    let claim = &world.claims["data-db-0"];
    assert_eq!(claim["metadata"]["labels"], json!({"app": "db"}));
}

#[test]
fn an_update_goes_from_the_highest_down_and_completes() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.image("v2").check(expect!["-db-2 | +db-2@v2 | -db-1 | +db-1@v2 | -db-0 | +db-0@v2"]);
    assert_eq!(world.status(), "3/3/3/3/3 v2>v2");
}

#[test]
fn a_partition_holds_the_lower_ones_back_also_when_they_are_made_again() {
    let mut world = World::new(3, json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    world.settle();
    world.image("v2").check(expect!["-db-2 | +db-2@v2"]);
    assert_eq!(world.status(), "3/3/3/2/1 v1>v2");
    world.pods.retain(|name, _| name == "db-1");
    world.check(expect!["+db-0@v1 | +db-2@v2"]);
    world.spec(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    world.check(expect!["-db-1 | +db-1@v2 | -db-0 | +db-0@v2"]);
    assert_eq!(world.status(), "3/3/3/3/3 v2>v2");
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut world = World::new(2, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.settle();
    world.image("v2").check(expect![""]);
    assert_eq!(world.status(), "2/2/2/2/0 v1>v2");
    world.pods.remove("db-0");
    world.check(expect!["+db-0@v2"]);
    assert_eq!(world.status(), "2/2/2/1/1 v1>v2");
}

#[test]
fn a_broken_update_stands_until_its_pod_is_deleted() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.broken = vec!["bad"];
    world.image("bad").check(expect!["-db-2 | +db-2@bad"]);
    // Putting the template right is not enough: an ordered set waits for the broken pod, as upstream's does.
    world.image("v1").check(expect![""]);
    world.pods.remove("db-2");
    world.check(expect!["+db-2@v1"]);
    assert_eq!(world.status(), "3/3/3/3/3 v1>v1");
}

#[test]
fn more_than_one_may_be_unavailable() {
    let strategy = |unavailable: Value| json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": unavailable}}});
    let mut world = World::new(4, strategy(json!(2)));
    world.spec(json!({"podManagementPolicy": "Parallel"})).settle();
    world.image("v2").check(expect!["-db-3 -db-2 | +db-2@v2 +db-3@v2 | -db-1 -db-0 | +db-0@v2 +db-1@v2"]);
    world.spec(strategy(json!("75%")));
    world.image("v3").check(expect!["-db-3 -db-2 -db-1 | +db-1@v3 +db-2@v3 +db-3@v3 | -db-0 | +db-0@v3"]);
}

#[test]
fn ended_pods_are_made_again_whatever_their_exit() {
    let mut world = World::new(1, json!({}));
    for phase in ["Failed", "Succeeded"] {
        world.settle();
        world.pods.get_mut("db-0").unwrap()["status"]["phase"] = phase.into();
        world.check(expect!["-db-0 | +db-0@v1"]);
    }
}

#[test]
fn scaling_down_takes_an_unwell_pod_in_its_turn() {
    let mut world = World::new(3, json!({}));
    world.settle();
    world.pods.get_mut("db-1").unwrap()["status"]["conditions"][0]["status"] = "False".into();
    world.spec(json!({"replicas": 1}));
    assert_eq!(world.once(), "-db-2");
    assert_eq!(world.once(), "-db-1");
    // A living replica that is unwell holds everything up.
    let mut world = World::new(3, json!({}));
    world.settle();
    world.pods.get_mut("db-0").unwrap()["status"]["conditions"][0]["status"] = "False".into();
    world.spec(json!({"replicas": 1})).check(expect![""]);
}

#[test]
fn availability_takes_its_time() {
    let mut world = World::new(2, json!({"minReadySeconds": 10}));
    assert_eq!(world.once(), "+db-0@v1");
    assert_eq!(world.once(), "");
    assert_eq!(world.status(), "1/1/0/1/1 v1>v1");
    assert_eq!(world.plan().check_after, Some(Duration::from_secs(10)));
    world.now += Duration::from_secs(10);
    assert_eq!(world.once(), "+db-1@v1");
}

#[test]
fn a_lost_identity_is_restored_and_foreign_volumes_are_refused() {
    let mut world = World::with_claims(1, json!(["Retain", "Retain"]));
    world.settle();
    api::meta::object_mut(&mut world.pods.get_mut("db-0").unwrap()["metadata"]["labels"])
        .remove("statefulset.kubernetes.io/pod-name");
    world.check(expect!["label db-0"]);
    world.pods.get_mut("db-0").unwrap()["spec"]["volumes"] = json!([]);
    expect!["db-0: its volumes are not the claims of the set, and volumes of a pod can't change"]
        .assert_eq(&world.once());
}

#[test]
fn claims_outlive_the_set_or_go_with_it() {
    let check = |retention: Value, grown: Expect, shrunk: Expect, regrown: Expect| {
        let mut world = World::with_claims(2, retention);
        world.check(grown);
        world.spec(json!({"replicas": 1})).check(shrunk);
        // What its pod owned goes with the pod.
        let pods: Vec<&String> = world.pods.keys().collect();
        let gone = |claim: &Value| {
            let owners = claim["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            owners.clone().any(|o| o["kind"] == "Pod" && !pods.iter().any(|p| o["name"] == p.as_str()))
        };
        world.claims.retain(|_, claim| !gone(claim));
        world.spec(json!({"replicas": 2})).check(regrown);
    };
    check(
        json!(["Retain", "Retain"]),
        expect!["+data-db-0 +db-0@v1 | +data-db-1 +db-1@v1"],
        expect!["-db-1"],
        expect!["+db-1@v1"],
    );
    check(
        json!(["Delete", "Retain"]),
        expect!["+data-db-0(db) +db-0@v1 | +data-db-1(db) +db-1@v1"],
        expect!["-db-1"],
        expect!["+db-1@v1"],
    );
    check(
        json!(["Retain", "Delete"]),
        expect!["+data-db-0 +db-0@v1 | +data-db-1 +db-1@v1"],
        expect!["own data-db-1(db-1) -db-1"],
        expect!["+data-db-1 +db-1@v1"],
    );
    check(
        json!(["Delete", "Delete"]),
        expect!["+data-db-0(db) +db-0@v1 | +data-db-1(db) +db-1@v1"],
        expect!["own data-db-1(db-1) -db-1"],
        expect!["+data-db-1(db) +db-1@v1"],
    );
}

#[test]
fn a_policy_that_changes_changes_the_owners() {
    let mut world = World::with_claims(1, json!(["Retain", "Retain"]));
    world.settle();
    let policy = |deleted: &str| json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted}});
    world.spec(policy("Delete")).check(expect!["own data-db-0(db)"]);
    world.spec(policy("Retain")).check(expect!["own data-db-0"]);
}

#[test]
fn a_claim_of_an_earlier_pod_is_waited_for() {
    let mut world = World::with_claims(1, json!(["Retain", "Delete"]));
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "earlier", "controller": true}]);
    let claim = json!({"metadata": {"name": "data-db-0", "namespace": "a", "ownerReferences": owner}});
    world.claims.insert("data-db-0".into(), claim);
    world.check(expect![""]);
    world.claims.clear();
    world.check(expect!["+data-db-0 +db-0@v1"]);
}

#[test]
fn another_controllers_claim_is_let_go() {
    let mut world = World::with_claims(1, json!(["Delete", "Retain"]));
    world.settle();
    let other = json!({"apiVersion": "x/v1", "kind": "Backup", "name": "b", "uid": "b", "controller": true});
    let claim = world.claims.get_mut("data-db-0").unwrap();
    claim["metadata"]["ownerReferences"].as_array_mut().unwrap().push(other);
    world.check(expect!["ConflictingController own data-db-0(b)"]);
}

#[test]
fn a_claim_on_its_way_out_is_no_claim() {
    let mut world = World::with_claims(1, json!(["Retain", "Retain"]));
    let claim =
        json!({"metadata": {"name": "data-db-0", "namespace": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    world.claims.insert("data-db-0".into(), claim);
    assert_eq!(world.once(), "db-0: pvc data-db-0 is being deleted");
    world.claims.clear();
    world.check(expect!["+data-db-0 +db-0@v1"]);
}

#[test]
fn a_set_being_deleted_only_counts() {
    let mut world = World::new(2, json!({}));
    world.settle();
    world.set["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z".into();
    world.pods.remove("db-1");
    world.check(expect![""]);
    assert_eq!(world.status(), "1/1/1/1/1 v1>v1");
}

#[test]
fn pods_with_other_names_are_nobodys() {
    let mut world = World::new(1, json!({}));
    world.settle();
    let mut stranger = world.pods["db-0"].clone();
    stranger["metadata"]["name"] = "db-99999999999".into();
    world.pods.insert("db-99999999999".into(), stranger);
    world.check(expect![""]);
    let pod: Pod = serde_json::from_value(world.pods["db-0"].clone()).unwrap();
    assert_eq!(revision_of(&pod), "v1");
}
