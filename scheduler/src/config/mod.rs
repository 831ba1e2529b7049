//! What can be configured, with upstream's defaults (`kubescheduler.config.k8s.io/v1`): profiles with their plugins and
//! arguments, and how waiting pods pause.

mod args;
mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};

pub use parse::Error;

use crate::objects::{DEFAULT_SCHEDULER_NAME, Pod};
use crate::plugins::Plugin;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub profiles: Vec<Profile>,
    /// Share of the nodes that are scored, in percent; 0: by their number. A profile's own goes before.
    pub percentage_of_nodes_to_score: i64,
    /// First pause after a failed attempt; doubled by each further one (`podInitialBackoffSeconds`).
    pub backoff_first: Duration,
    /// Longest pause (`podMaxBackoffSeconds`).
    pub backoff_max: Duration,
    /// Asked over HTTP, in order.
    pub extenders: Vec<Extender>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            percentage_of_nodes_to_score: 0,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            extenders: Vec::new(),
        }
    }
}

impl Config {
    /// The profile for pods that ask for this scheduler.
    pub fn profile(&self, pod: &Pod) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.scheduler_name == pod.scheduler_name)
    }
}

/// How pods of one scheduler name are scheduled.
#[derive(Clone, Debug)]
pub struct Profile {
    pub scheduler_name: String,
    /// In order.
    pub filters: Vec<Plugin>,
    /// With their weights.
    pub scores: Vec<(Plugin, i64)>,
    /// What is tried when no node fits, in order.
    pub post_filters: Vec<Plugin>,
    /// Pods with scheduling gates are held.
    pub holds_gated: bool,
    pub percentage_of_nodes_to_score: Option<i64>,
    pub args: Args,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            scheduler_name: DEFAULT_SCHEDULER_NAME.to_owned(),
            filters: vec![
                Plugin::NodeUnschedulable,
                Plugin::NodeName,
                Plugin::TaintToleration,
                Plugin::NodeAffinity,
                Plugin::NodePorts,
                Plugin::NodeResourcesFit,
                Plugin::VolumeRestrictions,
                Plugin::NodeVolumeLimits,
                Plugin::VolumeBinding,
                Plugin::VolumeZone,
                Plugin::PodTopologySpread,
                Plugin::InterPodAffinity,
                Plugin::DynamicResources,
            ],
            scores: vec![
                (Plugin::TaintToleration, 3),
                (Plugin::NodeAffinity, 2),
                (Plugin::NodeResourcesFit, 1),
                (Plugin::PodTopologySpread, 2),
                (Plugin::InterPodAffinity, 2),
                (Plugin::NodeResourcesBalancedAllocation, 1),
                (Plugin::ImageLocality, 1),
            ],
            post_filters: vec![Plugin::DynamicResources, Plugin::DefaultPreemption],
            holds_gated: true,
            percentage_of_nodes_to_score: None,
            args: Args::default(),
        }
    }
}

impl Profile {
    /// Whether a plugin filters or scores.
    pub fn uses(&self, plugin: Plugin) -> bool {
        self.filters.contains(&plugin) || self.scores.iter().any(|(p, _)| *p == plugin)
    }
}

/// Arguments of plugins.
#[derive(Clone, Debug, Default)]
pub struct Args {
    pub fit: FitArgs,
    pub balanced: Resources,
    /// For every pod, besides its own (`addedAffinity`).
    pub added_affinity: Option<NodeAffinity>,
    pub inter_pod: InterPodArgs,
    pub spread: SpreadArgs,
    pub preemption: PreemptionArgs,
    pub volume_binding: VolumeBindingArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSpec {
    pub name: String,
    pub weight: i64,
}

/// Resources that are scored: CPU and memory by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources(pub Vec<ResourceSpec>);

impl Default for Resources {
    fn default() -> Self {
        Self(["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).into())
    }
}

impl std::ops::Deref for Resources {
    type Target = [ResourceSpec];

    fn deref(&self) -> &[ResourceSpec] {
        &self.0
    }
}

#[derive(Clone, Debug, Default)]
pub struct FitArgs {
    pub ignored_resources: BTreeSet<String>,
    /// The part before the slash.
    pub ignored_groups: BTreeSet<String>,
    pub strategy: Strategy,
    pub resources: Resources,
}

impl FitArgs {
    /// Whether an extended resource does not count.
    pub fn ignores(&self, name: &str) -> bool {
        let group = name.split('/').next().unwrap_or_default();
        let is_native = !name.contains('/') || group.ends_with("kubernetes.io");
        !is_native && (self.ignored_resources.contains(name) || self.ignored_groups.contains(group))
    }
}

/// How used nodes are scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    LeastAllocated,
    MostAllocated,
    /// Points of used share in percent and score, 0 to 100 each.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

#[derive(Clone, Debug)]
pub struct InterPodArgs {
    /// How much a pod weighs whose own required affinity is for the incoming pod.
    pub hard_pod_affinity_weight: i64,
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Constraints for pods that have none.
#[derive(Clone, Debug)]
pub struct SpreadArgs {
    pub constraints: Vec<TopologySpreadConstraint>,
    /// They are the built-in ones, which do without labels that nodes lack.
    pub is_system_default: bool,
}

impl Default for SpreadArgs {
    /// `systemDefaultConstraints`.
    fn default() -> Self {
        let soft = |key: &str, max_skew| TopologySpreadConstraint {
            topology_key: key.to_owned(),
            max_skew,
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        };
        Self {
            constraints: vec![soft("kubernetes.io/hostname", 3), soft("topology.kubernetes.io/zone", 5)],
            is_system_default: true,
        }
    }
}

/// How many nodes are tried for preemption.
#[derive(Clone, Debug)]
pub struct PreemptionArgs {
    pub nodes_min_percentage: usize,
    pub nodes_min: usize,
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self { nodes_min_percentage: 10, nodes_min: 100 }
    }
}

#[derive(Clone, Debug)]
pub struct VolumeBindingArgs {
    /// How long a pod's claims may take to be bound.
    pub timeout: Duration,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600) }
    }
}

/// A program that has a say in decisions, over HTTP. An empty verb: it is not asked that.
#[derive(Clone, Debug)]
pub struct Extender {
    /// Without a slash at the end.
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub bind_verb: String,
    /// Of its scores, which reach to 10.
    pub weight: i64,
    pub timeout: Duration,
    /// It knows the nodes itself: their names are enough.
    pub knows_nodes: bool,
    /// Only pods that ask for one of these are its business, if there are any; with whether the scheduler leaves
    /// counting the resource to it.
    pub managed: BTreeMap<String, bool>,
    /// Decisions go on without it when it fails.
    pub is_ignorable: bool,
}

impl Extender {
    /// `DefaultExtenderTimeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

#[cfg(test)]
mod tests;
