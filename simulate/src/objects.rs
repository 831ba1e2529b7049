//! Projections: what a node reads of its pods and of itself. One is held for each pod and node.

use std::net::Ipv4Addr;

use api_client::{Meta, Metadata, projection};
use k8s_openapi::api::core::v1;
use serde::Deserialize;

use crate::behaviour::Annotations;
use crate::progress::{Report, Restart, State};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    pub annotations: Annotations,
    deletion_timestamp: Option<String>,
    pub deletion_grace_period_seconds: Option<u64>,
}

impl Metadata for PodMeta {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// A pod that was bound to a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Pod")]
pub struct Pod {
    pub metadata: PodMeta,
    pub node_name: String,
    pub restart: Restart,
    pub host_network: bool,
    pub containers: Vec<ContainerSpec>,
    pub init_containers: Vec<ContainerSpec>,
    /// Succeeded or Failed: it never starts again.
    pub is_terminal: bool,
    pub start_time: Option<String>,
    /// What a node said of it last.
    pub reported: Option<Report>,
    /// Its first address, once it has one.
    pub address: Option<Ipv4Addr>,
}

projection!(Pod as v1::Pod, PodMeta);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
}

impl From<wire::Pod> for Pod {
    fn from(pod: wire::Pod) -> Self {
        let (spec, status) = (pod.spec, pod.status);
        let restart = match spec.restart_policy.as_str() {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        };
        Self {
            metadata: pod.metadata,
            node_name: spec.node_name,
            restart,
            host_network: spec.host_network,
            containers: spec.containers,
            init_containers: spec.init_containers,
            is_terminal: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            reported: status.report(),
            address: status.pod_ip.parse().ok(),
            start_time: status.start_time,
        }
    }
}

/// A node, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Node")]
pub struct Node {
    pub metadata: Meta,
    pub is_ready: bool,
}

projection!(Node as v1::Node);

impl From<wire::Node> for Node {
    fn from(node: wire::Node) -> Self {
        Self { metadata: node.metadata, is_ready: wire::is_ready(&node.status.conditions) }
    }
}

/// The shapes on the wire.
mod wire {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Pod {
        pub metadata: PodMeta,
        pub spec: PodSpec,
        pub status: PodStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    pub struct PodSpec {
        pub node_name: String,
        pub restart_policy: String,
        pub host_network: bool,
        pub containers: Vec<ContainerSpec>,
        pub init_containers: Vec<ContainerSpec>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    pub struct PodStatus {
        pub phase: String,
        pub start_time: Option<String>,
        #[serde(rename = "podIP")]
        pub pod_ip: String,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Node {
        pub metadata: Meta,
        pub status: NodeStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct NodeStatus {
        pub conditions: Vec<Condition>,
    }

    pub fn is_ready(conditions: &[Condition]) -> bool {
        conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Condition {
        r#type: String,
        status: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ContainerStatus {
        restart_count: u32,
        state: ContainerState,
        last_state: ContainerState,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ContainerState {
        running: Option<serde::de::IgnoredAny>,
        terminated: Option<Terminated>,
        waiting: Option<Waiting>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Terminated {
        exit_code: i32,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Waiting {
        reason: String,
    }

    impl PodStatus {
        /// The report that this status came from; none before the first.
        pub fn report(&self) -> Option<Report> {
            let first = self.container_statuses.first()?;
            let phase = ["Pending", "Running", "Succeeded", "Failed"].into_iter().find(|p| *p == self.phase)?;
            let ready = is_ready(&self.conditions);
            let state = match (&first.state, first.last_state.terminated.as_ref()) {
                (ContainerState { terminated: Some(ended), .. }, _) => State::Exited { code: ended.exit_code },
                (ContainerState { running: Some(_), .. }, _) => State::Running,
                (ContainerState { waiting: Some(waiting), .. }, Some(last)) if waiting.reason == "CrashLoopBackOff" => {
                    State::BackOff { code: last.exit_code }
                }
                _ => State::Creating,
            };
            Some(Report { phase, ready, restarts: first.restart_count, state })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_the_report_it_came_from() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "a", "uid": "1" }, "spec": { "nodeName": "n", "containers": [{ "name": "c" }] },
        }))
        .expect("a pod");
        let states = [State::Running, State::BackOff { code: 3 }, State::Exited { code: 0 }, State::Creating];
        for (state, phase) in states.into_iter().zip(["Running", "Running", "Succeeded", "Pending"]) {
            let report = Report { phase, ready: state == State::Running, restarts: 2, state };
            let address = Ipv4Addr::LOCALHOST;
            let patch = crate::status::patch(&pod, &report, address, address, jiff::Timestamp::UNIX_EPOCH);
            let written: Pod = serde_json::from_value(patch).expect("a status");
            assert_eq!(written.reported, Some(report));
        }
    }
}
