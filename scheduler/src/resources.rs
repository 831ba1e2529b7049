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

    /// Names of the resources of which `request` wants more than is left of `self` after `used`, in upstream's order.
    pub fn lacking(&self, used: &Self, request: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let mut check = |name: &str, allowed: i64, used: i64, wanted: i64| {
            if wanted > 0 && wanted > allowed - used {
                out.push(name.to_owned());
            }
        };
        check("cpu", self.milli_cpu, used.milli_cpu, request.milli_cpu);
        check("memory", self.memory, used.memory, request.memory);
        check("ephemeral-storage", self.ephemeral_storage, used.ephemeral_storage, request.ephemeral_storage);
        for (name, &wanted) in &request.scalar {
            let of = |r: &Self| r.scalar.get(name).copied().unwrap_or_default();
            check(name, of(self), of(used), wanted);
        }
        out
    }
}

/// The part of a container that matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    pub requests: Option<List>,
    pub limits: Option<List>,
}

/// What one container asks for: a limit without a request is a request.
fn container_request(resources: &ContainerResources) -> Resources {
    let empty = List::new();
    let mut list = resources.limits.as_ref().unwrap_or(&empty).clone();
    list.extend(resources.requests.iter().flatten().map(|(name, amount)| (name.clone(), amount.clone())));
    Resources::of(&list)
}

/// What a pod asks for, and what it counts for in scores, where absent requests have defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequest {
    pub exact: Resources,
    pub non_zero: Resources,
}

/// An init container with whether it is a sidecar (`restartPolicy: Always`).
pub struct InitContainer<'a> {
    pub resources: &'a ContainerResources,
    pub is_sidecar: bool,
}

impl PodRequest {
    /// The largest the pod gets at any time of its life (upstream's `resourcehelper.PodRequests`): all containers and
    /// sidecars together, or an init container together with the sidecars started before it; plus overhead.
    pub fn of<'a>(
        containers: impl Iterator<Item = &'a ContainerResources>,
        init: impl Iterator<Item = InitContainer<'a>>,
        overhead: &List,
    ) -> Self {
        let mut out = Self::default();
        for container in containers {
            let (exact, non_zero) = both(container);
            out.exact.add(&exact);
            out.non_zero.add(&non_zero);
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in init {
            let (exact, non_zero) = both(container.resources);
            let mut now = sidecars.clone();
            now.exact.add(&exact);
            now.non_zero.add(&non_zero);
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
        let overhead = Resources::of(overhead);
        out.exact.add(&overhead);
        out.non_zero.add(&overhead);
        out
    }
}

fn both(resources: &ContainerResources) -> (Resources, Resources) {
    let exact = container_request(resources);
    let mut non_zero = exact.clone();
    if non_zero.milli_cpu == 0 {
        non_zero.milli_cpu = DEFAULT_MILLI_CPU;
    }
    if non_zero.memory == 0 {
        non_zero.memory = DEFAULT_MEMORY;
    }
    (exact, non_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str) -> ContainerResources {
        let list = List::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
        ContainerResources { requests: Some(list), limits: None }
    }

    fn request(containers: &[&str], init: &[(&str, bool)], overhead: &str) -> i64 {
        let containers: Vec<_> = containers.iter().map(|c| container(c)).collect();
        let init: Vec<_> = init.iter().map(|(c, sidecar)| (container(c), *sidecar)).collect();
        let init = init.iter().map(|(resources, is_sidecar)| InitContainer { resources, is_sidecar: *is_sidecar });
        let overhead = container(overhead).requests.unwrap_or_default();
        PodRequest::of(containers.iter(), init, &overhead).exact.milli_cpu
    }

    #[test]
    fn a_pod_asks_for_the_most_it_ever_uses() {
        assert_eq!(request(&["100m", "1"], &[], "0"), 1100);
        assert_eq!(request(&["100m"], &[("2", false), ("1", false)], "50m"), 2050);
        assert_eq!(request(&["500m"], &[("300m", true), ("100m", false)], "0"), 800);
        assert_eq!(request(&["500m"], &[("300m", true), ("1", false)], "0"), 1300);
    }

    #[test]
    fn a_limit_without_a_request_is_a_request() {
        let list = List::from([("memory".to_owned(), Quantity("1Mi".to_owned()))]);
        let only_limit = ContainerResources { requests: None, limits: Some(list) };
        assert_eq!(container_request(&only_limit).memory, 1024 * 1024);
    }

    #[test]
    fn what_lacks_is_named() {
        let have = Resources { milli_cpu: 1000, memory: 100, ..Resources::default() };
        let used = Resources { milli_cpu: 900, memory: 100, ..Resources::default() };
        let want = Resources { milli_cpu: 200, memory: 0, ..Resources::default() };
        assert_eq!(have.lacking(&used, &want), ["cpu"]);
    }
}
