//! Specs of whole containers, as JSON.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::PodSpec;
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use super::{Host, Request, build, security};
use crate::cgroup::Version;

fn host() -> Host {
    Host {
        capabilities: security::from_mask((1 << 41) - 1),
        oom_score_adj_min: 0,
        memory_bytes: 4 << 30,
        cgroups: Version::V1,
        seccomp_dir: "/none".into(),
    }
}

fn spec_of(pod: Value, image: Value) -> Result<Value, String> {
    let spec: PodSpec = serde_json::from_value(pod).unwrap();
    let image: ImageConfiguration = serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "config": image, "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
    }))
    .unwrap();
    let namespaces = ["net".to_owned(), "ipc".to_owned(), "uts".to_owned()];
    let built = build(Request {
        uid: "u1",
        container_id: "c1",
        spec: &spec,
        container: &spec.containers[0],
        image: &image,
        users: &security::UserDatabase::default(),
        hostname: "web",
        env: vec![("A".into(), "1".into())],
        mounts: Vec::new(),
        namespaces: (std::path::Path::new("/pods/u1/ns"), &namespaces),
        cgroup: "/kubepods/podu1",
        host: &host(),
    });
    built.map(|spec| serde_json::to_value(spec).unwrap()).map_err(|error| error.to_string())
}

fn check_args(container: Value, image: Value, expected: Expect) {
    let mut container = container;
    container["name"] = json!("c");
    let text = match spec_of(json!({"containers": [container]}), image) {
        Ok(spec) => spec["process"]["args"].to_string(),
        Err(error) => error,
    };
    expected.assert_eq(&text);
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd() {
    let image = json!({"Entrypoint": ["/entry"], "Cmd": ["one", "two"]});
    check_args(json!({}), image.clone(), expect![[r#"["/entry","one","two"]"#]]);
    check_args(json!({"args": ["x$(A)"]}), image.clone(), expect![[r#"["/entry","x1"]"#]]);
    check_args(json!({"command": ["sh"]}), image.clone(), expect![[r#"["sh"]"#]]);
    check_args(json!({"command": ["sh"], "args": ["-c"]}), image, expect![[r#"["sh","-c"]"#]]);
    check_args(json!({}), json!({}), expect!["no command specified"]);
}

#[test]
fn the_environment_has_the_images_variables_unless_overridden() {
    let image = json!({"Cmd": ["x"], "Env": ["PATH=/bin", "A=image", "B=2"]});
    let spec = spec_of(json!({"containers": [{"name": "c"}]}), image).unwrap();
    expect![[r#"["PATH=/bin","B=2","HOSTNAME=web","A=1"]"#]].assert_eq(&spec["process"]["env"].to_string());
}

#[test]
fn a_plain_container_joins_the_pods_namespaces_and_cgroup() {
    let pod = json!({"containers": [{
        "name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
    }]});
    let spec = spec_of(pod, json!({"Cmd": ["x"], "WorkingDir": "/srv"})).unwrap();
    let linux = &spec["linux"];
    expect![[r#"[{"type":"mount"},{"path":"/pods/u1/ns/net","type":"network"},{"path":"/pods/u1/ns/ipc","type":"ipc"},{"path":"/pods/u1/ns/uts","type":"uts"},{"type":"pid"}]"#]]
        .assert_eq(&linux["namespaces"].to_string());
    assert_eq!(linux["cgroupsPath"], "/kubepods/podu1/c1");
    expect![[r#"{"period":100000,"quota":50000,"shares":256}"#]].assert_eq(&linux["resources"]["cpu"].to_string());
    assert_eq!(linux["resources"]["memory"]["limit"], 64 << 20);
    assert_eq!(spec["process"]["cwd"], "/srv");
    assert_eq!(spec["annotations"]["io.containerd.runc.v2.group"], "u1");
    assert!(linux["maskedPaths"].as_array().unwrap().len() > 5);
    assert!(linux.get("seccomp").is_none());
}

#[test]
fn privileged_containers_see_the_host() {
    let pod = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}], "hostPID": true});
    let spec = spec_of(pod, json!({"Cmd": ["x"]})).unwrap();
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert!(!spec["linux"]["namespaces"].to_string().contains("pid"));
    let sys = spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/sys").unwrap();
    assert!(sys["options"].to_string().contains("\"rw\""));
    assert!(!spec["linux"]["devices"].as_array().unwrap().is_empty());
}

#[test]
fn runtime_default_filters_system_calls() {
    let pod = json!({"containers": [{"name": "c"}], "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}});
    let spec = spec_of(pod, json!({"Cmd": ["x"]})).unwrap();
    assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
}
