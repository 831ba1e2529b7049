//! Resource requests and limits of pods and containers in the units the kernel takes. Pure.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// CPU in thousandths of a core, memory in bytes; `None` is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_request_milli: Option<i64>,
    pub cpu_limit_milli: Option<i64>,
    pub memory_request_bytes: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
}

type List = BTreeMap<String, Text>;

fn parsed(list: Option<&List>, name: &str) -> Option<Quantity> {
    list?.get(name).and_then(|text| Quantity::parse(&text.0).ok())
}

impl Resources {
    /// A limit without a request requests the limit, as the API server's defaults have it.
    pub fn of(requirements: Option<&ResourceRequirements>) -> Self {
        let Some(requirements) = requirements else { return Self::default() };
        let (requests, limits) = (requirements.requests.as_ref(), requirements.limits.as_ref());
        let cpu_limit_milli = parsed(limits, "cpu").map(Quantity::milli_value);
        let memory_limit_bytes = parsed(limits, "memory").map(Quantity::value);
        Self {
            cpu_request_milli: parsed(requests, "cpu").map(Quantity::milli_value).or(cpu_limit_milli),
            cpu_limit_milli,
            memory_request_bytes: parsed(requests, "memory").map(Quantity::value).or(memory_limit_bytes),
            memory_limit_bytes,
        }
    }

    /// Pod level: requests add up; a limit holds only if every container has one. Sidecars run beside the containers,
    /// other init containers before them, so those count as a maximum. `spec.resources` outweighs the sums.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let containers = spec.containers.iter().map(|container| Self::of(container.resources.as_ref()));
        let mut sum = containers.reduce(Self::plus).unwrap_or_default();
        let mut sidecars = Self::zero();
        let mut peak = Self::zero();
        for init in spec.init_containers.iter().flatten() {
            let own = Self::of(init.resources.as_ref());
            if is_sidecar(init) {
                sidecars = sidecars.plus(own);
                sum = sum.plus(own);
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars.plus(own));
            }
        }
        let sum = if spec.init_containers.is_some() { sum.max(peak) } else { sum };
        let own = Self::of(spec.resources.as_ref());
        Self {
            cpu_request_milli: own.cpu_request_milli.or(sum.cpu_request_milli),
            cpu_limit_milli: own.cpu_limit_milli.or(sum.cpu_limit_milli),
            memory_request_bytes: own.memory_request_bytes.or(sum.memory_request_bytes),
            memory_limit_bytes: own.memory_limit_bytes.or(sum.memory_limit_bytes),
        }
    }

    fn zero() -> Self {
        Self {
            cpu_request_milli: None,
            cpu_limit_milli: Some(0),
            memory_request_bytes: None,
            memory_limit_bytes: Some(0),
        }
    }

    fn plus(self, other: Self) -> Self {
        let add = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        let both = |a: Option<i64>, b: Option<i64>| Some(a? + b?);
        Self {
            cpu_request_milli: add(self.cpu_request_milli, other.cpu_request_milli),
            cpu_limit_milli: both(self.cpu_limit_milli, other.cpu_limit_milli),
            memory_request_bytes: add(self.memory_request_bytes, other.memory_request_bytes),
            memory_limit_bytes: both(self.memory_limit_bytes, other.memory_limit_bytes),
        }
    }

    /// The larger of each; no limit is more than any.
    pub fn max(self, other: Self) -> Self {
        let both = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
        Self {
            cpu_request_milli: self.cpu_request_milli.max(other.cpu_request_milli),
            cpu_limit_milli: both(self.cpu_limit_milli, other.cpu_limit_milli),
            memory_request_bytes: self.memory_request_bytes.max(other.memory_request_bytes),
            memory_limit_bytes: both(self.memory_limit_bytes, other.memory_limit_bytes),
        }
    }

    /// `cpu.shares`: 1024 per core of request, never below the kernel's minimum.
    pub fn cpu_shares(self) -> u64 {
        match self.cpu_request_milli {
            Some(milli) if milli > 0 => (milli as u64 * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX),
            _ => SHARES_MIN,
        }
    }

    /// Microseconds of CPU time per `CPU_PERIOD_US`; `None` is unlimited.
    pub fn cpu_quota_us(self) -> Option<i64> {
        let milli = self.cpu_limit_milli.filter(|milli| *milli > 0)?;
        Some((milli * CPU_PERIOD_US as i64 / 1000).max(CPU_QUOTA_MIN_US))
    }

    pub fn memory_limit(self) -> Option<i64> {
        self.memory_limit_bytes.filter(|bytes| *bytes > 0)
    }
}

/// Bounds of `cpu.shares` in the kernel.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
pub const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses less.
const CPU_QUOTA_MIN_US: i64 = 1000;

/// An init container that is restarted for as long as the pod lives.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// kubelet's `GetPodQOS`: only cpu and memory count.
pub fn qos(spec: &PodSpec) -> Qos {
    let sets: Vec<(Option<&List>, Option<&List>)> = match &spec.resources {
        Some(own) if own.requests.is_some() || own.limits.is_some() => {
            vec![(own.requests.as_ref(), own.limits.as_ref())]
        }
        _ => spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .map(|container| {
                let own = container.resources.as_ref();
                (own.and_then(|own| own.requests.as_ref()), own.and_then(|own| own.limits.as_ref()))
            })
            .collect(),
    };
    let positive = |list: Option<&List>, name| parsed(list, name).filter(|quantity| quantity.sign() > 0);
    let mut any = false;
    let mut guaranteed = true;
    for (requests, limits) in sets {
        for name in ["cpu", "memory"] {
            let limit = positive(limits, name);
            let request = positive(requests, name).or(limit);
            any |= limit.is_some() || request.is_some();
            let equal = matches!((request, limit), (Some(request), Some(limit))
                if request.milli_value() == limit.milli_value());
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// How readily the kernel kills a container's processes (kubelet's `GetContainerOOMScoreAdjust`).
pub fn oom_score_adj(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    /// Node-critical priorities start here.
    const CRITICAL_PRIORITY: i32 = 2_000_000_000;
    if spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY) {
        return GUARANTEED;
    }
    match qos(spec) {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable => {
            let request = Resources::of(container.resources.as_ref()).memory_request_bytes.unwrap_or(0);
            let score = 1000 - 1000 * request / node_memory_bytes.max(1);
            // Above every guaranteed container, below every best-effort one.
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::{Value, json};

    use super::{Qos, Resources, oom_score_adj, qos};

    fn spec(containers: Value) -> PodSpec {
        serde_json::from_value(json!({"containers": containers})).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn quality_of_service_follows_cpu_and_memory() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos(&spec(json!([{"name": "c"}]))), Qos::BestEffort);
        assert_eq!(qos(&spec(json!([container(full.clone(), full.clone())]))), Qos::Guaranteed);
        assert_eq!(qos(&spec(json!([container(json!({}), full.clone())]))), Qos::Guaranteed);
        assert_eq!(qos(&spec(json!([container(json!({"cpu": "100m"}), json!({}))]))), Qos::Burstable);
        assert_eq!(qos(&spec(json!([container(full.clone(), full), {"name": "d"}]))), Qos::Burstable);
        assert_eq!(qos(&spec(json!([container(json!({"example.com/gpu": "1"}), json!({}))]))), Qos::BestEffort);
    }

    #[test]
    fn a_pod_limit_needs_a_limit_on_every_container() {
        let limited = container(json!({"cpu": "250m"}), json!({"cpu": "500m", "memory": "64Mi"}));
        let both = Resources::of_pod(&spec(json!([limited.clone(), limited.clone()])));
        assert_eq!(both.cpu_limit_milli, Some(1000));
        assert_eq!(both.cpu_shares(), 512);
        assert_eq!(both.memory_limit(), Some(128 << 20));
        let one = Resources::of_pod(&spec(json!([limited, {"name": "d"}])));
        assert_eq!((one.cpu_limit_milli, one.cpu_request_milli), (None, Some(250)));
    }

    #[test]
    fn init_containers_count_as_a_peak_and_sidecars_as_a_part() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "setup", "resources": {"requests": {"cpu": "2"}}},
            ],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}],
        }))
        .unwrap();
        assert_eq!(Resources::of_pod(&spec).cpu_request_milli, Some(2100));
    }

    #[test]
    fn oom_scores_lie_between_the_classes() {
        let burstable = spec(json!([container(json!({"memory": "1Gi"}), json!({}))]));
        assert_eq!(oom_score_adj(&burstable, &burstable.containers[0], 4 << 30), 750);
        let besteffort = spec(json!([{"name": "c"}]));
        assert_eq!(oom_score_adj(&besteffort, &besteffort.containers[0], 4 << 30), 1000);
    }
}
