//! Volumes of whole pods, on a cluster that is a few maps.

use std::{collections::BTreeMap, fs, sync::Arc};

use api_client::Revision;
use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Pod, Secret},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Options,
    cluster::{Error as ClusterError, PodEvent},
    pod::PodId,
    spec::env::ServiceAddress,
};

#[derive(Default)]
struct Maps {
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

#[async_trait]
impl Cluster for Maps {
    async fn config_map(&self, _: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ClusterError> {
        Ok(self.config_maps.get(name).cloned())
    }
    async fn secret(&self, _: &str, name: &str) -> Result<Option<Arc<Secret>>, ClusterError> {
        Ok(self.secrets.get(name).cloned())
    }
    async fn token(&self, _: &str, account: &str, request: &TokenRequest) -> Result<TokenRequest, ClusterError> {
        let mut answer = request.clone();
        answer.status.get_or_insert_default().token = Some(format!("token of {account}"));
        Ok(answer)
    }
    async fn services(&self, _: &str) -> Result<Vec<ServiceAddress>, ClusterError> {
        Ok(Vec::new())
    }
    async fn pod(&self, _: &PodId) -> Result<Option<Pod>, ClusterError> {
        Ok(None)
    }
    async fn patch_pod_status(&self, _: &PodId, _: &Value) -> Result<Revision, ClusterError> {
        Ok(Revision::NONE)
    }
    async fn delete_pod(&self, _: &PodId) -> Result<(), ClusterError> {
        Ok(())
    }
    fn event(&self, _: &Pod, _: PodEvent) {}
}

fn pod(volume: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1", "labels": { "app": "a\"b", "zone": "z" } },
        "spec": { "serviceAccountName": "robot", "containers": [{ "name": "c", "resources": { "limits": { "cpu": "2" } } }],
            "volumes": [volume] },
    }))
    .expect("a Pod")
}

/// Prepares one volume and lists its files with contents and modes, then checks that removal leaves nothing.
async fn check(maps: Maps, volume: Value, expected: &[(&str, &str, u32)]) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::new("node");
    options.state_dir = dir.path().to_owned();
    let context = Context {
        paths: Paths::new(&options),
        cluster: Arc::new(maps),
        node_name: "node".to_owned(),
        pod_ips: Vec::new(),
        host_ips: Vec::new(),
        node_cpu_milli: 2000,
        node_memory_bytes: 1 << 30,
    };
    let pod = pod(volume);
    for _ in 0..2 {
        let volumes = prepare(&pod, &context).await.expect("prepared");
        let path = &volumes["v"].host_path;
        for (name, text, mode) in expected {
            let file = path.join(name);
            assert_eq!(fs::read_to_string(&file).expect("readable"), *text, "{name}");
            let got = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("a file").permissions());
            assert_eq!(got & 0o777, *mode, "mode of {name}");
        }
    }
    remove("u1", &context.paths).await.expect("removed");
    assert!(!context.paths.pod("u1").join("volumes").exists());
}

#[tokio::test]
async fn a_config_map_shows_its_keys_or_the_items_asked_for() {
    let map: ConfigMap = serde_json::from_value(json!({ "data": { "a": "1", "b": "2" } })).expect("a ConfigMap");
    let maps = || Maps { config_maps: BTreeMap::from([("m".to_owned(), Arc::new(map.clone()))]), ..Maps::default() };
    let all = json!({ "name": "v", "configMap": { "name": "m" } });
    check(maps(), all, &[("a", "1", 0o644), ("b", "2", 0o644)]).await;
    let some =
        json!({ "name": "v", "configMap": { "name": "m", "items": [{ "key": "b", "path": "x/y", "mode": 0o600 }] } });
    check(maps(), some, &[("x/y", "2", 0o600)]).await;
}

#[tokio::test]
async fn a_projected_volume_gathers_its_sources() {
    let secret: Secret = serde_json::from_value(json!({ "data": { "key": "c2VjcmV0" } })).expect("a Secret");
    let maps = Maps { secrets: BTreeMap::from([("s".to_owned(), Arc::new(secret))]), ..Maps::default() };
    let volume = json!({ "name": "v", "projected": { "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
        { "secret": { "name": "s" } },
        { "configMap": { "name": "absent", "optional": true } },
        { "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "zone", "fieldRef": { "fieldPath": "metadata.labels['zone']" } },
            { "path": "cpu", "resourceFieldRef": { "containerName": "c", "resource": "limits.cpu" } },
        ] } },
    ] } });
    let expected = [
        ("token", "token of robot", 0o644),
        ("key", "secret", 0o644),
        ("labels", "app=\"a\\\"b\"\nzone=\"z\"", 0o644),
        ("zone", "z", 0o644),
        ("cpu", "2", 0o644),
    ];
    check(maps, volume, &expected).await;
}

#[tokio::test]
async fn a_missing_object_is_named() {
    let mut options = Options::new("node");
    let dir = tempfile::tempdir().expect("a directory");
    options.state_dir = dir.path().to_owned();
    let context = Context {
        paths: Paths::new(&options),
        cluster: Arc::new(Maps::default()),
        node_name: "node".to_owned(),
        pod_ips: Vec::new(),
        host_ips: Vec::new(),
        node_cpu_milli: 2000,
        node_memory_bytes: 1 << 30,
    };
    let error =
        prepare(&pod(json!({ "name": "v", "secret": { "secretName": "s" } })), &context).await.expect_err("missing");
    assert_eq!(error.to_string(), r#"volume "v": secret "s" not found"#);
    let nfs = prepare(&pod(json!({ "name": "v", "nfs": { "server": "s", "path": "/" } })), &context).await;
    assert!(nfs.expect_err("unsupported").to_string().contains("nfs"));
}
