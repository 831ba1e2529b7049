//! The agent's view of the cluster: the few calls a pod's life needs. One implementation speaks to an API server;
//! static pods on a node without a server, and tests of the runtime path, use others.

pub mod server;

use std::sync::Arc;

use api_client::Revision;
use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Pod, Secret},
};
use serde_json::Value;

use crate::{pod::PodId, spec::env::ServiceAddress};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{verb} {object}")]
    Call {
        verb: &'static str,
        /// `RESOURCE NAMESPACE/NAME`
        object: String,
        /// The object (or the pod with that uid) is not there any more.
        gone: bool,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub fn is_gone(&self) -> bool {
        matches!(self, Error::Call { gone: true, .. })
    }
}

/// An Event about a pod; `container` adds the field path the kubelet writes.
#[derive(Clone, Debug)]
pub struct PodEvent {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    pub container: Option<String>,
}

#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, Error>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, Error>;
    async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequest, Error>;
    /// Services whose addresses become environment variables in `namespace`.
    async fn services(&self, namespace: &str) -> Result<Vec<ServiceAddress>, Error>;
    /// The pod as the server has it now; `None` when no pod of that name and uid exists.
    async fn pod(&self, pod: &PodId) -> Result<Option<Pod>, Error>;
    /// Strategic merge patch of `pods/status`; the implementation adds the uid as precondition.
    /// Returns the revision of the write; a watched pod of that revision or a later one contains it.
    async fn patch_pod_status(&self, pod: &PodId, patch: &Value) -> Result<Revision, Error>;
    /// The last act on a pod: delete with grace 0, only if the uid still matches.
    async fn delete_pod(&self, pod: &PodId) -> Result<(), Error>;
    /// Never blocks and never fails: events are best effort.
    fn event(&self, pod: &Pod, event: PodEvent);
}
