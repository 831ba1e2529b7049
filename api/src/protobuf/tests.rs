//! Bodies as upstream's clients write them, and both ways.

use serde_json::json;

use super::*;
use crate::schema::Schemas;

fn schema(name: &str) -> Schema<'static> {
    Schemas::builtin().type_named(name).unwrap()
}

/// Encodes, decodes, and checks that the JSON form's own settling gives the same.
fn round_trip(ty: &str, object: Value) {
    let settled = decode::value(schema(ty), object, FieldValidation::Strict).unwrap().object;
    let bytes = encode(schema(ty), &settled);
    let decoded = decode(schema(ty), &bytes).unwrap();
    assert_eq!(decoded.object, settled);
}

/// A recorded body.
fn recorded(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap()).collect()
}

#[test]
fn bodies_of_kubectl_are_read() {
    // kubectl create ns foo
    let body = recorded(
        "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a020a001a002200",
    );
    assert_eq!(type_meta(&body).unwrap(), TypeMeta { api_version: "v1".to_owned(), kind: "Namespace".to_owned() });
    let decoded = decode(schema("io.k8s.api.core.v1.Namespace"), &body).unwrap();
    let want = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"}, "spec": {}, "status": {}});
    assert_eq!(decoded.object, want);
    // kubectl create deployment web --image=i --replicas=0 --port 80 -n d
    let body = recorded(
        "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b0010a200a0377656212001a016422002a003200380042005a0a0a036170701203776562127e0800120c0a0a0a0361707012037765621a640a1c0a0012001a0022002a003200380042005a0a0a036170701203776562124412260a01691201692a00320a0a001000185022002a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800100018002000280038001a002200",
    );
    let decoded = decode(schema("io.k8s.api.apps.v1.Deployment"), &body).unwrap();
    let want = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "labels": {"app": "web"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "i", "image": "i", "ports": [{"containerPort": 80}], "resources": {}}]}}},
        "status": {}});
    assert_eq!(decoded.object, want);
    // kubectl create service clusterip c --tcp=80:8080 -n d
    let body = recorded(
        "6b3873000a0d0a02763112075365727669636512640a1c0a016312001a016422002a003200380042005a080a0361707012016312400a1b0a0738302d38303830120354435018502207080010903f1a00280012080a036170701201631a002209436c757374657249503a00420052005a00600068001a020a001a002200",
    );
    let decoded = decode(schema("io.k8s.api.core.v1.Service"), &body).unwrap();
    let port = json!([{"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}]);
    assert_eq!(decoded.object["spec"], json!({"ports": port, "selector": {"app": "c"}, "type": "ClusterIP"}));
    // kubectl create quota q --hard=cpu=1,memory=1G -n d
    let body = recorded(
        "6b3873000a130a027631120d5265736f7572636551756f746112340a120a017112001a016422002a00320038004200121c0a0a0a0363707512030a01310a0e0a066d656d6f727912040a0231471a001a002200",
    );
    let decoded = decode(schema("io.k8s.api.core.v1.ResourceQuota"), &body).unwrap();
    assert_eq!(decoded.object["spec"], json!({"hard": {"cpu": "1", "memory": "1G"}}));
}

#[test]
fn objects_survive_both_ways() {
    round_trip(
        "io.k8s.api.core.v1.Pod",
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "y", "z": ""}, "creationTimestamp": "2024-01-02T03:04:05Z",
                "finalizers": ["a", "b"], "managedFields": [{"manager": "m", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {}}}]},
            "spec": {"terminationGracePeriodSeconds": 0, "activeDeadlineSeconds": -1, "hostNetwork": true,
                "containers": [{"name": "c", "image": "i", "command": ["a", ""],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
                    "readinessProbe": {"tcpSocket": {"port": 8080}},
                    "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "cm", "optional": false}},
                    {"name": "p", "projected": {"sources": [{"secret": {"name": "s"}}]}}]},
            "status": {"conditions": [{"type": "Ready", "status": "False", "lastProbeTime": null,
                "lastTransitionTime": "2024-01-02T03:04:05Z"}]}}),
    );
    round_trip(
        "io.k8s.api.core.v1.Secret",
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "AAEC", "e": ""},
            "immutable": false}),
    );
    round_trip(
        "io.k8s.api.coordination.v1.Lease",
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"},
            "spec": {"holderIdentity": "h", "renewTime": "2024-01-02T03:04:05.000006Z", "leaseTransitions": 0}}),
    );
    round_trip(
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "a"}, "spec": {"matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                 "resourceNames": ["x"]}]}, "validations": [{"expression": "true"}]}}),
    );
    round_trip(
        "io.k8s.api.authentication.v1.TokenReview",
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": "t"},
            "status": {"authenticated": true, "user": {"username": "u", "extra": {"a": ["b", "c"], "d": ["e"]}}}}),
    );
}

#[test]
fn schemas_in_definitions_survive_both_ways() {
    round_trip(
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a"},
            "spec": {"group": "g", "scope": "Cluster", "names": {"plural": "p", "kind": "K"}, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "maximum": 1.5, "x-kubernetes-preserve-unknown-fields": true, "properties": {
                        "a": {"type": "array", "items": {"type": "string", "default": "x", "enum": ["x", 1]}},
                        "b": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
                        "c": {"type": "object", "additionalProperties": true}}}}}]}}),
    );
}

#[test]
fn broken_bodies_are_refused() {
    let pod = schema("io.k8s.api.core.v1.Pod");
    let expected = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
    assert_eq!(decode(pod, b"hello").unwrap_err().to_string(), expected);
    assert!(decode(pod, b"k8s\0\x12\xff").is_err());
    assert!(decode(pod, b"k8s\0\x12\x02\x0a\x09").is_err());
    let props = schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let number = props.field("not").unwrap().protobuf_numbers();
    let mut nested = Vec::new();
    for _ in 0..500 {
        let mut outer = wire::Writer::default();
        outer.bytes(number, &nested);
        nested = outer.out;
    }
    assert!(read::message(props, &nested).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        let mut body = wire::Writer::default();
        body.bytes(2, &bytes);
        let body = [MAGIC.as_slice(), &body.out].concat();
        if let Ok(decoded) = decode(schema("io.k8s.api.core.v1.Pod"), &body) {
            proptest::prop_assert!(decoded.object.is_object());
        }
    }
}
