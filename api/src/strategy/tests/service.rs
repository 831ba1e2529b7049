//! Services, and what the allocators ask about them.
use super::*;
use crate::strategy::service::allocation;

fn service(spec: Value) -> Result<Value, Vec<(String, String)>> {
    create("", "services", json!({"spec": spec}))
}

fn addressed(fields: Value) -> Value {
    let mut spec = json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().append(fields.as_object().cloned().as_mut().unwrap());
    spec
}

#[test]
fn defaults() {
    let made = service(addressed(json!({}))).unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(
        (&spec["type"], &spec["sessionAffinity"], &spec["internalTrafficPolicy"]),
        (&json!("ClusterIP"), &json!("None"), &json!("Cluster"))
    );
    let made = service(addressed(json!({"type": "LoadBalancer"}))).unwrap();
    assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], true);
    let made = service(addressed(json!({"sessionAffinity": "ClientIP"}))).unwrap();
    assert_eq!(made["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
}

#[test]
fn refusals() {
    refused(service(addressed(json!({"type": "Odd"}))), &[("NotSupported", "spec.type")]);
    refused(service(addressed(json!({"ports": []}))), &[("Required", "spec.ports")]);
    refused(
        service(addressed(json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}))),
        &[("Required", "spec.ports[0].name")],
    );
    refused(service(json!({"type": "ExternalName"})), &[("Required", "spec.externalName")]);
}

#[test]
fn the_address_stays_while_the_type_has_one() {
    let old = service(addressed(json!({}))).unwrap();
    let target = ("", "services", "");
    let moved = update(target, &old, |new| {
        new["spec"]["clusterIP"] = "10.96.0.10".into();
        new["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
    });
    refused(moved, &[("Invalid", "spec.clusterIPs[0]")]);
    let mut spec = json!({"type": "ExternalName", "externalName": "x.example"});
    allocation::normalize(&mut spec, Some(&old["spec"]));
    assert!(!allocation::needs_cluster_ip(&spec) && spec.get("clusterIP").is_none());
}

#[test]
fn node_ports_follow_the_type() {
    for (kind, needed) in [("ClusterIP", false), ("NodePort", true), ("LoadBalancer", true)] {
        assert_eq!(allocation::needs_node_ports(&json!({"type": kind})), needed, "{kind}");
    }
    let without = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    assert!(!allocation::needs_node_ports(&without));
}

#[test]
fn ranges_and_addresses() {
    const GROUP: &str = "networking.k8s.io";
    let range = |cidrs: Value| create(GROUP, "servicecidrs", json!({"spec": {"cidrs": cidrs}}));
    let made = range(json!(["10.0.0.0/24"])).unwrap();
    refused(range(json!([])), &[("Required", "spec.cidrs")]);
    refused(range(json!(["10.0.0.1/24"])), &[("Invalid", "spec.cidrs[0]")]);
    refused(range(json!(["10.0.0.0/24", "10.1.0.0/24"])), &[("Invalid", "spec.cidrs")]);
    let set = |cidrs: Value| update((GROUP, "servicecidrs", ""), &made, |new| new["spec"]["cidrs"] = cidrs);
    assert!(set(json!(["10.0.0.0/24", "2001:db8::/64"])).is_ok());
    refused(set(json!(["10.1.0.0/24"])), &[("Invalid", "spec.cidrs[0]")]);

    let parent = json!({"resource": "services", "namespace": "ns", "name": "a"});
    let address =
        |name: &str| create(GROUP, "ipaddresses", json!({"metadata": {"name": name}, "spec": {"parentRef": parent}}));
    assert!(address("10.0.0.7").is_ok());
    refused(address("ten"), &[("Invalid", "metadata.name")]);
}
