//! Which changes of the cluster could make a pod fit that a plugin refused: upstream's queueing hints
//! (`EventsToRegister` of each plugin). A pod that nothing could have helped is not tried again.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::cluster::Cluster;
use crate::config::Profile;
use crate::objects::{
    Claim, CsiDriver, CsiNode, CsiStorageCapacity, Node, Pod, PodVolume, StorageClass, Term, Volume, VolumeAttachment,
};
use crate::plugins::{
    Plugin, node_affinity, node_resources, pod_topology_spread, taint_toleration, volume_restrictions,
};
use crate::preemption::is_leaving_for;
use crate::selector::Selector;

/// What happened. `old` is absent for what is new.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    Node {
        old: Option<&'a Node>,
        new: &'a Node,
    },
    NodeGone(&'a Node),
    /// A pod was seen on a node, or changed there.
    Pod {
        old: Option<&'a Pod>,
        new: &'a Pod,
    },
    /// A pod left the node of this name, or ended there.
    PodGone {
        pod: &'a Pod,
        node: &'a str,
    },
    Claim {
        old: Option<&'a Claim>,
        new: &'a Claim,
    },
    Volume(&'a Volume),
    Class {
        old: Option<&'a StorageClass>,
        new: &'a StorageClass,
    },
    CsiNode {
        old: Option<&'a CsiNode>,
        new: &'a CsiNode,
    },
    Driver {
        old: Option<&'a CsiDriver>,
        new: &'a CsiDriver,
    },
    Capacity {
        old: Option<&'a CsiStorageCapacity>,
        new: &'a CsiStorageCapacity,
    },
    AttachmentGone(&'a VolumeAttachment),
    /// Labels of a namespace changed. Upstream looks at the pod again only after five minutes.
    Namespace,
    /// Device claims, slices or classes changed.
    Devices,
}

/// What is asked about: a pod that waits.
#[derive(Clone, Copy)]
pub struct Waiter<'a> {
    pub pod: &'a Pod,
    pub profile: &'a Profile,
    pub cluster: &'a Cluster,
}

impl Event<'_> {
    /// Whether the event is of a kind that any pod refused by the plugin looks at. Cheap: it keeps pods from being
    /// asked one by one.
    pub fn concerns(&self, plugin: Plugin) -> bool {
        use Plugin as P;
        match self {
            Self::Node { old, .. } => match plugin {
                P::NodePorts | P::VolumeRestrictions => old.is_none(),
                P::NodeUnschedulable
                | P::TaintToleration
                | P::NodeAffinity
                | P::NodeResourcesFit
                | P::VolumeBinding
                | P::VolumeZone
                | P::PodTopologySpread
                | P::InterPodAffinity
                | P::DynamicResources
                | P::NodeName
                | P::Extender => true,
                _ => false,
            },
            Self::NodeGone(_) => matches!(plugin, P::PodTopologySpread | P::Extender),
            Self::Pod { old, .. } => match plugin {
                P::NodeResourcesFit => old.is_some(),
                P::PodTopologySpread | P::InterPodAffinity | P::Extender => true,
                _ => false,
            },
            Self::PodGone { .. } => matches!(
                plugin,
                P::NodeResourcesFit
                    | P::NodePorts
                    | P::VolumeRestrictions
                    | P::NodeVolumeLimits
                    | P::PodTopologySpread
                    | P::InterPodAffinity
                    | P::DynamicResources
                    | P::Extender
            ),
            Self::Claim { old, .. } => match plugin {
                P::VolumeRestrictions | P::NodeVolumeLimits => old.is_none(),
                P::VolumeBinding | P::VolumeZone | P::Extender => true,
                _ => false,
            },
            Self::Volume(_) => matches!(plugin, P::VolumeBinding | P::VolumeZone | P::Extender),
            Self::Class { .. } => matches!(plugin, P::VolumeBinding | P::VolumeZone | P::Extender),
            Self::CsiNode { .. } => matches!(plugin, P::NodeVolumeLimits | P::VolumeBinding | P::Extender),
            Self::Driver { .. } | Self::Capacity { .. } => matches!(plugin, P::VolumeBinding | P::Extender),
            Self::AttachmentGone(_) => matches!(plugin, P::NodeVolumeLimits | P::Extender),
            Self::Namespace => matches!(plugin, P::InterPodAffinity),
            Self::Devices => matches!(plugin, P::DynamicResources | P::Extender),
        }
    }

    /// Whether the pod, refused by `plugin`, could fit after this.
    pub fn helps(&self, plugin: Plugin, waiter: Waiter<'_>) -> bool {
        if plugin == Plugin::Extender {
            return true;
        }
        match *self {
            Self::Node { old, new } => node_helps(plugin, waiter, old, new),
            Self::NodeGone(node) => has_all_keys(node, &hard_constraints(waiter)),
            Self::Pod { old: None, new } => placed_pod_helps(plugin, waiter, new),
            Self::Pod { old: Some(old), new } => changed_pod_helps(plugin, waiter, old, new),
            Self::PodGone { pod, node } => gone_pod_helps(plugin, waiter, pod, node),
            Self::Claim { new, .. } => uses_claim(waiter.pod, new),
            Self::Class { old, new } => match plugin {
                Plugin::VolumeBinding => old.is_none_or(|old| old.allowed_topologies != new.allowed_topologies),
                _ => old.is_none(),
            },
            Self::CsiNode { old, new } => match plugin {
                Plugin::VolumeBinding => old.is_none(),
                _ => old.is_none_or(|old| {
                    new.limits.iter().any(|(driver, limit)| old.limits.get(driver).is_none_or(|old| old < limit))
                        || old.limits.iter().any(|(driver, old)| old.is_some() && !new.limits.contains_key(driver))
                }),
            },
            Self::Driver { old, new } => old.is_some_and(|old| old.spec.storage_capacity && !new.spec.storage_capacity),
            Self::Capacity { old, new } => old.is_none_or(|old| new.volume_max > old.volume_max),
            Self::AttachmentGone(_) => waiter.pod.volume_claims().next().is_some(),
            Self::Volume(_) | Self::Namespace | Self::Devices => true,
        }
    }
}

fn node_helps(plugin: Plugin, waiter: Waiter<'_>, old: Option<&Node>, new: &Node) -> bool {
    let Waiter { pod, profile, .. } = waiter;
    // What fits now and did not before.
    let became = |fits: &dyn Fn(&Node) -> bool| fits(new) && old.is_none_or(|old| !fits(old));
    match plugin {
        Plugin::NodeUnschedulable => became(&|node| !node.unschedulable),
        Plugin::TaintToleration => became(&|node| taint_toleration::tolerates_all(pod, node)),
        Plugin::NodeAffinity => {
            became(&|node| node_affinity::filter(pod, profile.args.added_affinity.as_ref(), node).is_ok())
        }
        Plugin::NodeResourcesFit => {
            let grew = |old: &Node| {
                new.pods_max > old.pods_max || old.allocatable.has_less(&new.allocatable, &pod.request.exact)
            };
            node_resources::could_fit(pod, &profile.args.fit, new) && old.is_none_or(grew)
        }
        Plugin::VolumeBinding | Plugin::VolumeZone => old.is_none_or(|old| old.metadata.labels != new.metadata.labels),
        Plugin::PodTopologySpread => {
            let constraints = hard_constraints(waiter);
            let (was, is) = (old.map(|old| has_all_keys(old, &constraints)), has_all_keys(new, &constraints));
            match old {
                None => is,
                Some(old) => {
                    let moved = |c: &&TopologySpreadConstraint| {
                        old.metadata.labels.get(&c.topology_key) != new.metadata.labels.get(&c.topology_key)
                    };
                    was != Some(is) || (is && (constraints.iter().any(moved) || old.taints != new.taints))
                }
            }
        }
        Plugin::InterPodAffinity => affinity_after_node(pod, old, new),
        Plugin::DynamicResources => old.is_none_or(|old| old.metadata.labels != new.metadata.labels),
        _ => old.is_none(),
    }
}

fn affinity_after_node(pod: &Pod, old: Option<&Node>, new: &Node) -> bool {
    let value = |node: &Node, term: &Term| node.metadata.labels.get(&term.topology_key).cloned();
    let Some(affinity) = &pod.affinity else {
        // Only others' anti-affinity keeps it away, which a node without their labels does not have.
        return old.is_none_or(|old| old.metadata.labels != new.metadata.labels);
    };
    match old {
        None => !affinity.required_anti.is_empty() || affinity.required.iter().any(|t| value(new, t).is_some()),
        Some(old) => {
            let moved = |t: &Term| value(old, t) != value(new, t);
            affinity.required.iter().any(|t| moved(t) && value(new, t).is_some())
                || affinity.required_anti.iter().any(|t| moved(t) && value(old, t).is_some())
        }
    }
}

fn hard_constraints<'a>(waiter: Waiter<'a>) -> Vec<&'a TopologySpreadConstraint> {
    let all = if waiter.pod.spread.is_empty() { &waiter.profile.args.spread.constraints } else { &waiter.pod.spread };
    all.iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule").collect()
}

fn has_all_keys(node: &Node, constraints: &[&TopologySpreadConstraint]) -> bool {
    constraints.iter().all(|c| node.metadata.labels.contains_key(&c.topology_key))
}

/// Selectors of the pod's hard constraints; the default ones select as its siblings do, all of its namespace at most.
fn spread_selectors(waiter: Waiter<'_>) -> Vec<Selector> {
    let of = |c: &&TopologySpreadConstraint| match waiter.pod.spread.is_empty() {
        true => Selector::default(),
        false => pod_topology_spread::own_selector(waiter.pod, c),
    };
    hard_constraints(waiter).iter().map(of).collect()
}

fn matches_all(terms: &[Term], pod: &Pod, cluster: &Cluster) -> bool {
    let namespace = &pod.metadata.namespace;
    !terms.is_empty() && terms.iter().all(|t| t.selects(pod, |s| cluster.namespace_matches(namespace, s)))
}

fn terms(pod: &Pod) -> (&[Term], &[Term]) {
    pod.affinity.as_ref().map_or((&[], &[]), |a| (&a.required, &a.required_anti))
}

fn placed_pod_helps(plugin: Plugin, waiter: Waiter<'_>, new: &Pod) -> bool {
    match plugin {
        Plugin::InterPodAffinity => matches_all(terms(waiter.pod).0, new, waiter.cluster),
        Plugin::PodTopologySpread => {
            new.metadata.namespace == waiter.pod.metadata.namespace
                && spread_selectors(waiter).iter().any(|s| s.matches(&new.metadata.labels))
        }
        _ => false,
    }
}

fn changed_pod_helps(plugin: Plugin, waiter: Waiter<'_>, old: &Pod, new: &Pod) -> bool {
    let Waiter { pod, cluster, .. } = waiter;
    match plugin {
        // Resized in place.
        Plugin::NodeResourcesFit => new.request.exact.has_less(&old.request.exact, &pod.request.exact),
        Plugin::InterPodAffinity => {
            let (near, away) = terms(pod);
            old.metadata.labels != new.metadata.labels
                && (!matches_all(near, old, cluster) && matches_all(near, new, cluster)
                    || matches_all(away, old, cluster) && !matches_all(away, new, cluster))
        }
        Plugin::PodTopologySpread => {
            let changes = |s: &Selector| s.matches(&old.metadata.labels) != s.matches(&new.metadata.labels);
            let is_near = new.metadata.namespace == pod.metadata.namespace;
            // On its way out it does not count any more.
            let leaves = new.metadata.is_deleting() && !old.metadata.is_deleting();
            is_near
                && spread_selectors(waiter).iter().any(|s| changes(s) || (leaves && s.matches(&new.metadata.labels)))
        }
        _ => false,
    }
}

fn gone_pod_helps(plugin: Plugin, waiter: Waiter<'_>, gone: &Pod, node: &str) -> bool {
    let Waiter { pod, profile, cluster } = waiter;
    match plugin {
        // Only that node has more room now. A pod that waits for its victims there is not tried for each of them.
        Plugin::NodeResourcesFit => cluster.node(node).is_some_and(|info| {
            let fits =
                || info.node.as_ref().is_some_and(|n| node_resources::filter(pod, &profile.args.fit, n, info).is_ok());
            let waits_here = cluster.nominated.node_of(&pod.metadata.uid) == Some(node);
            fits() || (waits_here && !info.pods.iter().any(|victim| is_leaving_for(pod, victim)))
        }),
        Plugin::NodePorts => pod.host_ports.iter().any(|p| gone.host_ports.iter().any(|g| g.conflicts_with(p))),
        Plugin::VolumeRestrictions => {
            let same_claim = |v: &PodVolume| matches!(v, PodVolume::Claim(_)) && gone.volumes.contains(v);
            gone.metadata.namespace == pod.metadata.namespace
                && (pod.volumes.iter().any(same_claim)
                    || volume_restrictions::disks(pod)
                        .any(|d| volume_restrictions::disks(gone).any(|other| d.conflicts_with(other))))
        }
        Plugin::NodeVolumeLimits => gone.volume_claims().next().is_some(),
        Plugin::PodTopologySpread => {
            gone.metadata.namespace == pod.metadata.namespace
                && spread_selectors(waiter).iter().any(|s| s.matches(&gone.metadata.labels))
        }
        Plugin::InterPodAffinity => {
            matches_all(terms(pod).1, gone, cluster)
                || terms(gone)
                    .1
                    .iter()
                    .any(|t| t.selects(pod, |s| cluster.namespace_matches(&pod.metadata.namespace, s)))
        }
        Plugin::DynamicResources => !gone.claims.is_empty(),
        _ => false,
    }
}

fn uses_claim(pod: &Pod, claim: &Claim) -> bool {
    pod.metadata.namespace == claim.metadata.namespace && pod.volume_claims().any(|name| name == claim.metadata.name)
}
