//! Who protects pods' addresses, as the agent sees it: told of each pod before anything runs behind its addresses.

use std::net::IpAddr;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

#[async_trait]
pub trait Guard: std::fmt::Debug + Send + Sync {
    /// Returns when the pod is protected; it starts no container before.
    async fn admit(&self, pod: &Pod, addresses: &[IpAddr]);
    /// The pod has run since before this agent started.
    fn tell(&self, pod: &Pod, addresses: &[IpAddr]);
    /// The pod has given its addresses back.
    fn leave(&self, uid: &str);
}
