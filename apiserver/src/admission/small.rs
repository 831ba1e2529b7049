//! Plugins of a few lines each: DefaultTolerationSeconds and TaintNodesByCondition.

use serde_json::{Value, json};

use api::meta;
use api::status::Status;

use super::AdmissionRequest;
use crate::server::Server;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long pods stay on a node that stopped answering.
const TOLERATED_SECONDS: i64 = 300;

/// DefaultTolerationSeconds: a pod that says nothing about lost nodes leaves them after five minutes.
pub fn default_tolerations(_: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "pods") && !request.updates("", "pods") {
        return Ok(());
    }
    let spec = meta::child_mut(&mut request.object, "spec");
    for key in [NOT_READY, UNREACHABLE] {
        let given = spec.get("tolerations").and_then(Value::as_array);
        if given.is_some_and(|list| list.iter().any(|toleration| tolerates(toleration, key))) {
            continue;
        }
        let added = json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS,
        });
        match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            Some(list) => list.push(added),
            None => spec["tolerations"] = json!([added]),
        }
    }
    Ok(())
}

/// Whether a toleration has something to say about eviction from nodes with this taint.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("key").is_empty() || text("key") == taint) && matches!(text("effect"), "" | "NoExecute")
}

/// TaintNodesByCondition: a new node takes no pods before it is known to be ready.
pub fn taint_new_nodes(_: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "nodes") {
        return Ok(());
    }
    let spec = meta::child_mut(&mut request.object, "spec");
    let taint = json!({ "key": NOT_READY, "effect": "NoSchedule" });
    let same = |other: &Value| other["key"] == NOT_READY && other["effect"] == "NoSchedule";
    match spec.get_mut("taints").and_then(Value::as_array_mut) {
        Some(taints) if taints.iter().any(same) => {}
        Some(taints) => taints.push(taint),
        None => spec["taints"] = json!([taint]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_that_cover_eviction_count() {
        let check = |toleration: Value| tolerates(&toleration, UNREACHABLE);
        assert!(check(json!({"operator": "Exists"})));
        assert!(check(json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"})));
        assert!(check(json!({"key": UNREACHABLE, "operator": "Exists"})));
        assert!(!check(json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"})));
        assert!(!check(json!({"key": NOT_READY, "effect": "NoExecute"})));
        assert!(!check(json!({"operator": "Exists", "effect": "NoSchedule"})));
    }
}
