//! Resource names and amounts (`ValidateResourceQuantityValue`, `ValidateResourceRequirements`), and the defaults that
//! derive requests from limits. Amounts that do not parse were refused by decoding.

use serde_json::{Map, Value};

use super::format;
use super::place::{Errors, Place};
use crate::field::Error;
use crate::quantity::Quantity;

const CONTAINER_NAMES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Counted in whole numbers.
const INTEGER_NAMES: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const QUOTA_NAMES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
const NATIVE_DOMAIN: &str = "kubernetes.io/";
/// What may be asked for at the level of the pod, besides huge pages.
const POD_LEVEL_NAMES: &[&str] = &["cpu", "memory"];

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains(NATIVE_DOMAIN)
}
/// `IsExtendedResourceName`: a device under somebody's own domain.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with(REQUESTS) && format::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}
pub fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}
pub fn is_integer(name: &str) -> bool {
    INTEGER_NAMES.contains(&name) || is_extended(name)
}
fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.strip_prefix(REQUESTS).is_some_and(is_huge_pages)
}
/// `IsStandardQuotaResourceName`.
pub fn is_standard_quota(name: &str) -> bool {
    QUOTA_NAMES.contains(&name) || INTEGER_NAMES.contains(&name) || is_quota_huge_pages(name)
}
fn is_standard(name: &str) -> bool {
    is_standard_quota(name) || name == "storage"
}
fn is_pod_level(name: &str) -> bool {
    POD_LEVEL_NAMES.contains(&name) || is_huge_pages(name)
}

/// The amount a value stands for; zero when it is none.
pub fn read(value: &Value) -> Quantity {
    match value {
        Value::String(text) => Quantity::parse(text).unwrap_or_default(),
        Value::Number(number) => Quantity::parse(&number.to_string()).unwrap_or_default(),
        _ => Quantity::default(),
    }
}

/// `validateResourceName`. `place` is where `name` is complained about; true when it is fine.
pub fn name(name: &str, place: &Place, errors: &mut Errors) -> bool {
    let problems = format::qualified_name(name);
    if !problems.is_empty() {
        errors.extend(problems.into_iter().map(|p| Error::invalid(place.path(), name, p)));
        return false;
    }
    if !name.contains('/') && !is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(Error::invalid(place.path(), name, detail));
        return false;
    }
    true
}

/// `validateContainerResourceName`.
pub fn container_name(name: &str, place: &Place, errors: &mut Errors) {
    self::name(name, place, errors);
    if !name.contains('/') {
        if !CONTAINER_NAMES.contains(&name) && !is_huge_pages(name) {
            errors.push(Error::invalid(place.path(), name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(place.path(), name, "doesn't follow extended resource name standard"));
    }
}

fn pod_level_name(name: &str, place: &Place, errors: &mut Errors) {
    if self::name(name, place, errors) && !is_pod_level(name) {
        errors.push(Error::not_supported(place.path(), name, POD_LEVEL_NAMES));
    }
}

/// `ValidateResourceQuantityValue`.
pub fn amount(name: &str, place: &Place, errors: &mut Errors) {
    let amount = read(place.value);
    if amount < Quantity::default() {
        errors.push(place.invalid("must be greater than or equal to 0"));
    }
    if is_integer(name) && !amount.is_integer() {
        errors.push(place.invalid("must be an integer"));
    }
}

fn huge_pages_amount(name: &str, place: &Place, errors: &mut Errors) {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else { return };
    let size = Quantity::parse(size).unwrap_or_default();
    let divisible = size > Quantity::default() && size.is_integer() && read(place.value).value() % size.value() == 0;
    if !divisible {
        errors.push(place.invalid(format!("{} is not positive integer multiple of {name}", place.str())));
    }
}

/// The `resources` of a container: requests within limits, limits where overcommitting is impossible, claims of the pod.
pub fn requirements(resources: &Place, claim_names: &[&str], errors: &mut Errors) {
    self::check(resources, container_name, errors);
    claims(&resources.field("claims"), claim_names, errors);
}

fn check(resources: &Place, name_rule: fn(&str, &Place, &mut Errors), errors: &mut Errors) {
    if resources.is_empty() {
        return;
    }
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    let (mut compute, mut huge) = (false, false);
    for list in [&limits, &requests] {
        for (name, place) in list.entries() {
            name_rule(name, &place, errors);
            amount(name, &place, errors);
            huge_pages_amount(name, &place, errors);
            compute |= name == "cpu" || name == "memory";
            huge |= is_huge_pages(name);
        }
    }
    for (name, request) in requests.entries() {
        let asked = read(request.value);
        match limits.value.get(name).map(read) {
            Some(limit) if asked != limit && !is_overcommittable(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(requests.path(), request.value.clone(), detail));
            }
            Some(limit) if asked > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(requests.path(), request.value.clone(), detail));
            }
            None if !is_overcommittable(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
    if huge && !compute {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// `validateResourceClaimNames`: each names a claim of the pod, and no request twice.
fn claims(claims: &Place, names: &[&str], errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for claim in claims.items() {
        let (name, request) = (claim.field("name").str(), claim.field("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        if !request.is_empty() && !seen.contains(&(name, "")) {
            format::check(&request, format::label, errors);
        }
        let overlaps =
            seen.iter().any(|(n, r)| *n == name && (r.is_empty() || request.is_empty() || *r == request.str()));
        if overlaps {
            errors.push(Error::duplicate(claim.path(), name));
        }
        seen.push((name, request.str()));
        if !names.contains(&name) {
            let mut error = claim.not_found();
            error.value = name.into();
            error.detail = match names {
                [] => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
                names => format!("must be one of the names in pod.spec.resourceClaims: {}", names.join(", ")),
            };
            errors.push(error);
        }
    }
}

/// `spec.resources` of a pod: what all containers share.
pub fn pod_level(spec: &Place, errors: &mut Errors) {
    let resources = spec.field("resources");
    if !resources.is_set() {
        return;
    }
    if spec.field("os").field("name").str() == "windows" {
        errors.push(resources.forbidden("may not be set for a windows pod"));
        return;
    }
    if resources.field("claims").is_set() {
        errors.push(resources.field("claims").forbidden("claims may not be set for Resources at pod-level"));
    }
    check(&resources, pod_level_name, errors);
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        let pod_list = resources.field(list);
        for (name, used) in container_sum(spec.value, list) {
            if list == "limits" && !is_huge_pages(&name) {
                continue;
            }
            let pod_amount = pod_list.key(&name);
            if pod_amount.is_set() && used > read(pod_amount.value) {
                let detail = format!("must be greater than or equal to aggregate container {what} of {used}");
                errors.push(pod_amount.invalid(detail));
            }
        }
    }
    container_limits_within_pod(spec, &resources, errors);
}

fn container_limits_within_pod(spec: &Place, resources: &Place, errors: &mut Errors) {
    let pod_limits = resources.field("limits");
    let containers = resources.named("containers", spec.field("containers").value);
    for container in containers.items() {
        let limits = container.field("resources").field("limits").value;
        for (name, limit) in limits.as_object().into_iter().flatten() {
            let pod_limit = pod_limits.key(name);
            if pod_limit.is_set() && read(limit) > read(pod_limit.value) {
                let detail = format!("must be less than or equal to pod limits of {}", pod_limit.str());
                let path = container.key(name).field("limits").path();
                errors.push(Error::invalid(path, limit.clone(), detail));
            }
        }
    }
}

/// What the containers of a pod ask for together (`AggregateContainerRequests`, `AggregateContainerLimits`): containers
/// and sidecars add up, other init containers run one at a time beside the sidecars before them.
pub fn container_sum(spec: &Value, list: &str) -> Vec<(String, Quantity)> {
    let mut total: Vec<(String, Quantity)> = Vec::new();
    for container in containers(spec, "containers") {
        add(&mut total, container, list);
    }
    let mut sidecars: Vec<(String, Quantity)> = Vec::new();
    let mut peak: Vec<(String, Quantity)> = Vec::new();
    for container in containers(spec, "initContainers") {
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, container, list);
            add(&mut sidecars, container, list);
            raise(&mut peak, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, container, list);
            raise(&mut peak, &with_sidecars);
        }
    }
    raise(&mut total, &peak);
    total
}

fn containers<'a>(spec: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn add(sum: &mut Vec<(String, Quantity)>, container: &Value, list: &str) {
    let amounts = container.get("resources").and_then(|r| r.get(list)).and_then(Value::as_object);
    for (name, amount) in amounts.into_iter().flatten() {
        match sum.iter_mut().find(|(n, _)| n == name) {
            Some((_, total)) => *total = total.plus(read(amount)),
            None => sum.push((name.clone(), read(amount))),
        }
    }
}

fn raise(sum: &mut Vec<(String, Quantity)>, floor: &[(String, Quantity)]) {
    for (name, amount) in floor {
        match sum.iter_mut().find(|(n, _)| n == name) {
            Some((_, total)) if *total < *amount => *total = *amount,
            Some(_) => {}
            None => sum.push((name.clone(), *amount)),
        }
    }
}

/// Pod-level requests and huge page limits follow from the containers' and from pod-level limits, once a pod asks for
/// anything at its own level (`defaultHugePagePodLimits`, `defaultPodRequests`).
pub fn default_pod_level(spec: &mut Value) {
    let Some(resources) = spec.get("resources").and_then(Value::as_object) else { return };
    let list = |name: &str| resources.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut limits, mut requests) = (list("limits"), list("requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, amount) in container_sum(spec, "limits") {
        if is_huge_pages(&name) && !requests.contains_key(&name) {
            limits.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
    if !limits.is_empty() {
        for (name, amount) in container_sum(spec, "requests") {
            if is_pod_level(&name) && is_overcommittable(&name) {
                requests.entry(name).or_insert_with(|| amount.to_string().into());
            }
        }
        for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level(name)) {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    for (field, list) in [("limits", limits), ("requests", requests)] {
        if !list.is_empty() {
            spec["resources"][field] = Value::Object(list);
        }
    }
}

/// Amounts finer than a thousandth are rounded up (`SetDefaults_ResourceList`).
pub fn round_up(resources: &mut Value) {
    for list in ["limits", "requests"] {
        let Some(amounts) = resources.get_mut(list).and_then(Value::as_object_mut) else { continue };
        for amount in amounts.values_mut().filter(|a| a.as_str().is_some_and(|a| a.ends_with(['n', 'u']))) {
            *amount = read(amount).round_up_to_milli().to_string().into();
        }
    }
}

/// Requests equal the limits that have none (`SetDefaults_Pod`).
pub fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if !resources.get("requests").is_some_and(Value::is_object) {
        resources["requests"] = Value::Object(Map::new());
    }
    let Some(requests) = resources["requests"].as_object_mut() else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}
