//! Which strategy serves which resource.

use super::Strategy;
use super::{
    config_map, deployment, namespace, node, persistent_volume_claim, pod, replica_set, replication_controller, secret,
    service,
};

/// A built-in kind without rules of its own.
struct Plain;
impl Strategy for Plain {}

/// The strategy of a resource (`deployments` of group `apps`).
pub fn of(group: &str, resource: &str) -> &'static dyn Strategy {
    match (group, resource) {
        ("", "configmaps") => &config_map::ConfigMap,
        ("", "namespaces") => &namespace::Namespace,
        ("", "nodes") => &node::Node,
        ("", "persistentvolumeclaims") => &persistent_volume_claim::PersistentVolumeClaim,
        ("", "pods") => &pod::Pod,
        ("", "replicationcontrollers") => &replication_controller::ReplicationController,
        ("", "secrets") => &secret::Secret,
        ("", "services") => &service::Service,
        ("apps", "deployments") => &deployment::Deployment,
        ("apps", "replicasets") => &replica_set::ReplicaSet,
        _ => &Plain,
    }
}
