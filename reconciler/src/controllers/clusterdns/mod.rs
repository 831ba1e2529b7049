//! The Service `kube-system/kube-dns`: the address that pods ask for names. Its endpoints are each node's own DNS
//! server, so it has no selector; a cluster that brings its own DNS gives it one, and is left alone.

use api_client::{Cache, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Service};
use serde_json::json;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const DNS_PORT: u16 = 53;

pub struct ClusterDns {
    namespaces: Cache<Namespace>,
    services: Cache<Service>,
    address: String,
}

impl ClusterDns {
    pub fn new(caches: &Caches, address: String) -> Self {
        Self { namespaces: caches.get(), services: caches.get(), address }
    }
}

#[async_trait]
impl Controller for ClusterDns {
    fn name(&self) -> &'static str {
        "cluster-dns-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.namespaces, |change, wake| {
            if change.key.name == NAMESPACE {
                wake(change.key.clone());
            }
        });
        inputs.watch(&self.services, |change, wake| {
            if change.new.is_none() && change.key.namespace == NAMESPACE && change.key.name == NAME {
                wake(ObjectKey::new("", NAMESPACE));
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("", "services")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let living = self.namespaces.get(key).is_some_and(|n| n.metadata.deletion_timestamp.is_none());
        if !living || self.services.get(&ObjectKey::new(NAMESPACE, NAME)).is_some() {
            return Ok(Done::Settled);
        }
        let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": DNS_PORT});
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAME, "labels": {"k8s-app": NAME, "kubernetes.io/cluster-service": "true"}},
            "spec": {"clusterIP": self.address, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
        });
        match work.create::<Service>(NAMESPACE, &object).await {
            Ok(_) => Ok(Done::Settled),
            Err(Error::Api(e)) if e.is_already_exists() => Ok(Done::Settled),
            Err(e) => Err(e),
        }
    }
}
