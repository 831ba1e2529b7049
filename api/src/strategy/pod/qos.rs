//! Quality of service class of a pod (`ComputePodQOS`): Guaranteed when every container limits cpu and memory and asks
//! for exactly that, BestEffort when none asks for anything, Burstable otherwise.

use serde_json::Value;

use crate::quantity::Quantity;
use crate::strategy::resources::read;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

pub fn class(spec: &Value) -> &'static str {
    let mut requests = [Quantity::default(); COMPUTE.len()];
    let mut limits = [Quantity::default(); COMPUTE.len()];
    let mut all_limited = true;
    let holders: Vec<&Value> = match spec.get("resources").filter(|r| !r.is_null()) {
        Some(pod_level) => vec![pod_level],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.get(*list).and_then(Value::as_array).into_iter().flatten())
            .map(|container| container.get("resources").unwrap_or(&Value::Null))
            .collect(),
    };
    for resources in holders {
        for (i, name) in COMPUTE.iter().enumerate() {
            let amount = |list: &str| resources.get(list).and_then(|l| l.get(*name)).map(read).unwrap_or_default();
            let (request, limit) = (amount("requests"), amount("limits"));
            // Amounts below zero are refused later; they must not count here.
            if request > Quantity::default() {
                requests[i] = requests[i].plus(request);
            }
            if limit > Quantity::default() {
                limits[i] = limits[i].plus(limit);
            } else {
                all_limited = false;
            }
        }
    }
    let nothing = |list: &[Quantity; 2]| list.iter().all(|q| *q == Quantity::default());
    if nothing(&requests) && nothing(&limits) {
        "BestEffort"
    } else if all_limited && !nothing(&limits) && requests_match(&requests, &limits) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn requests_match(requests: &[Quantity; 2], limits: &[Quantity; 2]) -> bool {
    requests.iter().zip(limits).all(|(request, limit)| request == limit)
}
