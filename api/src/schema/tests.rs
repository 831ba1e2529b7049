//! The built-in schemas against facts of the API.

use super::*;

fn field(ty: &str, path: &str) -> Schema<'static> {
    let mut at = Schemas::builtin().type_named(ty).unwrap();
    for step in path.split('.').filter(|s| !s.is_empty()) {
        at = match step {
            "[]" => at.items().unwrap(),
            "{}" => at.values().unwrap(),
            name => at.field(name).unwrap_or_else(|| panic!("{ty} has no {name}")),
        };
    }
    at
}

const POD: &str = "io.k8s.api.core.v1.Pod";

#[test]
fn shapes_follow_the_types() {
    assert_eq!(field(POD, "").shape(), Shape::Object);
    assert_eq!(field(POD, "spec.containers").shape(), Shape::List);
    assert_eq!(field(POD, "spec.containers.[].name").shape(), Shape::String);
    assert_eq!(field(POD, "spec.nodeSelector").shape(), Shape::Map);
    assert_eq!(field(POD, "metadata.labels.{}").shape(), Shape::String);
    let limit = field(POD, "spec.containers.[].resources.limits.{}");
    assert!(limit.shape() == Shape::IntOrString && limit.is_quantity());
    let port = field(POD, "spec.containers.[].livenessProbe.httpGet.port");
    assert!(port.shape() == Shape::IntOrString && !port.is_quantity());
    assert_eq!(field("io.k8s.api.apps.v1.ControllerRevision", "data").shape(), Shape::Any);
    assert_eq!(field(POD, "metadata.creationTimestamp").format(), Some("date-time"));
}

#[test]
fn merge_rules_are_merged() {
    let containers = field(POD, "spec.containers");
    assert_eq!(containers.list_type(), ListType::Map);
    assert_eq!(containers.list_map_keys().collect::<Vec<_>>(), ["name"]);
    assert!(containers.patch_strategies().merge);
    assert_eq!(containers.patch_merge_key(), Some("name"));
    let ports = field(POD, "spec.containers.[].ports");
    assert_eq!(ports.list_map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.items().unwrap().field("protocol").unwrap().default(), Some(&Value::from("TCP")));
    assert!(field(POD, "spec.nodeSelector").map_is_atomic());
    assert!(field("io.k8s.api.apps.v1.Deployment", "spec.selector").map_is_atomic());
    assert!(!field("io.k8s.api.core.v1.PersistentVolume", "spec.claimRef").map_is_atomic());
    assert!(field("io.k8s.api.apps.v1.Deployment", "spec.strategy").patch_strategies().retain_keys);
    assert_eq!(field(POD, "metadata.finalizers").list_type(), ListType::Set);
}

#[test]
fn required_and_zero_values_are_known() {
    assert!(field(POD, "spec").is_required("containers"));
    assert_eq!(field(POD, "spec.containers").zero(), Zero::Null);
    assert_eq!(field(POD, "spec.hostNetwork").zero(), Zero::Drop);
    assert_eq!(field(POD, "spec.containers.[].name").zero(), Zero::Emit);
    assert_eq!(field("io.k8s.api.apps.v1.Deployment", "spec.replicas").zero(), Zero::Keep);
}

#[test]
fn descriptions_are_of_the_field_or_the_type() {
    assert!(field(POD, "").description().starts_with("Pod is a collection of containers"));
    assert!(field(POD, "spec").description().starts_with("Specification of the desired behavior of the pod."));
    assert_eq!(field(POD, "spec").type_name(), Some("io.k8s.api.core.v1.PodSpec"));
}

#[test]
fn recursion_in_types_is_finite() {
    let props = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    assert_eq!(field(props, "properties.{}.properties.{}.type").shape(), Shape::String);
}
