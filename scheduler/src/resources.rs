//! Amounts of resources and their sums, in the units upstream's scheduler counts in (`framework.Resource`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

/// What a container without a CPU request counts for in scores (`util.DefaultMilliCPURequest`).
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts for in scores, in bytes (`util.DefaultMemoryRequest`).
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// In thousandths of a core.
    pub milli_cpu: i64,
    /// In bytes.
    pub memory: i64,
    /// In bytes.
    pub ephemeral_storage: i64,
    /// Everything else by name; usually empty.
    pub scalar: BTreeMap<String, i64>,
}

/// A resource list as it stands in objects.
pub type List = BTreeMap<String, Quantity>;

impl Resources {
    /// From a resource list. Quantities that do not parse count as zero: the API server refuses them.
    pub fn of(list: &List) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = quantity.0.parse::<api::quantity::Quantity>() else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => {
                    out.scalar.insert(name.clone(), quantity.value());
                }
            }
        }
        out
    }

    pub fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
        self.scalar.retain(|_, amount| *amount != 0);
    }

    fn at_least(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let slot = self.scalar.entry(name.clone()).or_default();
            *slot = (*slot).max(*amount);
        }
    }

    /// The amount of a resource by its name.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            name => self.scalar.get(name).copied().unwrap_or_default(),
        }
    }

    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.values().all(|a| *a == 0)
    }

    /// Whether any amount that `wanted` asks for is less in `self` than in `before`.
    pub fn has_less(&self, before: &Self, wanted: &Self) -> bool {
        let less = |wanted: i64, now: i64, before: i64| wanted > 0 && now < before;
        less(wanted.milli_cpu, self.milli_cpu, before.milli_cpu)
            || less(wanted.memory, self.memory, before.memory)
            || less(wanted.ephemeral_storage, self.ephemeral_storage, before.ephemeral_storage)
            || wanted.scalar.iter().any(|(name, amount)| less(*amount, self.get(name), before.get(name)))
    }
}

/// The part of a container, or of a pod, that matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    pub requests: Option<List>,
    pub limits: Option<List>,
}

/// What a container or pod has been given, while it may differ from what it asks for: during a resize in place.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `status.resources.requests`
    pub actuated: Resources,
    /// `allocatedResources`
    pub allocated: Resources,
    /// The node cannot do the resize at all: what is asked for does not count.
    pub is_infeasible: bool,
}

/// One container's part in what its pod asks for.
pub struct ContainerRequest<'a> {
    pub resources: &'a ContainerResources,
    pub given: Option<Given>,
    /// An init container that goes on running (`restartPolicy: Always`).
    pub is_sidecar: bool,
}

/// What a pod says as a whole.
#[derive(Default)]
pub struct PodLevel<'a> {
    pub resources: Option<&'a ContainerResources>,
    pub given: Option<Given>,
    pub overhead: Option<&'a List>,
}

/// What a pod asks for, and what it counts for in scores, where absent requests have defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequest {
    pub exact: Resources,
    pub non_zero: Resources,
}

impl PodRequest {
    /// The largest the pod gets at any time of its life (upstream's `resourcehelper.PodRequests`): all containers and
    /// sidecars together, or an init container together with the sidecars started before it. What the pod asks for as
    /// a whole takes the place of its containers' sum. Plus overhead.
    pub fn of<'a>(
        containers: impl Iterator<Item = ContainerRequest<'a>>,
        init: impl Iterator<Item = ContainerRequest<'a>>,
        pod: &PodLevel<'_>,
    ) -> Self {
        let mut out = Self::default();
        for container in containers {
            let one = container.request();
            out.exact.add(&one.exact);
            out.non_zero.add(&one.non_zero);
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in init {
            let one = container.request();
            let mut now = sidecars.clone();
            now.exact.add(&one.exact);
            now.non_zero.add(&one.non_zero);
            if container.is_sidecar {
                sidecars = now.clone();
            }
            peak.exact.at_least(&now.exact);
            peak.non_zero.at_least(&now.non_zero);
        }
        out.exact.add(&sidecars.exact);
        out.non_zero.add(&sidecars.non_zero);
        out.exact.at_least(&peak.exact);
        out.non_zero.at_least(&peak.non_zero);
        out.apply_pod_level(pod);
        out
    }

    fn apply_pod_level(&mut self, pod: &PodLevel<'_>) {
        if let Some(list) = pod.resources.and_then(|r| r.requests.as_ref()) {
            let asked = effective(Resources::of(list), pod.given.as_ref());
            for sum in [&mut self.exact, &mut self.non_zero] {
                for name in list.keys() {
                    match name.as_str() {
                        "cpu" => sum.milli_cpu = asked.milli_cpu,
                        "memory" => sum.memory = asked.memory,
                        name if name.starts_with("hugepages-") => {
                            let amount = asked.scalar.get(name).copied().unwrap_or_default();
                            sum.scalar.insert(name.to_owned(), amount);
                        }
                        // Of other resources only containers have a share (`IsSupportedPodLevelResource`).
                        _ => {}
                    }
                }
            }
        }
        if let Some(overhead) = pod.overhead {
            let overhead = Resources::of(overhead);
            self.exact.add(&overhead);
            self.non_zero.add(&overhead);
        }
    }
}

/// `determineEffectiveRequests`.
fn effective(asked: Resources, given: Option<&Given>) -> Resources {
    let Some(given) = given else { return asked };
    let mut out = if given.is_infeasible { Resources::default() } else { asked };
    out.at_least(&given.actuated);
    out.at_least(&given.allocated);
    out
}

impl ContainerRequest<'_> {
    /// A limit without a request is a request; the server has set it so where it is ours.
    fn request(&self) -> PodRequest {
        let empty = List::new();
        let mut list = self.resources.limits.as_ref().unwrap_or(&empty).clone();
        list.extend(self.resources.requests.iter().flatten().map(|(name, amount)| (name.clone(), amount.clone())));
        let exact = effective(Resources::of(&list), self.given.as_ref());
        let mut non_zero = exact.clone();
        if !list.contains_key("cpu") && exact.milli_cpu == 0 {
            non_zero.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !list.contains_key("memory") && exact.memory == 0 {
            non_zero.memory = DEFAULT_MEMORY;
        }
        PodRequest { exact, non_zero }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str) -> ContainerResources {
        let list = List::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
        ContainerResources { requests: Some(list), limits: None }
    }

    fn plain(resources: &ContainerResources, is_sidecar: bool) -> ContainerRequest<'_> {
        ContainerRequest { resources, given: None, is_sidecar }
    }

    fn request(containers: &[&str], init: &[(&str, bool)], overhead: &str) -> i64 {
        let containers: Vec<_> = containers.iter().map(|c| container(c)).collect();
        let init: Vec<_> = init.iter().map(|(c, sidecar)| (container(c), *sidecar)).collect();
        let overhead = container(overhead).requests;
        let pod = PodLevel { overhead: overhead.as_ref(), ..PodLevel::default() };
        let containers = containers.iter().map(|c| plain(c, false));
        PodRequest::of(containers, init.iter().map(|(c, sidecar)| plain(c, *sidecar)), &pod).exact.milli_cpu
    }

    #[test]
    fn a_pod_asks_for_the_most_it_ever_uses() {
        assert_eq!(request(&["100m", "1"], &[], "0"), 1100);
        assert_eq!(request(&["100m"], &[("2", false), ("1", false)], "50m"), 2050);
        assert_eq!(request(&["500m"], &[("300m", true), ("100m", false)], "0"), 800);
        assert_eq!(request(&["500m"], &[("300m", true), ("1", false)], "0"), 1300);
    }

    #[test]
    fn what_the_pod_asks_for_as_a_whole_counts() {
        let (one, whole) = (container("500m"), container("2"));
        let pod = PodLevel { resources: Some(&whole), ..PodLevel::default() };
        let request = PodRequest::of([plain(&one, false)].into_iter(), [].into_iter(), &pod);
        assert_eq!((request.exact.milli_cpu, request.exact.memory), (2000, 0));
        assert_eq!(request.non_zero.memory, DEFAULT_MEMORY);
    }

    #[test]
    fn a_resize_counts_the_larger_until_it_is_done() {
        let asked = container("300m");
        let cpu = |milli_cpu| Resources { milli_cpu, ..Resources::default() };
        let check = |actuated, allocated, is_infeasible, expected| {
            let given = Given { actuated: cpu(actuated), allocated: cpu(allocated), is_infeasible };
            let one = ContainerRequest { resources: &asked, given: Some(given), is_sidecar: false };
            let request = PodRequest::of([one].into_iter(), [].into_iter(), &PodLevel::default());
            assert_eq!(request.exact.milli_cpu, expected);
        };
        check(500, 500, false, 500);
        check(100, 100, false, 300);
        check(100, 200, true, 200);
    }

    #[test]
    fn a_limit_without_a_request_is_a_request() {
        let list = List::from([("memory".to_owned(), Quantity("1Mi".to_owned()))]);
        let only_limit = ContainerResources { requests: None, limits: Some(list) };
        assert_eq!(plain(&only_limit, false).request().exact.memory, 1024 * 1024);
    }

    #[test]
    fn an_explicit_zero_is_no_absent_request() {
        assert_eq!(plain(&container("0"), false).request().non_zero.milli_cpu, 0);
        assert_eq!(plain(&ContainerResources::default(), false).request().non_zero.milli_cpu, DEFAULT_MILLI_CPU);
    }
}
