//! Devices for claims: which ones, or why none.

use std::sync::Arc;

use api_client::ObjectKey;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::objects::{DeviceClass, ResourceSlice};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// Node `n` with GPUs `a` and `b` of NUMA node 0 and `c` of 1; elsewhere `d`.
fn devices() -> Devices {
    let mut devices = Devices::default();
    let class = json!({ "metadata": { "name": "gpu" }, "spec": { "selectors": [{ "cel": { "expression": "device.driver == \"gpu.example.com\"" } }] } });
    devices.set_class("gpu", Some(read::<DeviceClass>(class)));
    let slice = |node: &str, names: &[(&str, i64)]| {
        let all: Vec<Value> = names
            .iter()
            .map(|(name, numa)| json!({ "name": name, "attributes": { "numa": { "int": numa } } }))
            .collect();
        read::<ResourceSlice>(
            json!({ "metadata": { "name": node }, "spec": { "driver": "gpu.example.com", "nodeName": node,
            "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 }, "devices": all } }),
        )
    };
    devices.set_slice("n", Some(slice("n", &[("a", 0), ("b", 0), ("c", 1)])));
    devices.set_slice("m", Some(slice("m", &[("d", 0)])));
    devices
}

fn claim(name: &str, spec: Value) -> Arc<ResourceClaim> {
    read(json!({ "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": { "devices": spec } }))
}

fn check(claims: &[Arc<ResourceClaim>], expected: Expect) {
    check_in(devices(), claims, expected);
}

fn check_in(mut devices: Devices, claims: &[Arc<ResourceClaim>], expected: Expect) {
    let refs: Vec<Value> =
        claims.iter().map(|c| json!({ "name": c.metadata.name, "resourceClaimName": c.metadata.name })).collect();
    for claim in claims {
        devices.set_claim(&ObjectKey::new("default", &*claim.metadata.name), Some(Arc::clone(claim)));
    }
    let pod: Arc<Pod> = read(
        json!({ "metadata": { "name": "p", "namespace": "default", "uid": "p" }, "spec": { "resourceClaims": refs } }),
    );
    let node: Arc<Node> = read(json!({ "metadata": { "name": "n" } }));
    let text = match State::new(&pod, &devices) {
        Err(rejection) => rejection.message,
        Ok(state) => match grants(&state, &devices, &node) {
            Err(refusal) => refusal.reasons.join(", "),
            Ok(grants) => {
                let text = |(request, (_, _, device), _): &(String, (String, String, String), bool)| {
                    format!("{request}={device}")
                };
                let one = |g: &Grant| g.devices.iter().map(text).collect::<Vec<_>>().join(" ");
                grants.iter().map(one).collect::<Vec<_>>().join("; ")
            }
        },
    };
    expected.assert_eq(&text);
}

fn gpus(count: usize) -> Value {
    json!({ "name": "gpus", "exactly": { "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count } })
}

#[test]
fn devices_of_the_node_are_given_once() {
    check(
        &[claim("one", json!({ "requests": [gpus(2)] })), claim("two", json!({ "requests": [gpus(1)] }))],
        expect!["gpus=a gpus=b; gpus=c"],
    );
    check(
        &[claim("one", json!({ "requests": [gpus(2)] })), claim("two", json!({ "requests": [gpus(2)] }))],
        expect!["cannot allocate all claims"],
    );
    let all = json!({ "name": "all", "exactly": { "deviceClassName": "gpu", "allocationMode": "All" } });
    check(&[claim("one", json!({ "requests": [all] }))], expect!["all=a all=b all=c"]);
}

#[test]
fn what_others_have_is_not_given() {
    let mut devices = devices();
    let theirs = json!({ "metadata": { "name": "theirs", "namespace": "default" }, "status": { "allocation": { "devices": {
        "results": [{ "request": "r", "driver": "gpu.example.com", "pool": "n", "device": "a" }] } } } });
    devices.set_claim(&ObjectKey::new("default", "theirs"), Some(read(theirs)));
    check_in(devices, &[claim("one", json!({ "requests": [gpus(2)] }))], expect!["gpus=b gpus=c"]);
}

#[test]
fn constraints_and_alternatives_are_searched() {
    let same = json!([{ "matchAttribute": "gpu.example.com/numa" }]);
    let two = |first: usize| json!({ "requests": [gpus(first), { "name": "more", "exactly": { "deviceClassName": "gpu", "count": 1 } }], "constraints": same });
    check(&[claim("one", two(1))], expect!["gpus=a more=b"]);
    check(&[claim("one", two(2))], expect!["cannot allocate all claims"]);
    let either = json!({ "requests": [{ "name": "r", "firstAvailable": [
        { "name": "big", "deviceClassName": "gpu", "count": 4 }, { "name": "small", "deviceClassName": "gpu", "count": 1 }] }] });
    check(&[claim("one", either)], expect!["r/small=a"]);
}

fn picky(expression: &str) -> Arc<ResourceClaim> {
    let selectors = json!([{ "cel": { "expression": expression } }]);
    claim(
        "one",
        json!({ "requests": [{ "name": "r", "exactly": { "deviceClassName": "gpu", "selectors": selectors } }] }),
    )
}

#[test]
fn selectors_see_attributes_and_capacity() {
    let mut devices = devices();
    let slice = json!({ "metadata": { "name": "more" }, "spec": { "driver": "gpu.example.com", "nodeName": "n",
        "pool": { "name": "more", "generation": 1, "resourceSliceCount": 1 },
        "devices": [{ "name": "x", "attributes": { "numa": { "int": 2 }, "other.example.com/v": { "version": "1.2.3" } },
            "capacity": { "memory": { "value": "40Gi" } } }] } });
    devices.set_slice("more", Some(read::<ResourceSlice>(slice)));
    let check = |expression: &str, expected: Expect| check_in(devices.clone(), &[picky(expression)], expected);
    check("device.attributes['gpu.example.com'].numa == 1", expect!["r=c"]);
    check(
        "device.capacity['gpu.example.com'].?memory.orValue(quantity('0')).isGreaterThan(quantity('39Gi'))",
        expect!["r=x"],
    );
    check(
        "'v' in device.attributes['other.example.com'] \
            && device.attributes['other.example.com'].v.isGreaterThan(semver('1.2.0'))",
        expect!["r=x"],
    );
    check("cel.bind(d, device.attributes['gpu.example.com'], d.numa > 1)", expect!["r=x"]);
    check("device.driver == 'none.example.com'", expect!["cannot allocate all claims"]);
}

#[test]
fn what_is_wrong_is_said() {
    check(
        &[picky("device.attributes['x'].y")],
        expect!["claim default/one: request r: CEL runtime error: no such key: y"],
    );
    check(
        &[picky("device.colour == 'red'")],
        expect![[r#"
            claim default/one: request r: CEL runtime error: compilation failed: ERROR: <input>:1:7: undefined field 'colour'
             | device.colour == 'red'
             | ......^"#]],
    );
    let unknown = json!({ "requests": [{ "name": "r", "exactly": { "deviceClassName": "fpga" } }] });
    check(&[claim("one", unknown)], expect!["request r: device class fpga does not exist"]);
}
