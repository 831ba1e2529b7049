//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use api::placement::Taint;

use super::{Plugin, refuse_for_good, taint_toleration};
use crate::objects::{Node, Pod};
use crate::verdict::Verdict;

/// The taint a cordoned node has (`v1.TaintNodeUnschedulable`).
const TAINT: Taint<'_> = Taint { key: "node.kubernetes.io/unschedulable", value: "", effect: "NoSchedule" };

pub fn unschedulable(pod: &Pod, node: &Node) -> Verdict {
    if node.unschedulable && !pod.tolerations.iter().any(|t| taint_toleration::view(t).tolerates(&TAINT)) {
        return refuse_for_good(Plugin::NodeUnschedulable, "node(s) were unschedulable");
    }
    Ok(())
}
