//! Nodes may read all pods and namespaces while, and only while, the cluster has a NetworkPolicy: who enforces policies
//! must know the labels and addresses of pods elsewhere. Without policies a node's certificate, stolen or not, reads the
//! pods of its own node alone. What is granted stands in the cluster role `keelson:node-network-policy`.

use api_client::{Cache, DeleteParams, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::json;

use crate::engine::{Cached, Caches, Controller, Done, Error, Inputs, Output, Work};

/// Of the binding; the role without its last part.
const NAME: &str = "keelson:node-network-policy:nodes";
const ROLE: &str = "keelson:node-network-policy";

impl Cached for ClusterRoleBinding {}
impl Cached for NetworkPolicy {}

pub struct NodeNetwork {
    policies: Cache<NetworkPolicy>,
    bindings: Cache<ClusterRoleBinding>,
}

impl NodeNetwork {
    pub fn new(caches: &Caches) -> Self {
        Self { policies: caches.get(), bindings: caches.get() }
    }
}

#[async_trait]
impl Controller for NodeNetwork {
    fn name(&self) -> &'static str {
        "node-network-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.policies, |change, wake| {
            if change.old.is_none() || change.new.is_none() {
                wake(ObjectKey::new("", NAME));
            }
        });
        inputs.watch(&self.bindings, |change, wake| {
            if change.key.name == NAME {
                wake(change.key.clone());
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("rbac.authorization.k8s.io", "clusterrolebindings")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let wanted = !self.policies.snapshot().is_empty();
        match (wanted, self.bindings.get(key)) {
            (true, None) => {
                let binding = json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                    "metadata": {"name": NAME},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
                    "subjects": [
                        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"},
                    ],
                });
                match work.create::<ClusterRoleBinding>("", &binding).await {
                    Err(Error::Api(e)) if e.is_already_exists() => {}
                    made => drop(made?),
                }
            }
            (false, Some(binding)) => {
                let uid = binding.metadata.uid.as_deref().unwrap_or_default();
                work.delete::<ClusterRoleBinding>(key, uid, DeleteParams::default()).await?;
            }
            _ => {}
        }
        Ok(Done::Settled)
    }
}
