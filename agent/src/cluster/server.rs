//! The cluster as an API server shows it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api_client::{
    Api, Cache, Client, DeleteParams, ListParams, Meta, ObjectKey, Patch, Revision,
    events::{EventType, ObjectReference, Recorder},
};
use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{self as core, ConfigMap, Pod, Secret},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Cluster, Error, PodEvent};
use crate::{
    pod::PodId,
    spec::env::{ServiceAddress, ServicePort},
};

/// A container's environment must name the Services, so that its start waits for their list, but not forever.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node reads of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    metadata: Meta,
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    protocol: String,
    port: i32,
}

api_client::projection!(
    Service as core::Service,
    Meta,
    trim = |service| {
        service.metadata.labels.clear();
        service.metadata.owner_references.clear();
    }
);

/// Only the identity of a pod: what the answer to a status patch is read for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIdentity {
    metadata: Meta,
}

api_client::projection!(PodIdentity as core::Pod);

pub struct ApiCluster {
    pods: Api<Pod>,
    statuses: Api<PodIdentity>,
    config_maps: Api<ConfigMap>,
    secrets: Api<Secret>,
    accounts: Api<core::ServiceAccount>,
    services: Cache<Service>,
    recorder: Recorder,
}

impl ApiCluster {
    pub fn start(client: &Client, node_name: &str, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        Self {
            pods: client.api(),
            statuses: client.api(),
            config_maps: client.api(),
            secrets: client.api(),
            accounts: client.api(),
            services: Cache::start(client, ListParams::default(), tasks, shutdown.clone()),
            recorder: Recorder::start(client, "kubelet", node_name, tasks, shutdown),
        }
    }
}

impl ApiCluster {
    /// For events about other objects than pods.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }
}

fn failed(verb: &'static str, resource: &'static str, key: &ObjectKey) -> impl FnOnce(api_client::Error) -> Error {
    let object = format!("{resource} {}/{}", key.namespace, key.name);
    move |source| Error::Call {
        verb,
        object,
        // A uid that does not match any more is a conflict: that pod is gone too.
        gone: source.is_not_found() || source.is_conflict(),
        source: Box::new(source),
    }
}

#[async_trait]
impl Cluster for ApiCluster {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        let key = ObjectKey::new(namespace, name);
        Ok(self.config_maps.find(&key).await.map_err(failed("get", "configmap", &key))?.map(Arc::new))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        let key = ObjectKey::new(namespace, name);
        Ok(self.secrets.find(&key).await.map_err(failed("get", "secret", &key))?.map(Arc::new))
    }

    async fn token(&self, namespace: &str, account: &str, request: &TokenRequest) -> Result<TokenRequest, Error> {
        let key = ObjectKey::new(namespace, account);
        let answer = self.accounts.post_subresource(&key, "token", request).await;
        answer.map_err(failed("create token of", "serviceaccount", &key))
    }

    async fn services(&self, namespace: &str) -> Result<Vec<ServiceAddress>, Error> {
        if tokio::time::timeout(SERVICES_TIMEOUT, self.services.synced()).await.is_err() {
            tracing::warn!("Services are not known yet: containers start without their variables");
        }
        let snapshot = self.services.snapshot();
        // The API server's own Service counts in every namespace.
        let api = snapshot.get(&ObjectKey::new("default", "kubernetes")).filter(|_| namespace != "default");
        Ok(snapshot.namespace(namespace).chain(api).filter_map(address).collect())
    }

    async fn pod(&self, pod: &PodId) -> Result<Option<Pod>, Error> {
        let key = ObjectKey::new(&pod.namespace, &pod.name);
        let found = self.pods.find(&key).await.map_err(failed("get", "pod", &key))?;
        Ok(found.filter(|found| found.metadata.uid.as_ref() == Some(&pod.uid)))
    }

    async fn patch_pod_status(&self, pod: &PodId, patch: &Value) -> Result<Revision, Error> {
        let key = ObjectKey::new(&pod.namespace, &pod.name);
        let mut patch = patch.clone();
        patch["metadata"] = json!({"uid": pod.uid});
        let answer = self.statuses.patch_status(&key, &Patch::Strategic(patch)).await;
        answer.map(|(_, revision)| revision).map_err(failed("patch status of", "pod", &key))
    }

    async fn delete_pod(&self, pod: &PodId) -> Result<(), Error> {
        let key = ObjectKey::new(&pod.namespace, &pod.name);
        let params = DeleteParams::uid(&pod.uid).grace_period_seconds(0);
        self.pods.delete(&key, &params).await.map(drop).map_err(failed("delete", "pod", &key))
    }

    fn event(&self, pod: &Pod, event: PodEvent) {
        let mut reference = ObjectReference::to(pod);
        if let (Some(name), Some(spec)) = (&event.container, &pod.spec) {
            let is_init = spec.init_containers.iter().flatten().any(|init| init.name == *name);
            let list = if is_init { "initContainers" } else { "containers" };
            reference = reference.at(format!("spec.{list}{{{name}}}"));
        }
        let kind = if event.warning { EventType::Warning } else { EventType::Normal };
        self.recorder.record(reference, kind, event.reason, event.message);
    }
}

/// `None` for Services without an address.
fn address(service: &Arc<Service>) -> Option<ServiceAddress> {
    let cluster_ip: IpAddr = service.spec.cluster_ip.parse().ok()?;
    let ports = service.spec.ports.iter().map(|port| ServicePort {
        name: port.name.clone(),
        protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
        port: port.port,
    });
    Some(ServiceAddress {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        cluster_ip,
        ports: ports.collect(),
    })
}
