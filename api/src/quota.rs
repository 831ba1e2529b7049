//! What quotas count: an object's use, and whether a quota's scopes concern it. Admission adds what a write uses, and the
//! quota controller what is there; both count by these functions. Pure.

mod scope;
mod usage;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

pub use scope::fits;
pub use usage::{counted, of, overdue_at, unspecified};

/// Resource names with amounts.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a list of amounts; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    let given = list.as_object().into_iter().flatten();
    given.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?))).collect()
}

/// The containers of a pod: lists of `spec` in the given order.
pub fn containers<'p>(pod: &'p Value, lists: &'p [&str]) -> impl Iterator<Item = &'p Value> {
    lists.iter().filter_map(|list| pod["spec"].get(*list)?.as_array()).flatten()
}

/// What a pod asks for in total: its containers together, or its init containers where those need more; amounts set for
/// the pod itself win. Upstream's `podRequests` and `podLimits`.
pub fn pod_total(pod: &Value, field: &str) -> Amounts {
    let mut total = Amounts::new();
    let add = |total: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let sum = total.get(name).map_or(*amount, |have| have.plus(*amount));
            total.insert(name.clone(), sum);
        }
    };
    for container in containers(pod, &["containers"]) {
        add(&mut total, &amounts(&container["resources"][field]));
    }
    let (mut sidecars, mut init) = (Amounts::new(), Amounts::new());
    for container in containers(pod, &["initContainers"]) {
        let own = amounts(&container["resources"][field]);
        let mut needed = sidecars.clone();
        add(&mut needed, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            sidecars = needed.clone();
        }
        most(&mut init, &needed);
    }
    most(&mut total, &init);
    for (name, amount) in amounts(&pod["spec"]["resources"][field]) {
        total.insert(name, amount);
    }
    total
}

fn most(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let larger = total.get(name).map_or(*amount, |have| (*have).max(*amount));
        total.insert(name.clone(), larger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_where_they_need_more() {
        let cpu = |amount: &str| json!({"name": "c", "resources": {"requests": {"cpu": amount}}});
        let mut sidecar = cpu("100m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {"containers": [cpu("200m")], "initContainers": [sidecar, cpu("500m")]}});
        assert_eq!(pod_total(&pod, "requests")["cpu"].to_string(), "600m");
    }
}
