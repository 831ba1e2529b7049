//! TaintToleration: NoSchedule and NoExecute taints refuse, PreferNoSchedule taints cost score.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Plugin, refuse};
use crate::objects::{Node, Pod};
use crate::verdict::Refusal;

pub fn filter(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let refusing = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
    for taint in refusing {
        if !pod.tolerations.iter().any(|t| tolerates(t, taint)) {
            return refuse(Plugin::TaintToleration, "node(s) had untolerated taint(s)");
        }
    }
    Ok(())
}

/// How many PreferNoSchedule taints the pod does not tolerate.
pub fn intolerable(pod: &Pod, node: &Node) -> i64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint))).count() as i64
}

/// `Toleration.ToleratesTaint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let absent_or = |given: &Option<String>, wanted: &str| given.as_deref().is_none_or(|g| g.is_empty() || g == wanted);
    if !absent_or(&toleration.effect, &taint.effect) || !absent_or(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some("Exists") => true,
        Some(_) => false,
    }
}
