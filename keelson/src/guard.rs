//! The agent and the network policies of its node, introduced to each other: neither crate knows the other.

use std::net::IpAddr;

use agent::Guard;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use network_policy::Gate;

/// The agent's way to the policies.
#[derive(Debug)]
pub struct Policies {
    pub node: String,
    pub gate: Gate,
}

impl Policies {
    fn seen(&self, pod: &Pod, addresses: &[IpAddr]) -> network_policy::Pod {
        let metadata = &pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let labels = metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
        let identity = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
        let spec = pod.spec.clone().unwrap_or_default();
        let sidecars = spec.init_containers.unwrap_or_default().into_iter();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = spec.containers.into_iter().chain(sidecars);
        let ports = containers.flat_map(|container| container.ports.unwrap_or_default()).filter_map(|port| {
            Some((port.name?, port.protocol.unwrap_or_default(), u16::try_from(port.container_port).ok()?))
        });
        network_policy::Pod::new(identity, labels, &self.node, addresses, ports)
    }
}

#[async_trait]
impl Guard for Policies {
    async fn admit(&self, pod: &Pod, addresses: &[IpAddr]) {
        self.gate.admit(self.seen(pod, addresses)).await;
    }

    fn tell(&self, pod: &Pod, addresses: &[IpAddr]) {
        self.gate.tell(self.seen(pod, addresses));
    }

    fn leave(&self, uid: &str) {
        self.gate.leave(uid);
    }
}
