//! What projections keep of objects as they come over the wire.

use serde_json::{Value, json};

use super::{ClaimSource, Pod};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

#[test]
fn a_pod_keeps_its_claims_and_no_other_volume() {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}});
    let pod = pod(json!({"volumes": [
        {"name": "token", "projected": {"sources": []}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
    ]}));
    let names: Vec<String> = pod.spec.volumes.iter().map(|v| v.claim_name("p")).collect();
    assert_eq!(names, ["mine", "p-scratch"]);
    assert!(matches!(pod.spec.volumes[1].claim, ClaimSource::Ephemeral(_)));
}

#[test]
fn a_daemons_pod_has_a_target_before_it_has_a_node() {
    let affinity = |values: Value| {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": values}]);
        let terms = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    };
    assert_eq!(pod(affinity(json!(["n1"]))).node_or_target(), Some("n1"));
    assert_eq!(pod(affinity(json!(["n1", "n2"]))).node_or_target(), None);
    assert_eq!(pod(json!({"affinity": {"podAffinity": {}}})).node_or_target(), None);
    let mut bound = affinity(json!(["n1"]));
    bound["nodeName"] = "n2".into();
    assert_eq!(pod(bound).node_or_target(), Some("n2"));
}
