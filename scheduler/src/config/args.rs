//! Arguments of plugins and extenders as they stand in the file, with upstream's checks
//! (`apis/config/validation/validation_pluginargs`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parse::Faults;
use super::{Args, Extender, FitArgs, InterPodArgs, PreemptionArgs, ResourceSpec, Resources, SpreadArgs, Strategy};

/// Scores of a shape reach to this (`MaxCustomPriorityScore`).
const SHAPE_SCORE_MAX: i64 = 10;

/// What every kind of arguments may say about itself.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Typed {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawPreemption {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawInterPod {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawNodeAffinity {
    added_affinity: Option<NodeAffinity>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawSpread {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawVolumeBinding {
    bind_timeout_seconds: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawBalanced {
    resources: Vec<RawResource>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawFit {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<RawStrategy>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawStrategy {
    r#type: String,
    resources: Vec<RawResource>,
    requested_to_capacity_ratio: Option<RawRatio>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RawRatio {
    shape: Vec<RawPoint>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RawPoint {
    utilization: i64,
    score: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RawResource {
    name: String,
    weight: i64,
}

/// Reads the arguments of one plugin into `args`.
pub(super) fn plugin(path: &str, name: &str, mut value: Value, args: &mut Args, faults: &mut Faults) {
    let typed: Typed = serde_json::from_value(value.clone()).unwrap_or_default();
    let expected = format!("{name}Args");
    if typed.kind.as_ref().is_some_and(|kind| *kind != expected) {
        return faults
            .add(path, format!("kind {:?} has to match plugin args ({expected})", typed.kind.unwrap_or_default()));
    }
    drop(typed.api_version);
    match &mut value {
        Value::Object(fields) => {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        other => *other = Value::Object(serde_json::Map::new()),
    }
    match name {
        "NodeResourcesFit" => read(path, value, faults, |raw, faults| args.fit = fit(path, raw, faults)),
        "NodeResourcesBalancedAllocation" => {
            read(path, value, faults, |raw, faults| args.balanced = balanced(path, raw, faults));
        }
        "DefaultPreemption" => {
            read(path, value, faults, |raw, faults| args.preemption = preemption(path, &raw, faults))
        }
        "InterPodAffinity" => read(path, value, faults, |raw: RawInterPod, faults| {
            let weight = raw.hard_pod_affinity_weight.unwrap_or(1);
            in_range(&format!("{path}.hardPodAffinityWeight"), weight, 0, 100, faults);
            args.inter_pod = InterPodArgs {
                hard_pod_affinity_weight: weight,
                ignore_preferred_terms_of_existing_pods: raw.ignore_preferred_terms_of_existing_pods,
            };
        }),
        "NodeAffinity" => read(path, value, faults, |raw: RawNodeAffinity, _| args.added_affinity = raw.added_affinity),
        "PodTopologySpread" => read(path, value, faults, |raw, faults| args.spread = spread(path, raw, faults)),
        "VolumeBinding" => read(path, value, faults, |raw: RawVolumeBinding, faults| {
            let seconds = raw.bind_timeout_seconds.unwrap_or(600);
            if seconds < 0 {
                let detail = "invalid BindTimeoutSeconds, should not be a negative value";
                faults.invalid(&format!("{path}.bindTimeoutSeconds"), seconds, detail);
            }
            args.volume_binding.timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        }),
        // Plugins without arguments, and those of others.
        _ => {}
    }
}

fn read<T: DeserializeOwned>(path: &str, value: Value, faults: &mut Faults, take: impl FnOnce(T, &mut Faults)) {
    match serde_json::from_value(value) {
        Ok(raw) => take(raw, faults),
        Err(error) => faults.add(path, error),
    }
}

fn in_range(path: &str, value: i64, min: i64, max: i64, faults: &mut Faults) {
    if !(min..=max).contains(&value) {
        faults.invalid(path, value, &format!("not in valid range [{min}, {max}]"));
    }
}

fn preemption(path: &str, raw: &RawPreemption, faults: &mut Faults) -> PreemptionArgs {
    let percentage = raw.min_candidate_nodes_percentage.unwrap_or(10);
    let absolute = raw.min_candidate_nodes_absolute.unwrap_or(100);
    let (at, at_absolute) =
        (format!("{path}.minCandidateNodesPercentage"), format!("{path}.minCandidateNodesAbsolute"));
    in_range(&at, percentage, 0, 100, faults);
    if absolute < 0 {
        faults.invalid(&at_absolute, absolute, "not in valid range [0, inf)");
    }
    if percentage == 0 && absolute == 0 {
        faults.invalid(&at, percentage, "cannot be zero at the same time as minCandidateNodesAbsolute");
        faults.invalid(&at_absolute, absolute, "cannot be zero at the same time as minCandidateNodesPercentage");
    }
    let size = |n: i64| usize::try_from(n).unwrap_or_default();
    PreemptionArgs { nodes_min_percentage: size(percentage), nodes_min: size(absolute) }
}

fn resources(path: &str, raw: Vec<RawResource>, faults: &mut Faults) -> Resources {
    if raw.is_empty() {
        return Resources::default();
    }
    let spec = |(index, r): (usize, RawResource)| {
        let weight = if r.weight == 0 { 1 } else { r.weight };
        if !(1..=100).contains(&weight) {
            let detail = format!("resource weight of {} not in valid range (0, 100]", r.name);
            faults.invalid(&format!("{path}[{index}].weight"), weight, &detail);
        }
        ResourceSpec { name: r.name, weight }
    };
    Resources(raw.into_iter().enumerate().map(spec).collect())
}

fn balanced(path: &str, raw: RawBalanced, faults: &mut Faults) -> Resources {
    let path = format!("{path}.resources");
    for (index, resource) in raw.resources.iter().enumerate() {
        if raw.resources[..index].iter().any(|r| r.name == resource.name) {
            faults.add(&format!("{path}[{index}].name"), format!("Duplicate value: {:?}", resource.name));
        }
        if resource.weight > 1 {
            faults.invalid(&format!("{path}[{index}].weight"), resource.weight, "must be 1");
        }
    }
    resources(&path, raw.resources, faults)
}

fn fit(path: &str, raw: RawFit, faults: &mut Faults) -> FitArgs {
    for (index, group) in raw.ignored_resource_groups.iter().enumerate().filter(|(_, g)| g.contains('/')) {
        let path = format!("{path}.ignoredResourceGroups[{index}]");
        faults.invalid(&path, format!("{group:?}"), "resource group name can't contain '/'");
    }
    let path = format!("{path}.scoringStrategy");
    let raw_strategy = raw.scoring_strategy.unwrap_or_default();
    let ratio_path = format!("{path}.requestedToCapacityRatio");
    let strategy = match (raw_strategy.r#type.as_str(), raw_strategy.requested_to_capacity_ratio) {
        ("RequestedToCapacityRatio", None) => {
            faults.add(&ratio_path, "Required value: must be specified when type is RequestedToCapacityRatio");
            Strategy::default()
        }
        ("RequestedToCapacityRatio", Some(ratio)) => {
            Strategy::RequestedToCapacityRatio(shape(&format!("{ratio_path}.shape"), &ratio.shape, faults))
        }
        (_, Some(_)) => {
            faults.add(&ratio_path, "Forbidden: must be nil when type is not RequestedToCapacityRatio");
            Strategy::default()
        }
        ("LeastAllocated" | "", None) => Strategy::LeastAllocated,
        ("MostAllocated", None) => Strategy::MostAllocated,
        (other, None) => {
            let known = r#"supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio""#;
            faults.add(&format!("{path}.type"), format!("Unsupported value: {other:?}: {known}"));
            Strategy::default()
        }
    };
    FitArgs {
        ignored_resources: raw.ignored_resources.into_iter().collect(),
        ignored_groups: raw.ignored_resource_groups.into_iter().collect(),
        strategy,
        resources: resources(&format!("{path}.resources"), raw_strategy.resources, faults),
    }
}

/// Points of a line; scores are scaled to those of nodes.
fn shape(path: &str, points: &[RawPoint], faults: &mut Faults) -> Vec<(i64, i64)> {
    if points.is_empty() {
        faults.add(path, "Required value: at least one point must be specified");
    }
    for (index, pair) in points.windows(2).enumerate().filter(|(_, p)| p[0].utilization >= p[1].utilization) {
        let path = format!("{path}[{}].utilization", index + 1);
        faults.invalid(&path, pair[1].utilization, "values must be sorted in increasing order");
    }
    for (index, point) in points.iter().enumerate() {
        in_range(&format!("{path}[{index}].utilization"), point.utilization, 0, 100, faults);
        in_range(&format!("{path}[{index}].score"), point.score, 0, SHAPE_SCORE_MAX, faults);
    }
    points.iter().map(|p| (p.utilization, p.score * (crate::plugins::SCORE_MAX / SHAPE_SCORE_MAX))).collect()
}

fn spread(path: &str, raw: RawSpread, faults: &mut Faults) -> SpreadArgs {
    match raw.defaulting_type.as_deref() {
        None | Some("System") if raw.default_constraints.is_empty() => return SpreadArgs::default(),
        None | Some("System") => {
            faults.invalid(&format!("{path}.defaultingType"), "\"System\"", "when .defaultConstraints are not empty");
        }
        Some("List") => {}
        Some(other) => {
            let detail = format!("Unsupported value: {other:?}: supported values: \"System\", \"List\"");
            faults.add(&format!("{path}.defaultingType"), detail);
        }
    }
    for (index, constraint) in raw.default_constraints.iter().enumerate() {
        check_constraint(&format!("{path}.defaultConstraints[{index}]"), constraint, faults);
    }
    SpreadArgs { constraints: raw.default_constraints, is_system_default: false }
}

fn check_constraint(path: &str, constraint: &TopologySpreadConstraint, faults: &mut Faults) {
    if constraint.max_skew <= 0 {
        faults.invalid(&format!("{path}.maxSkew"), constraint.max_skew, "not in valid range (0, inf)");
    }
    if constraint.topology_key.is_empty() {
        faults.add(&format!("{path}.topologyKey"), "Required value: can not be empty");
    }
    match constraint.when_unsatisfiable.as_str() {
        "DoNotSchedule" | "ScheduleAnyway" => {}
        "" => faults.add(&format!("{path}.whenUnsatisfiable"), "Required value: can not be empty"),
        other => {
            let detail = r#"supported values: "DoNotSchedule", "ScheduleAnyway""#;
            faults.add(&format!("{path}.whenUnsatisfiable"), format!("Unsupported value: {other:?}: {detail}"));
        }
    }
    if constraint.label_selector.is_some() {
        let detail = "Forbidden: constraint must not define a selector, as they deduced for each pod";
        faults.add(&format!("{path}.labelSelector"), detail);
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct RawExtender {
    url_prefix: String,
    filter_verb: String,
    preempt_verb: String,
    prioritize_verb: String,
    bind_verb: String,
    weight: i64,
    #[serde(rename = "enableHTTPS")]
    enable_https: bool,
    tls_config: Option<Value>,
    http_timeout: Option<String>,
    node_cache_capable: bool,
    managed_resources: Vec<RawManaged>,
    ignorable: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RawManaged {
    name: String,
    ignored_by_scheduler: bool,
}

pub(super) fn extenders(raw: Vec<RawExtender>, faults: &mut Faults) -> Vec<Extender> {
    if raw.iter().filter(|e| !e.bind_verb.is_empty()).count() > 1 {
        faults.add("extenders", "only one extender can implement bind");
    }
    let one = |(index, raw): (usize, RawExtender)| {
        let path = format!("extenders[{index}]");
        if !raw.prioritize_verb.is_empty() && raw.weight <= 0 {
            faults.invalid(&format!("{path}.weight"), raw.weight, "must have a positive weight applied to it");
        }
        if raw.enable_https || raw.tls_config.is_some() || raw.url_prefix.starts_with("https:") {
            faults.add(&path, "extenders over HTTPS are not supported by this scheduler");
        }
        if !raw.url_prefix.starts_with("http://") && !raw.url_prefix.starts_with("https://") {
            faults.invalid(&format!("{path}.urlPrefix"), format!("{:?}", raw.url_prefix), "must be an http URL");
        }
        let timeout = raw.http_timeout.as_deref().map(|text| text.parse::<jiff::SignedDuration>());
        if matches!(timeout, Some(Err(_))) {
            faults.add(&format!("{path}.httpTimeout"), "is no duration");
        }
        let timeout = timeout.and_then(Result::ok).and_then(|d| Duration::try_from(d).ok());
        Extender {
            url_prefix: raw.url_prefix.trim_end_matches('/').to_owned(),
            filter_verb: raw.filter_verb,
            preempt_verb: raw.preempt_verb,
            prioritize_verb: raw.prioritize_verb,
            bind_verb: raw.bind_verb,
            weight: raw.weight,
            timeout: timeout.filter(|t| !t.is_zero()).unwrap_or(Extender::TIMEOUT),
            knows_nodes: raw.node_cache_capable,
            managed: raw.managed_resources.into_iter().map(|r| (r.name, r.ignored_by_scheduler)).collect(),
            is_ignorable: raw.ignorable,
        }
    };
    raw.into_iter().enumerate().map(one).collect()
}
