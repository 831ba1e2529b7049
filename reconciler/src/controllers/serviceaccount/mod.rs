//! What every namespace gets: the service account `default`, and the cluster's certificate authority in the ConfigMap
//! `kube-root-ca.crt`. Both come back when deleted. Two controllers with the namespace as key.

use api_client::{Cache, Change, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{RootCa, ServiceAccount};

const DEFAULT: &str = "default";
/// Upstream's annotation on the ConfigMap.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

pub struct DefaultServiceAccounts {
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl DefaultServiceAccounts {
    pub fn new(caches: &Caches) -> Self {
        Self { namespaces: caches.get(), accounts: caches.get() }
    }
}

#[async_trait]
impl Controller for DefaultServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.namespaces);
        inputs.watch(&self.accounts, |change, wake| wake_namespace(change, DEFAULT, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("", "serviceaccounts")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let account = ObjectKey::new(key.name.as_str(), DEFAULT);
        if !is_living(&self.namespaces, key) || self.accounts.get(&account).is_some() {
            return Ok(Done::Settled);
        }
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT}});
        created(work.create::<ServiceAccount>(&key.name, &object).await)
    }
}

pub struct RootCaPublisher {
    namespaces: Cache<Namespace>,
    published: Cache<RootCa>,
    root_ca: String,
}

impl RootCaPublisher {
    pub fn new(caches: &Caches, root_ca: String) -> Self {
        Self { namespaces: caches.get(), published: caches.get(), root_ca }
    }
}

#[async_trait]
impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.namespaces);
        inputs.watch(&self.published, |change, wake| wake_namespace(change, RootCa::NAME, wake));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("", "configmaps")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        if !is_living(&self.namespaces, key) {
            return Ok(Done::Settled);
        }
        let config_map = ObjectKey::new(key.name.as_str(), RootCa::NAME);
        let data = json!({RootCa::KEY: self.root_ca});
        let Some(published) = self.published.get(&config_map) else {
            let annotations = json!({"kubernetes.io/description": DESCRIPTION});
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": RootCa::NAME, "annotations": annotations}, "data": data,
            });
            return created(work.create::<RootCa>(&key.name, &object).await);
        };
        if published.data.len() != 1 || published.data.get(RootCa::KEY) != Some(&self.root_ca) {
            let patch = json!([{"op": "add", "path": "/data", "value": data}]);
            work.patch::<RootCa>(&config_map, &Patch::Json(patch)).await?;
        }
        Ok(Done::Settled)
    }
}

fn is_living(namespaces: &Cache<Namespace>, key: &ObjectKey) -> bool {
    namespaces.get(key).is_some_and(|n| n.metadata.deletion_timestamp.is_none())
}

fn wake_namespace<T: Object>(change: &Change<T>, name: &str, wake: &dyn Fn(ObjectKey)) {
    if change.key.name == name {
        wake(ObjectKey::new("", change.key.namespace.as_str()));
    }
}

/// Somebody else may have been faster, or the namespace may be gone.
fn created<T>(result: Result<T, Error>) -> Result<Done, Error> {
    match result {
        Ok(_) => Ok(Done::Settled),
        Err(Error::Api(e)) if e.is_already_exists() || e.is_not_found() => Ok(Done::Settled),
        Err(e) => Err(e),
    }
}
