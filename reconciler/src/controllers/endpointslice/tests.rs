//! Slices over time: as few writes as possible, no slice over its limit, always one slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::expect;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{Input, Plan, Step, plan};
use crate::objects::{Node, Pod};

struct World {
    service: Value,
    pods: BTreeMap<String, Value>,
    slices: BTreeMap<String, Value>,
    count: usize,
}

impl World {
    fn new() -> Self {
        let service = json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "s", "labels": {"app": "web"}},
            "spec": {
                "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        });
        Self { service, pods: BTreeMap::new(), slices: BTreeMap::new(), count: 0 }
    }

    fn pod(&mut self, n: usize, ready: bool) {
        let pod = json!({
            "metadata": {"name": format!("p{n:03}"), "namespace": "a", "uid": format!("u{n}")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
            "status": {
                "phase": "Running", "podIP": format!("10.244.0.{n}"), "podIPs": [{"ip": format!("10.244.0.{n}")}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        });
        self.pods.insert(format!("p{n:03}"), pod);
    }

    fn plan(&self) -> Plan {
        let service: Service = serde_json::from_value(self.service.clone()).unwrap();
        let node = Arc::new(serde_json::from_value::<Node>(json!({"metadata": {"name": "n1"}})).unwrap());
        let pods = self.pods.values().map(|p| Arc::new(serde_json::from_value::<Pod>(p.clone()).unwrap()));
        let slices =
            self.slices.values().map(|s| Arc::new(serde_json::from_value::<EndpointSlice>(s.clone()).unwrap()));
        plan(&Input {
            service: &service,
            pods: pods.collect(),
            node: &|name| Some(node.clone()).filter(|_| name == "n1"),
            slices: slices.collect(),
        })
    }

    /// Applies the plan and shows what it did.
    fn step(&mut self) -> String {
        let mut out = Vec::new();
        for step in self.plan().steps {
            match step {
                Step::Create(mut slice) => {
                    self.count += 1;
                    let name = format!("web-{}", self.count);
                    out.push(format!("create {name}:{}", slice["endpoints"].as_array().unwrap().len()));
                    slice["metadata"]["name"] = name.clone().into();
                    slice["metadata"]["uid"] = name.clone().into();
                    self.slices.insert(name, slice);
                }
                Step::Patch(key, patch) => {
                    let slice = api::patch::merge(&self.slices[&key.name], &patch).unwrap();
                    out.push(format!("patch {}:{}", key.name, slice["endpoints"].as_array().unwrap().len()));
                    self.slices.insert(key.name, slice);
                }
                Step::Delete(key, _) => {
                    out.push(format!("delete {}", key.name));
                    self.slices.remove(&key.name);
                }
            }
        }
        out.join(", ")
    }
}

#[test]
fn an_endpoint_says_what_its_pod_is() {
    let mut world = World::new();
    world.pod(1, true);
    world.pods.get_mut("p001").unwrap()["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    world.step();
    let slice = &world.slices["web-1"];
    expect![[r#"{"addresses":["10.244.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true},"nodeName":"n1","targetRef":{"kind":"Pod","name":"p001","namespace":"a","uid":"u1"}}"#]]
        .assert_eq(&slice["endpoints"][0].to_string());
    expect![[r#"[{"name":"http","port":8080,"protocol":"TCP"}]"#]].assert_eq(&slice["ports"].to_string());
    expect![[r#"{"app":"web","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"web"}"#]]
        .assert_eq(&slice["metadata"]["labels"].to_string());
}

#[test]
fn slices_fill_shrink_and_vanish_with_few_writes() {
    let mut world = World::new();
    expect!["create web-1:0"].assert_eq(&world.step());
    expect![""].assert_eq(&world.step());
    (1..=120).for_each(|n| world.pod(n, true));
    expect!["create web-2:100, create web-3:20, delete web-1"].assert_eq(&world.step());
    expect![""].assert_eq(&world.step());
    // One becomes unready: one slice is written.
    world.pod(7, false);
    expect!["patch web-2:100"].assert_eq(&world.step());
    // Ten go, five come: the freed places are filled.
    (1..=10).for_each(|n| drop(world.pods.remove(&format!("p{n:03}"))));
    (121..=125).for_each(|n| world.pod(n, true));
    expect!["patch web-2:95"].assert_eq(&world.step());
    world.pods.clear();
    expect!["create web-4:0, delete web-2, delete web-3"].assert_eq(&world.step());
    expect![""].assert_eq(&world.step());
}

#[test]
fn other_ports_go_to_another_slice_and_labels_follow_the_service() {
    let mut world = World::new();
    (1..=3).for_each(|n| world.pod(n, true));
    world.pods.get_mut("p002").unwrap()["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();
    expect!["create web-1:2, create web-2:1"].assert_eq(&world.step());
    world.service["metadata"]["labels"] = json!({"tier": "front"});
    expect!["patch web-1:2, patch web-2:1"].assert_eq(&world.step());
    assert_eq!(world.slices["web-1"]["metadata"]["labels"].get("app"), None);
    // A pod made again under its name is another endpoint.
    world.pods.get_mut("p002").unwrap()["metadata"]["uid"] = "new".into();
    expect!["create web-3:1, delete web-2"].assert_eq(&world.step());
}

#[test]
fn a_pod_on_an_unknown_node_is_left_out() {
    let mut world = World::new();
    world.pod(1, true);
    world.pods.get_mut("p001").unwrap()["spec"]["nodeName"] = "gone".into();
    assert_eq!(world.plan().skipped, ["p001"]);
    world.service["spec"]["publishNotReadyAddresses"] = true.into();
    assert_eq!(world.plan().skipped, [""; 0]);
    expect!["create web-1:1"].assert_eq(&world.step());
}
