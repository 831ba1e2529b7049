//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::{Plugin, refuse, taint_toleration};
use crate::objects::{Node, Pod};
use crate::verdict::Refusal;

pub fn unschedulable(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if pod.tolerations.iter().any(|t| taint_toleration::tolerates(t, &taint)) {
        return Ok(());
    }
    refuse(Plugin::NodeUnschedulable, "node(s) were unschedulable")
}
