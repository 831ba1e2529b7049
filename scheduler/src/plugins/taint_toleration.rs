//! TaintToleration: NoSchedule and NoExecute taints refuse, PreferNoSchedule taints cost score.

use api::placement;
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
    let toleration = placement::Toleration {
        key: toleration.key.as_deref().unwrap_or_default(),
        operator: toleration.operator.as_deref().unwrap_or_default(),
        value: toleration.value.as_deref().unwrap_or_default(),
        effect: toleration.effect.as_deref().unwrap_or_default(),
    };
    let value = taint.value.as_deref().unwrap_or_default();
    toleration.tolerates(&placement::Taint { key: &taint.key, value, effect: &taint.effect })
}
