//! Managers that write in different versions of one resource.

use serde_json::{Value, json};

use super::Server;
use crate::apply::{Request, Served, Update, apply, track};
use crate::catalogue::Catalogue;
use crate::conversion::convert;

/// One horizontal pod autoscaler, written in both of its versions; stored in v2.
struct Autoscaler {
    live: Option<Value>,
    seconds: i64,
}

impl Autoscaler {
    fn in_version(version: &str, live: Option<&Value>, run: impl FnOnce(Option<&Value>, Served<'_>) -> Value) -> Value {
        let catalogue = Catalogue::builtin();
        let row = |version: &str| catalogue.find("autoscaling", version, "horizontalpodautoscalers").expect("a row");
        let there = live.map(|live| convert(live.clone(), row("v2"), row(version)));
        let object = run(there.as_ref(), Served { catalogue: &catalogue, resource: row(version) });
        convert(object, row(version), row("v2"))
    }

    fn write(&mut self, manager: &str, version: &'static str, change: impl FnOnce(&mut Value)) {
        self.seconds += 1;
        let seconds = self.seconds;
        let object = Self::in_version(version, self.live.as_ref(), |live, served| {
            let api_version = served.resource.api_version();
            let mut new = live.cloned().unwrap_or_else(
                || json!({"apiVersion": api_version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}}),
            );
            change(&mut new);
            track(Update {
                schema: served.resource.schema(),
                live,
                new: &mut new,
                manager,
                api_version: &api_version,
                subresource: "",
                now: jiff::Timestamp::from_second(super::START + seconds).expect("in range"),
                reset_fields: &["status"],
                only_fields: &[],
                versions: Some(&served),
            });
            new["metadata"]["uid"] = "u".into();
            new
        });
        self.live = Some(object);
    }

    fn apply(&mut self, manager: &str, version: &'static str, spec: Value) -> Result<(), String> {
        self.seconds += 1;
        let seconds = self.seconds;
        let mut error = None;
        let object = Self::in_version(version, self.live.as_ref(), |live, served| {
            let api_version = served.resource.api_version();
            let config = json!({"apiVersion": api_version, "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "a"}, "spec": spec});
            let outcome = apply(Request {
                schema: served.resource.schema(),
                live,
                config: &config,
                manager,
                force: false,
                api_version: &api_version,
                kind: "HorizontalPodAutoscaler",
                subresource: "",
                now: jiff::Timestamp::from_second(super::START + seconds).expect("in range"),
                reset_fields: &["status"],
                only_fields: &[],
                versions: Some(&served),
            });
            match outcome {
                Ok(object) => object,
                Err(why) => {
                    error = Some(why.to_string());
                    live.cloned().unwrap_or_default()
                }
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        self.live = Some(object);
        Ok(())
    }

    fn owners(&self) -> Vec<String> {
        let entries = self.live.as_ref().and_then(|o| o["metadata"]["managedFields"].as_array());
        let line = |entry: &Value| {
            format!("{} {}", entry["apiVersion"].as_str().unwrap_or_default(), super::owner_line(entry))
        };
        entries.into_iter().flatten().map(line).collect()
    }
}

fn autoscaler() -> Autoscaler {
    Autoscaler { live: None, seconds: 0 }
}

const CPU_IN_V2: &str =
    r#"{"resource":{"name":"cpu","target":{"averageUtilization":50,"type":"Utilization"}},"type":"Resource"}"#;

#[test]
fn a_field_is_taken_from_its_owner_in_another_version() {
    let mut hpa = autoscaler();
    hpa.write("old", "v1", |new| {
        new["spec"] = json!({"maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    });
    let fields = r#"{"f:spec":{"f:maxReplicas":{},"f:minReplicas":{},"f:scaleTargetRef":{},"f:targetCPUUtilizationPercentage":{}}}"#;
    assert_eq!(hpa.owners(), [format!("autoscaling/v1 old Update 1s {fields}")]);
    hpa.write("new", "v2", |new| {
        new["spec"]["maxReplicas"] = 5.into();
        new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 70.into();
    });
    let fields = r#"{"f:spec":{"f:minReplicas":{},"f:scaleTargetRef":{}}}"#;
    assert_eq!(
        hpa.owners(),
        [
            format!("autoscaling/v1 old Update 1s {fields}"),
            r#"autoscaling/v2 new Update 2s {"f:spec":{"f:maxReplicas":{},"f:metrics":{}}}"#.to_owned(),
        ]
    );
}

#[test]
fn conflicts_and_removal_work_across_versions() {
    let mut hpa = autoscaler();
    let target = json!({"kind": "Deployment", "name": "d"});
    let metrics: Value = serde_json::from_str(CPU_IN_V2).expect("json");
    hpa.apply("m1", "v2", json!({"maxReplicas": 3, "minReplicas": 2, "scaleTargetRef": target, "metrics": [metrics]}))
        .expect("created");
    let error = hpa.apply("m2", "v1", json!({"maxReplicas": 4})).expect_err("a conflict");
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"m1\": .spec.maxReplicas");
    // The same manager goes to v1 and gives up the lower limit; its entry moves along.
    hpa.apply("m1", "v1", json!({"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}))
        .expect("no conflict");
    let live = hpa.live.clone().expect("stored");
    assert_eq!(live["spec"]["minReplicas"], Value::Null);
    assert_eq!(live["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let owners = hpa.owners();
    assert_eq!(owners.len(), 1);
    assert!(owners[0].starts_with("autoscaling/v1 m1 Apply 3s"), "{owners:?}");
}

#[test]
fn versions_that_are_gone_own_nothing() {
    let mut hpa = autoscaler();
    hpa.write("m", "v2", |new| new["spec"] = json!({"maxReplicas": 3}));
    let live = hpa.live.as_mut().expect("stored");
    let entries = live["metadata"]["managedFields"].as_array_mut().expect("entries");
    let mut old = entries[0].clone();
    old["apiVersion"] = "autoscaling/v2beta1".into();
    entries.push(old);
    hpa.write("m", "v2", |new| new["spec"]["maxReplicas"] = 4.into());
    assert_eq!(hpa.owners(), [r#"autoscaling/v2 m Update 2s {"f:spec":{"f:maxReplicas":{}}}"#]);
}

#[test]
fn without_conversion_other_versions_have_the_same_shape() {
    let mut server = Server::config_map();
    server.put("m1", json!({"data": {"k": "v"}}));
    server.live.as_mut().expect("stored")["metadata"]["managedFields"][0]["apiVersion"] = "v0".into();
    server.put("m2", json!({"data": {"k": "w"}}));
    server.check_owners(&[r#"m1 Update 1s {"f:data":{}}"#, r#"m2 Update 2s {"f:data":{"f:k":{}}}"#]);
}
