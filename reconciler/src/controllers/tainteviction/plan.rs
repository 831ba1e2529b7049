//! When a pod must leave a node because of its NoExecute taints. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::objects::tolerates;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    Forever,
    /// None of it may be left.
    For(Duration),
    /// Some taint is not tolerated at all.
    No,
}

/// How long a pod with these tolerations may stay under these taints (`taintEvictionController.processPodOnNode`).
/// Time runs from when a taint was added, so that a restarted controller doesn't start it afresh; a taint without a
/// time, or with one that is yet to come because a clock was set back, counts from `now`.
pub fn stay(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Stay {
    let mut until: Option<Timestamp> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else { return Stay::No };
        if let Some(seconds) = toleration.toleration_seconds {
            let since = taint.time_added.as_ref().map_or(now, |t| t.0.min(now));
            let end = since + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            until = Some(until.map_or(end, |u| u.min(end)));
        }
    }
    let left = |end: Timestamp| Duration::try_from(end.duration_since(now)).unwrap_or_default();
    until.map_or(Stay::Forever, |end| Stay::For(left(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(taints: Value, tolerations: Value, expected: Stay) {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let (taints, tolerations): (Vec<Taint>, Vec<Toleration>) =
            (serde_json::from_value(taints).unwrap(), serde_json::from_value(tolerations).unwrap());
        assert_eq!(stay(&taints, &tolerations, now), expected);
    }

    #[test]
    fn the_shortest_toleration_counts_from_when_the_taint_came() {
        let not_ready = json!({"key": "not-ready", "effect": "NoExecute", "timeAdded": "2026-01-01T11:59:00Z"});
        let other = json!({"key": "x", "value": "1", "effect": "NoExecute"});
        let mild = json!({"key": "mild", "effect": "NoSchedule"});
        let for_seconds =
            |key: &str, seconds: i64| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
        let seconds = |left: u64| Stay::For(Duration::from_secs(left));
        check(json!([mild]), json!([]), Stay::Forever);
        check(json!([not_ready]), json!([]), Stay::No);
        check(json!([not_ready]), json!([{"operator": "Exists"}]), Stay::Forever);
        check(json!([not_ready]), json!([for_seconds("not-ready", 300)]), seconds(240));
        check(
            json!([not_ready, other]),
            json!([for_seconds("not-ready", 300), {"key": "x", "value": "1", "tolerationSeconds": 10}]),
            seconds(10),
        );
        check(json!([other]), json!([{"key": "x", "value": "2"}]), Stay::No);
        let long_ago = json!({"key": "not-ready", "effect": "NoExecute", "timeAdded": "2026-01-01T08:00:00Z"});
        check(json!([long_ago]), json!([for_seconds("not-ready", 300)]), seconds(0));
        let to_come = json!({"key": "not-ready", "effect": "NoExecute", "timeAdded": "2026-01-01T13:00:00Z"});
        check(json!([to_come]), json!([for_seconds("not-ready", 300)]), seconds(300));
    }
}
