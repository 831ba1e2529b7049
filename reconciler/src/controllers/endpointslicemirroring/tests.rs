//! Endpoints and the slices that mirror them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{ADDRESSES_MAX, Plan, is_mirrored, plan};
use crate::controllers::endpointslice::plan::Step;

fn endpoints(subsets: Value) -> Endpoints {
    let metadata = json!({"name": "db", "namespace": "a", "uid": "u", "labels": {"app": "db"},
        "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}});
    serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
}

/// What the API server would store of a created slice.
fn stored(step: &Step, name: &str) -> Arc<EndpointSlice> {
    let Step::Create(value) = step else { panic!("{step:?} creates nothing") };
    let mut value = value.clone();
    value["metadata"]["name"] = name.into();
    value["metadata"]["namespace"] = "a".into();
    value["metadata"]["uid"] = name.into();
    Arc::new(serde_json::from_value(value).unwrap())
}

fn created(plan: &Plan) -> Vec<String> {
    let creations = plan.steps.iter().filter_map(|step| match step {
        Step::Create(value) => {
            let addresses: Vec<String> = value["endpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| {
                    format!(
                        "{}{}",
                        e["addresses"][0].as_str().unwrap(),
                        if e["conditions"]["ready"] == true { "+" } else { "-" }
                    )
                })
                .collect();
            Some(format!(
                "{} {}: {}",
                value["addressType"].as_str().unwrap(),
                value["ports"][0]["port"],
                addresses.join(" ")
            ))
        }
        _ => None,
    });
    creations.collect()
}

#[test]
fn one_slice_per_ports_and_family() {
    let found = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.3"}],
         "ports": [{"name": "sql", "port": 5432}]},
        {"addresses": [{"ip": "10.0.0.010"}, {"ip": "nowhere"}], "ports": [{"name": "web", "port": 80}]},
    ]));
    let plan = plan(&found, &[]);
    assert_eq!(created(&plan), ["IPv4 5432: 10.0.0.2+ 10.0.0.3-", "IPv4 80: 10.0.0.10+", "IPv6 5432: fd00::1+"]);
    assert_eq!((plan.invalid, plan.too_many), (1, 0));
    let Step::Create(first) = &plan.steps[0] else { panic!() };
    let labels = json!({"app": "db", "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"});
    assert_eq!((&first["metadata"]["labels"], &first["metadata"]["annotations"]), (&labels, &json!({"note": "x"})));
}

#[test]
fn a_slice_that_says_it_all_stays_as_it_is() {
    let subset = |ips: &[&str]| {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        endpoints(json!([{"addresses": addresses, "ports": [{"port": 80}]}]))
    };
    let first = plan(&subset(&["10.0.0.1", "10.0.0.2"]), &[]);
    let slice = stored(&first.steps[0], "db-1");
    assert_eq!(plan(&subset(&["10.0.0.2", "10.0.0.1"]), std::slice::from_ref(&slice)), Plan::default());
    let changed = plan(&subset(&["10.0.0.2"]), std::slice::from_ref(&slice));
    assert!(matches!(changed.steps.as_slice(), [Step::Patch(..)]), "{changed:?}");
    let twice = [slice.clone(), stored(&first.steps[0], "db-2")];
    assert!(matches!(plan(&subset(&["10.0.0.1", "10.0.0.2"]), &twice).steps.as_slice(), [Step::Delete(..)]));
    assert!(matches!(plan(&endpoints(json!([])), &[slice]).steps.as_slice(), [Step::Delete(..)]));
}

#[test]
fn the_number_of_addresses_is_limited() {
    let addresses: Vec<Value> =
        (0..ADDRESSES_MAX + 5).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
    let plan = plan(&endpoints(json!([{"addresses": addresses, "ports": [{"port": 80}]}])), &[]);
    assert_eq!(plan.too_many, 5);
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn some_endpoints_are_not_mirrored() {
    let mut skipped = endpoints(json!([]));
    assert!(is_mirrored(&skipped));
    skipped.metadata.labels = Some([("endpointslice.kubernetes.io/skip-mirror".into(), "true".into())].into());
    assert!(!is_mirrored(&skipped));
    let mut lock = endpoints(json!([]));
    lock.metadata.annotations = Some([("control-plane.alpha.kubernetes.io/leader".into(), "{}".into())].into());
    assert!(!is_mirrored(&lock));
}
