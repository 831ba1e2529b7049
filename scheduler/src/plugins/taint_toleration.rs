//! TaintToleration: NoSchedule and NoExecute taints refuse, PreferNoSchedule taints cost score.

use api::placement;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Plugin, refuse_for_good};
use crate::objects::{Node, Pod};
use crate::verdict::Verdict;

pub fn filter(pod: &Pod, node: &Node) -> Verdict {
    if tolerates_all(pod, node) {
        return Ok(());
    }
    refuse_for_good(Plugin::TaintToleration, "node(s) had untolerated taint(s)")
}

/// Whether the pod tolerates every taint that would keep it away.
pub fn tolerates_all(pod: &Pod, node: &Node) -> bool {
    let mut refusing = node.taints.iter().filter(|t| t.effect != "PreferNoSchedule");
    refusing.all(|taint| pod.tolerations.iter().any(|t| tolerates(t, taint)))
}

/// How many PreferNoSchedule taints the pod does not tolerate.
pub fn intolerable(pod: &Pod, node: &Node) -> i64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint))).count() as i64
}

/// `Toleration.ToleratesTaint`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    view(toleration).tolerates(&placement::Taint { key: &taint.key, value, effect: &taint.effect })
}

pub fn view(toleration: &Toleration) -> placement::Toleration<'_> {
    placement::Toleration {
        key: toleration.key.as_deref().unwrap_or_default(),
        operator: toleration.operator.as_deref().unwrap_or_default(),
        value: toleration.value.as_deref().unwrap_or_default(),
        effect: toleration.effect.as_deref().unwrap_or_default(),
    }
}
