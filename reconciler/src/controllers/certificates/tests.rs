//! Which requests are recognized, refused, approved and removed.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use tls::{Pin, RequestFacts};

use super::plan::{self, Addresses, Asked, Registered};

fn facts(name: &str, group: &str, names: &[&str]) -> RequestFacts {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    RequestFacts::of_pem(request.pem().unwrap().as_bytes()).unwrap()
}

fn request(signer: &str, user: &str, usages: &[&str], status: Value) -> CertificateSigningRequest {
    serde_json::from_value(json!({
        "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"request": "eA==", "signerName": signer, "usages": usages, "username": user, "groups": ["system:nodes"]},
        "status": status,
    }))
    .unwrap()
}

const CLIENT_USAGES: &[&str] = &["digital signature", "client auth"];
const SERVER_USAGES: &[&str] = &["digital signature", "server auth"];
const N1: &str = "system:node:n1";

fn recognized(signer: &str, user: &str, usages: &[&str], facts: &RequestFacts) -> Option<Asked> {
    plan::recognize(&request(signer, user, usages, Value::Null).spec, facts)
}

#[test]
fn nodes_ask_for_themselves_and_newcomers_for_a_node() {
    let node = || "n1".to_owned();
    let good = facts(N1, "system:nodes", &[]);
    let asked = |user| recognized(plan::NODE_CLIENT, user, CLIENT_USAGES, &good);
    assert_eq!(asked("system:bootstrap:abcdef"), Some(Asked::NodeClient { node: node() }));
    assert_eq!(asked(N1), Some(Asked::OwnClient { node: node() }));
    // A node that asks for another node's certificate is a newcomer like any other, and has not its right.
    assert_eq!(asked("system:node:n2"), Some(Asked::NodeClient { node: node() }));
    let serving = facts(N1, "system:nodes", &["n1"]);
    assert_eq!(recognized(plan::NODE_SERVING, N1, SERVER_USAGES, &serving), Some(Asked::OwnServing { node: node() }));
    assert_eq!(recognized(plan::NODE_SERVING, "system:node:n2", SERVER_USAGES, &serving), None);
}

#[test]
fn what_is_no_nodes_request_waits_for_a_human() {
    let none = |signer, usages, facts: &RequestFacts| assert_eq!(recognized(signer, N1, usages, facts), None);
    none(plan::NODE_CLIENT, CLIENT_USAGES, &facts(N1, "system:masters", &[]));
    none(plan::NODE_CLIENT, CLIENT_USAGES, &facts("jane", "system:nodes", &[]));
    none(plan::NODE_CLIENT, CLIENT_USAGES, &facts("system:node:", "system:nodes", &[]));
    none(plan::NODE_CLIENT, CLIENT_USAGES, &facts(N1, "system:nodes", &["n1"]));
    none(plan::NODE_CLIENT, &["digital signature", "client auth", "server auth"], &facts(N1, "system:nodes", &[]));
    none(plan::NODE_CLIENT, &["client auth", "cert sign"], &facts(N1, "system:nodes", &[]));
    none(plan::NODE_SERVING, SERVER_USAGES, &facts(N1, "system:nodes", &[]));
    none(plan::NODE_SERVING, CLIENT_USAGES, &facts(N1, "system:nodes", &["n1"]));
    none(plan::CLIENT, CLIENT_USAGES, &facts(N1, "system:nodes", &[]));
    none("kubernetes.io/legacy-unknown", CLIENT_USAGES, &facts(N1, "system:nodes", &[]));
    none("example.com/signer", CLIENT_USAGES, &facts(N1, "system:nodes", &[]));
}

#[test]
fn signers_sign_what_is_theirs_to_sign() {
    let objection = |signer, usages, facts: &RequestFacts| {
        plan::objection(&request(signer, "jane", usages, Value::Null).spec, facts).is_some()
    };
    let jane = facts("jane", "dev", &[]);
    assert!(!objection(plan::CLIENT, CLIENT_USAGES, &jane));
    assert!(objection(plan::CLIENT, SERVER_USAGES, &jane));
    assert!(objection(plan::NODE_CLIENT, CLIENT_USAGES, &jane));
    assert!(objection("kubernetes.io/legacy-unknown", CLIENT_USAGES, &jane), "approved or not, nobody signs it");
}

#[test]
fn a_name_belongs_to_the_key_it_was_registered_with() {
    let (own, foreign) = (Pin::of_key(b"own"), Pin::of_key(b"foreign"));
    let registered = |key: Option<Pin>| Registered { key: key.map(|k| k.to_string()), machine_id: "m7".into() };
    assert_eq!(plan::taken("n1", None, &own), None);
    assert_eq!(plan::taken("n1", Some(&registered(Some(own))), &own), None, "the same machine comes back");
    let why = plan::taken("n1", Some(&registered(Some(foreign))), &own).unwrap();
    assert!(why.contains("machine with id m7") && why.contains("kubectl delete node n1"), "{why}");
    assert!(plan::taken("n1", Some(&registered(None)), &own).is_some(), "a server's own node is nobody else's");
}

#[test]
fn serving_certificates_are_for_addresses_that_are_the_nodes_alone() {
    let known = Addresses {
        own: ["n1", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.96.0.1", "10.244.1.9", "127.0.0.1"]
            .map(String::from)
            .to_vec(),
        of_others: vec!["10.0.0.6".into()],
        of_services: vec!["10.0.0.7".into(), "10.96.0.1".into()],
        pod_ranges: vec!["10.244.0.0/16".into()],
    };
    let foreign = |names: &[&str]| plan::foreign_name("n1", &facts(N1, "system:nodes", names), &known);
    assert_eq!(foreign(&["n1", "10.0.0.5"]), None);
    for (name, why) in [
        ("10.0.0.99", "not among the addresses"),
        ("10.0.0.6", "also another node's"),
        ("10.0.0.7", "of an API server"),
        ("10.96.0.1", "of a Service"),
        ("10.244.1.9", "of pods"),
        ("127.0.0.1", "nobody's alone"),
        ("n2", "not the node's"),
        ("kubernetes.default.svc", "not the node's"),
        ("localhost", "not the node's"),
    ] {
        let told = foreign(&["n1", name]).unwrap_or_default();
        assert!(told.contains(why), "{name}: {told}");
    }
}

#[test]
fn requests_are_removed_when_nobody_needs_them() {
    let at = |request: &CertificateSigningRequest, ends: Option<&str>| {
        let ends = ends.map(|text| text.parse::<Timestamp>().unwrap().as_second());
        plan::remove_at(request, ends).map(|at| at.to_string())
    };
    let with = |status| request(plan::CLIENT, "jane", CLIENT_USAGES, status);
    assert_eq!(at(&with(Value::Null), None).as_deref(), Some("2026-01-02T00:00:00Z"));
    let decided = |kind: &str| {
        json!({"conditions": [
            {"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T06:00:00Z"},
        ]})
    };
    for kind in ["Approved", "Denied", "Failed"] {
        assert_eq!(at(&with(decided(kind)), None).as_deref(), Some("2026-01-01T07:00:00Z"), "{kind}");
    }
    assert_eq!(at(&with(decided("Approved")), Some("2026-01-01T06:30:00Z")).as_deref(), Some("2026-01-01T06:30:00Z"));
}
