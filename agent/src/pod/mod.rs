//! Pods: one owner task each, pure decisions (`plan`, `status`), small steps that are safe to repeat.

mod act;
mod actuate;
pub mod admit;
mod attend;
mod hooks;
mod image;
mod inbox;
mod observe;
pub mod observed;
mod owner;
pub mod plan;
pub mod pods;
mod prepare;
pub mod resize;
pub mod resources;
pub mod shared;
mod start;
pub mod status;
pub mod view;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

pub use pods::Pods;
pub use shared::Shared;
pub use view::{ContainerView, PodView, Views};

/// What names a pod for good: another pod of the same name has another uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodId {
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_else(|| "default".into()),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Ephemeral containers as containers: they have the same fields but for the target, plus the promise that nothing
/// restarts them.
pub fn ephemeral_containers(spec: &PodSpec) -> Vec<Container> {
    let convert = |ephemeral| serde_json::to_value(ephemeral).and_then(serde_json::from_value::<Container>).ok();
    let never = |mut container: Container| {
        container.restart_policy = Some("Never".into());
        container
    };
    spec.ephemeral_containers.iter().flatten().filter_map(convert).map(never).collect()
}

/// Init, plain and ephemeral containers.
pub fn all_containers(spec: &PodSpec) -> Vec<Container> {
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers).cloned();
    plain.chain(ephemeral_containers(spec)).collect()
}

/// Any container of the pod by name.
pub fn container(spec: &PodSpec, name: &str) -> Option<Container> {
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let found = plain.into_iter().find(|container| container.name == name).cloned();
    found.or_else(|| ephemeral_containers(spec).into_iter().find(|container| container.name == name))
}
