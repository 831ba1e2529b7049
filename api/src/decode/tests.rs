//! Decoding against recorded answers of upstream.

use serde_json::{Value, json};

use super::*;
use crate::schema::Schemas;

fn schema(ty: &str) -> Schema<'static> {
    Schemas::builtin().type_named(ty).unwrap()
}

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const SERVICE: &str = "io.k8s.api.core.v1.Service";

fn decoded(ty: &str, body: Value) -> Value {
    value(schema(ty), body, FieldValidation::Strict).unwrap().object
}

fn refused(ty: &str, body: &str) -> String {
    json(schema(ty), body.as_bytes(), FieldValidation::Strict).unwrap_err().to_string()
}

#[test]
fn zero_values_are_as_gos_types_write_them() {
    let pod = decoded(
        POD,
        json!({"metadata": {"name": "a", "labels": {}, "annotations": null},
            "spec": {"hostNetwork": false, "containers": [{"name": "c", "command": [], "securityContext": {}}],
                     "volumes": [{"name": "v", "emptyDir": {}}]}}),
    );
    assert_eq!(
        pod,
        json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "c", "resources": {}, "securityContext": {}}],
            "volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}})
    );
    let deployment = decoded(DEPLOYMENT, json!({"spec": {"replicas": 0}}));
    assert_eq!(
        deployment,
        json!({"metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}})
    );
    let event = decoded("io.k8s.api.core.v1.Event", json!({"involvedObject": {}}));
    assert_eq!(event["eventTime"], Value::Null);
    assert!(event.as_object().unwrap().contains_key("firstTimestamp"));
}

#[test]
fn quantities_times_and_bytes_are_canonical() {
    let pod = decoded(
        POD,
        json!({"metadata": {"creationTimestamp": "2024-01-02T03:04:05.5+01:00"}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x/y": 2}}}]}}),
    );
    let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits, &json!({"cpu": "500m", "memory": "1Gi", "x/y": "2"}));
    assert_eq!(pod["metadata"]["creationTimestamp"], "2024-01-02T02:04:05Z");
    let lease =
        decoded("io.k8s.api.coordination.v1.Lease", json!({"spec": {"renewTime": "2024-01-02T03:04:05.000006Z"}}));
    assert_eq!(lease["spec"]["renewTime"], "2024-01-02T03:04:05.000006Z");
    let secret = decoded("io.k8s.api.core.v1.Secret", json!({"data": {"a": "YWI=\n", "b": null}}));
    assert_eq!(secret["data"], json!({"a": "YWI=", "b": ""}));
}

#[test]
fn unknown_and_duplicate_fields_are_reported_in_order() {
    let body = r#"{"metadata":{"name":"a","name":"b","x5":1},"spec":{"replicas":1,"replicas":2,"bogus":{"a":1},
        "template":{"spec":{"containers":[{"name":"c","imagePullPolcy":"Always"}]}}}}"#;
    let problems = [
        "duplicate field \"metadata.name\"",
        "unknown field \"metadata.x5\"",
        "duplicate field \"spec.replicas\"",
        "unknown field \"spec.bogus\"",
        "unknown field \"spec.template.spec.containers[0].imagePullPolcy\"",
    ];
    let warned = json(schema(DEPLOYMENT), body.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, problems);
    assert_eq!((&warned.object["metadata"]["name"], &warned.object["spec"]["replicas"]), (&json!("b"), &json!(2)));
    assert!(warned.object["spec"].get("bogus").is_none());
    assert_eq!(refused(DEPLOYMENT, body), format!("strict decoding error: {}", problems.join(", ")));
    let ignored = json(schema(DEPLOYMENT), body.as_bytes(), FieldValidation::Ignore).unwrap();
    assert!(ignored.warnings.is_empty() && ignored.object == warned.object);
}

#[test]
fn entries_of_maps_are_duplicates_too_and_names_are_case_sensitive() {
    let body = r#"{"data":{"k":"1","k":"2"},"Data":{}}"#;
    let problems = "strict decoding error: duplicate field \"data.k\", unknown field \"Data\"";
    assert_eq!(refused(CONFIG_MAP, body), problems);
}

#[test]
fn wrong_types_are_worded_as_go_words_them() {
    let cases = [
        (
            DEPLOYMENT,
            r#"{"spec":{"template":[]}}"#,
            "array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"replicas":1.5}}"#,
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"replicas":1099511627776}}"#,
            "number 1099511627776 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            POD,
            r#"{"spec":{"hostNetwork":"true"}}"#,
            "string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            POD,
            r#"{"spec":{"containers":["c"]}}"#,
            "string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            POD,
            r#"{"spec":{"containers":{}}}"#,
            "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"livenessProbe":{"periodSeconds":99999999999}}]}}"#,
            "number 99999999999 into Go struct field Probe.spec.containers.livenessProbe.periodSeconds of type int32",
        ),
        (
            SERVICE,
            r#"{"spec":{"ports":[{"targetPort":{}}]}}"#,
            "object into Go struct field ServicePort.spec.ports.targetPort of type int32",
        ),
        (
            POD,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (POD, "[]", "array into Go value of type v1.Pod"),
    ];
    for (ty, body, message) in cases {
        assert_eq!(refused(ty, body), format!("json: cannot unmarshal {message}"), "{body}");
    }
    let lease = r#"{"spec":{"acquireTime":"2024"}}"#;
    let message = "parsing time \"2024\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"\" as \"-\"";
    assert_eq!(refused("io.k8s.api.coordination.v1.Lease", lease), message);
    let limits = r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#;
    assert!(refused(POD, limits).starts_with("quantities must match the regular expression"));
}

#[test]
fn malformed_json_is_worded_as_go_words_it() {
    let cases = [
        ("", "unexpected end of JSON input"),
        (r#"{"a":"#, "unexpected end of JSON input"),
        ("hello", "invalid character 'h' looking for beginning of value"),
        (r#"{"a":1} x"#, "invalid character 'x' after top-level value"),
        (r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
        (r#"{"spec":[1 2]}"#, "invalid character '2' after array element"),
        ("{\"a\":\"\n\"}", "invalid character '\\n' in string literal"),
        (r#"{"a":nul}"#, "invalid character '}' in literal null (expecting 'l')"),
        (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
    ];
    for (body, message) in cases {
        assert_eq!(refused(POD, body), message, "{body}");
    }
    // A syntax error after a value of a wrong type is what counts.
    assert_eq!(refused(POD, r#"{"spec":1"#), "unexpected end of JSON input");
}

#[test]
fn nesting_is_bounded() {
    let deep = "[".repeat(10_000);
    assert_eq!(refused(POD, &deep), "exceeded max depth");
    assert_eq!(untyped_json(deep.as_bytes()).unwrap_err().to_string(), "exceeded max depth");
    let raw = format!("{{\"data\":{}", "{\"a\":".repeat(10_000));
    assert_eq!(refused("io.k8s.api.apps.v1.ControllerRevision", &raw), "exceeded max depth");
    assert!(untyped_yaml(deep.as_bytes()).is_err());
    let blocks: String = (0..10_000).map(|i| format!("{}a:\n", " ".repeat(i % 2000))).collect();
    assert!(untyped_yaml(blocks.as_bytes()).is_err());
}

#[test]
fn raw_parts_are_kept_as_they_are() {
    let revision = json!({"data": {"spec": {"x": null, "y": [], "n": 1.5}}, "metadata": {}, "revision": 1});
    assert_eq!(decoded("io.k8s.api.apps.v1.ControllerRevision", revision.clone()), revision);
}

#[test]
fn yaml_takes_the_types_of_upstreams_yaml() {
    let text = "a: yes\nb: 'yes'\nc: 010\nd: 0x10\ne: 1.0\nf: 1.5\ng: ~\nh: 2001-01-01\n1: one\ntrue: t\ni: |\n  x\nj: off\n\
                k: !!str 1\nl: 1e3\nm: '1'\nr: .5\no: 1_000\np: -3\nq: +x\n";
    assert_eq!(
        untyped_yaml(text.as_bytes()).unwrap().object,
        json!({"a": true, "b": "yes", "c": 8, "d": 16, "e": 1, "f": 1.5, "g": null, "h": "2001-01-01", "1": "one",
            "true": "t", "i": "x\n", "j": false, "k": "1", "l": 1000, "m": "1", "r": 0.5, "o": 1000, "p": -3, "q": "+x"})
    );
}

#[test]
fn yaml_duplicates_carry_their_lines() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  name: a\ndata:\n  k: \"1\"\n  k: \"2\"\n";
    let lines = ["line 5: key \"name\" already set in map", "line 8: key \"k\" already set in map"];
    let warned = yaml(schema(CONFIG_MAP), text.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, lines);
    assert_eq!(warned.object["data"], json!({"k": "2"}));
    let refused = yaml(schema(CONFIG_MAP), text.as_bytes(), FieldValidation::Strict).unwrap_err().to_string();
    assert_eq!(refused, format!("strict decoding error: yaml: unmarshal errors:\n  {}", lines.join("\n  ")));
}

#[test]
fn yaml_aliases_and_merge_keys_work_within_limits() {
    let text = "base: &b {x: 1, z: 2}\nuse: *b\nmerged:\n  <<: *b\n  z: 3\n";
    let object = untyped_yaml(text.as_bytes()).unwrap().object;
    assert_eq!((&object["use"], &object["merged"]), (&json!({"x": 1, "z": 2}), &json!({"x": 1, "z": 3})));
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..10 {
        let uses = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{uses}]\n"));
    }
    let refused = untyped_yaml(bomb.as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("excessive aliasing"), "{refused}");
    assert!(untyped_yaml(b"a: &a [*a]").is_err());
}

#[test]
fn version_and_kind_are_read_without_the_rest() {
    let meta = type_meta(br#"{"kind":"Pod","spec":{"x":[1,{}]},"apiVersion":"v1"}"#).unwrap();
    assert_eq!((meta.api_version.as_str(), meta.kind.as_str()), ("v1", "Pod"));
    assert_eq!(
        type_meta(b"[]").unwrap_err().to_string(),
        "json: cannot unmarshal array into Go value of type struct { APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }"
    );
}

proptest::proptest! {
    #[test]
    fn decoding_twice_changes_nothing(name in "[a-z]{0,5}", replicas in -5_i32..5, cpu in "[0-9]{1,6}[mkMG]?", host: bool) {
        let body = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "template": {"spec": {
            "hostNetwork": host, "containers": [{"name": name, "resources": {"limits": {"cpu": cpu}}}]}}}});
        let once = decoded(DEPLOYMENT, body);
        proptest::prop_assert_eq!(&decoded(DEPLOYMENT, once.clone()), &once);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        for mode in [FieldValidation::Strict, FieldValidation::Ignore] {
            if let Ok(decoded) = json(schema(POD), &bytes, mode) {
                proptest::prop_assert!(decoded.object.is_object());
            }
        }
        if let Ok(decoded) = untyped_yaml(&bytes) {
            proptest::prop_assert!(serde_json::to_string(&decoded.object).is_ok());
        }
    }

    #[test]
    fn json_texts_read_as_serde_reads_them(text in "[-{}\\[\\]\",:0-9.eEtrufalsn \\\\u]{0,30}") {
        let ours = untyped_json(text.as_bytes()).map(|d| d.object);
        let theirs = serde_json::from_str::<Value>(&text);
        if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
            proptest::prop_assert_eq!(ours, theirs);
        }
        proptest::prop_assert!(ours.is_ok() || theirs.is_err(), "refused {:?}", text);
    }
}
