//! The plugins: filters in the profile's order, scores with its weights. By default both are upstream's
//! (`apis/config/v1.getDefaultPlugins`).

pub mod dynamic_resources;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_ports;
pub mod node_resources;
pub mod node_spec;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::config::Profile;
use crate::node::{NodeInfo, Slot};
use crate::objects::{Node, Pod};
use crate::verdict::{Refusal, Rejection, Verdict};

/// Highest score a plugin gives a node (`framework.MaxNodeScore`).
pub const SCORE_MAX: i64 = 100;

/// Names as in upstream's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
    /// Not a plugin: an HTTP extender refused, and nobody knows what could change its mind.
    Extender,
}

impl Plugin {
    pub const ALL: [Self; 19] = [
        Self::SchedulingGates,
        Self::PrioritySort,
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
        Self::DefaultPreemption,
        Self::NodeResourcesBalancedAllocation,
        Self::ImageLocality,
        Self::DefaultBinder,
    ];

    /// The name in configuration files is that of the variant.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// What is computed once per decision, and what changes in it when pods are thought to come or go.
#[derive(Clone, Default)]
pub struct State {
    affinity: inter_pod_affinity::State,
    spread: pod_topology_spread::State,
    restrictions: volume_restrictions::State,
    /// Absent when the plugin does not filter.
    pub volumes: volume_binding::State,
    zones: volume_zone::State,
    pub devices: dynamic_resources::State,
    /// The only nodes worth looking at, and who said so.
    pub names: Option<BTreeSet<String>>,
}

impl State {
    /// `RunPreFilterPlugins`, in the order of the profile's filters: the first that gives up ends it.
    pub fn prepare(pod: &Pod, profile: &Profile, cluster: &mut Cluster) -> Result<Self, Rejection> {
        let mut state = Self::default();
        for plugin in &profile.filters {
            match plugin {
                Plugin::NodeAffinity => state.names = node_affinity::names(pod)?,
                Plugin::VolumeRestrictions => {
                    state.restrictions = volume_restrictions::State::new(pod, &cluster.storage)?;
                }
                Plugin::VolumeBinding => state.volumes = volume_binding::State::new(pod, &cluster.storage)?,
                Plugin::DynamicResources => state.devices = dynamic_resources::State::new(pod, &cluster.devices)?,
                Plugin::VolumeZone => state.zones = volume_zone::State::new(pod, &cluster.storage)?,
                _ => {}
            }
        }
        if profile.uses(Plugin::PodTopologySpread) {
            state.spread = pod_topology_spread::State::new(pod, &profile.args.spread, cluster);
        }
        if profile.uses(Plugin::InterPodAffinity) {
            state.affinity = inter_pod_affinity::State::new(pod, &profile.args.inter_pod, cluster);
        }
        Ok(state)
    }

    /// What would be if `other` came to (1) or left (-1) a node (`PreFilterExtensions`).
    pub fn update(&mut self, pod: &Pod, other: &Pod, slot: Slot, amount: i64, cluster: &Cluster) {
        self.affinity.update(pod, other, slot, amount, cluster);
        self.spread.update(pod, other, slot, amount, cluster);
        self.restrictions.update(pod, other, amount);
    }
}

/// What a decision is about.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub profile: &'a Profile,
    pub cluster: &'a Cluster,
}

/// Whether the pod may run on the node as `info` and `state` have it: the first refusal ends the search, as upstream's
/// `RunFilterPlugins`.
pub fn filter(context: &Context<'_>, state: &State, info: &NodeInfo) -> Verdict {
    let Context { pod, profile, cluster } = context;
    let Some(node) = info.node.as_deref() else {
        return refuse_for_good(Plugin::NodeName, "node(s) had unknown conditions");
    };
    for plugin in &profile.filters {
        match plugin {
            Plugin::NodeUnschedulable => node_spec::unschedulable(pod, node)?,
            Plugin::TaintToleration => taint_toleration::filter(pod, node)?,
            Plugin::NodeAffinity => node_affinity::filter(pod, profile.args.added_affinity.as_ref(), node)?,
            Plugin::NodePorts => node_ports::filter(pod, info)?,
            Plugin::NodeResourcesFit => node_resources::filter(pod, &profile.args.fit, node, info)?,
            Plugin::VolumeRestrictions => volume_restrictions::filter(pod, &state.restrictions, info)?,
            Plugin::NodeVolumeLimits => node_volume_limits::filter(pod, &cluster.storage, node, info)?,
            Plugin::VolumeBinding => volume_binding::filter(&state.volumes, &cluster.storage, node)?,
            Plugin::VolumeZone => volume_zone::filter(&state.zones, node)?,
            Plugin::DynamicResources => dynamic_resources::filter(&state.devices, &cluster.devices, node)?,
            Plugin::PodTopologySpread => pod_topology_spread::filter(pod, &state.spread, info.slot)?,
            Plugin::InterPodAffinity => inter_pod_affinity::filter(&state.affinity, info.slot)?,
            _ => {}
        }
    }
    Ok(())
}

/// Like [`filter`], with and without the pods that wait for room on the node and are as important as this one
/// (`RunFilterPluginsWithNominatedPods`): both must let it in, as they may come or may not.
pub fn filter_beside_nominated(context: &Context<'_>, state: &State, info: &NodeInfo) -> Verdict {
    let Context { pod, cluster, .. } = context;
    if !cluster.nominated.is_empty() {
        let name = info.node.as_ref().map(|n| n.metadata.name.as_str()).unwrap_or_default();
        let before_us = |other: &&Arc<Pod>| other.priority >= pod.priority && other.metadata.uid != pod.metadata.uid;
        let mut nominated = cluster.nominated.on(name).iter().filter(before_us).peekable();
        if nominated.peek().is_some() {
            let (mut state, mut info) = (state.clone(), info.clone());
            for other in nominated {
                info.add(other);
                state.update(pod, other, info.slot, 1, cluster);
            }
            filter(context, &state, &info)?;
        }
    }
    filter(context, state, info)
}

/// Weighted sums of all scores, one per node of `nodes`. `order`: all nodes.
pub fn scores(context: &Context<'_>, state: &State, order: &[Slot], nodes: &[&NodeInfo]) -> Vec<i64> {
    let Context { pod, profile, cluster } = context;
    let mut sums = vec![0; nodes.len()];
    let each = |score: &dyn Fn(&Node, &NodeInfo) -> i64| -> Vec<i64> {
        nodes.iter().map(|info| info.node.as_ref().map_or(0, |node| score(node, info))).collect()
    };
    let args = &profile.args;
    for (plugin, weight) in &profile.scores {
        let scores = match plugin {
            Plugin::TaintToleration => normalized(each(&|node, _| taint_toleration::intolerable(pod, node)), true),
            Plugin::NodeAffinity => {
                let added = args.added_affinity.as_ref();
                if pod.node_affinity.is_none() && added.is_none() {
                    continue;
                }
                normalized(each(&|node, _| node_affinity::preference(pod, added, node)), false)
            }
            Plugin::PodTopologySpread => pod_topology_spread::scores(pod, &state.spread, cluster, order, nodes),
            Plugin::InterPodAffinity => inter_pod_affinity::scores(&state.affinity, nodes),
            Plugin::NodeResourcesFit => each(&|node, info| node_resources::score(pod, &args.fit, node, info)),
            Plugin::NodeResourcesBalancedAllocation => {
                each(&|node, info| node_resources::balanced(pod, &args.balanced, node, info))
            }
            Plugin::ImageLocality => {
                let images = image_locality::State::new(pod, cluster, order.len());
                each(&|node, _| image_locality::score(&images, node))
            }
            _ => continue,
        };
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += weight * score;
        }
    }
    sums
}

/// Scales scores to 0..=100 by the largest, turned around where less is better (`helper.DefaultNormalizeScore`).
fn normalized(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in &mut scores {
        *score = match (max, reverse) {
            (0, true) => SCORE_MAX,
            (0, false) => 0,
            (_, true) => SCORE_MAX - *score * SCORE_MAX / max,
            (_, false) => *score * SCORE_MAX / max,
        };
    }
    scores
}

/// A refusal that fewer pods on the node could lift.
fn refuse(plugin: Plugin, reason: &'static str) -> Verdict {
    Err(Refusal { plugin, reasons: vec![reason.into()], resolvable: true })
}

/// A refusal that no preemption lifts.
fn refuse_for_good(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Verdict {
    Err(Refusal { plugin, reasons: vec![reason.into()], resolvable: false })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;
