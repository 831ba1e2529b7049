//! PodTopologySpread: pods evenly over the values of a node label. Pods that say nothing are spread over nodes and
//! zones by the built-in defaults, softly.
//!
//! The defaults count the pods of the same controller. Upstream builds a selector from the Services and controllers
//! that select the pod; for pods of a replica controller its uid finds the same pods without holding those objects,
//! unless somebody changed a pod's labels.

use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::{Plugin, SCORE_MAX, node_affinity, refuse, refuse_for_good, taint_toleration};
use crate::cluster::{Clause, Cluster, NodeCounts, PodQuery, Topology, replica_controller};
use crate::config::SpreadArgs;
use crate::node::{NodeInfo, Slot};
use crate::objects::{Node, Pod};
use crate::selector::Selector;
use crate::verdict::Verdict;

/// Nodes of this label are counted one by one.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Which pods count.
#[derive(Clone)]
enum Counted {
    Selected(Selector),
    /// Those of the pod's own controller, and where they are.
    Siblings(Arc<NodeCounts>),
}

/// One constraint with the pods it counts on each node.
#[derive(Clone)]
struct Constraint {
    is_hostname: bool,
    max_skew: i64,
    min_domains: usize,
    honors_affinity: bool,
    honors_taints: bool,
    counted: Counted,
    topology: Arc<Topology>,
    counts: Arc<NodeCounts>,
}

impl Constraint {
    /// Whether a node takes part (`matchNodeInclusionPolicies`).
    fn includes(&self, pod: &Pod, node: &Node) -> bool {
        (!self.honors_affinity || node_affinity::matches(pod, node))
            && (!self.honors_taints || taint_toleration::tolerates_all(pod, node))
    }

    fn counts_pod(&self, pod: &Pod, other: &Pod) -> bool {
        match &self.counted {
            Counted::Selected(selector) => selector.matches(&other.metadata.labels),
            Counted::Siblings(_) => {
                let of_other = other.metadata.controller().map(|c| &c.uid);
                pod.metadata.controller().map(|c| &c.uid) == of_other
            }
        }
    }
}

/// A constraint that refuses nodes, with its pods per domain; `None`: a domain no node takes part in.
#[derive(Clone)]
struct Hard {
    constraint: Constraint,
    domains: Vec<Option<i64>>,
    /// Of the emptiest domain.
    least: i64,
}

impl Hard {
    /// With fewer domains than asked for, the emptiest one counts as empty.
    fn settle(&mut self) {
        let known = self.domains.iter().flatten();
        let few = known.clone().count() < self.constraint.min_domains;
        self.least = if few { 0 } else { known.copied().min().unwrap_or_default() };
    }
}

#[derive(Clone, Default)]
pub struct State {
    hard: Vec<Hard>,
    soft: Vec<Constraint>,
    /// Nodes must have all labels. Not so under the system's defaults, so that clusters without zones spread too.
    requires_all_labels: bool,
}

impl State {
    pub fn new(pod: &Pod, args: &SpreadArgs, cluster: &mut Cluster) -> Self {
        let own = !pod.spread.is_empty();
        let requires_all_labels = own || !args.is_system_default;
        let default = if own { None } else { default_counted(pod, cluster) };
        let constraints = match (&default, own) {
            (_, true) => &pod.spread,
            (Some(_), false) => &args.constraints,
            (None, false) => return Self { requires_all_labels, ..Self::default() },
        };
        let mut state = Self { requires_all_labels, ..Self::default() };
        let (hard, soft): (Vec<_>, Vec<_>) = constraints.iter().partition(|c| c.when_unsatisfiable == "DoNotSchedule");
        state.soft = soft.into_iter().map(|c| constraint(pod, c, default.clone(), cluster)).collect();
        let hard: Vec<_> = hard.into_iter().map(|c| constraint(pod, c, default.clone(), cluster)).collect();
        state.hard = count_domains(pod, hard, cluster);
        state
    }

    pub fn has_hard(&self) -> bool {
        !self.hard.is_empty()
    }

    /// What would be if `other` came to (1) or left (-1) the node.
    pub fn update(&mut self, pod: &Pod, other: &Pod, slot: Slot, amount: i64, cluster: &Cluster) {
        let Some(node) = cluster.info(slot).node.as_ref() else { return };
        if other.metadata.namespace != pod.metadata.namespace
            || self.hard.iter().any(|h| h.constraint.topology.domain(slot).is_none())
        {
            return;
        }
        for hard in &mut self.hard {
            if hard.constraint.counts_pod(pod, other)
                && hard.constraint.includes(pod, node)
                && let Some(domain) = hard.constraint.topology.domain(slot)
            {
                *hard.domains[domain].get_or_insert_default() += amount;
                hard.settle();
            }
        }
    }
}

/// What the default constraints count, if they apply to the pod.
fn default_counted(pod: &Pod, cluster: &Cluster) -> Option<Counted> {
    match replica_controller(pod) {
        Some(controller) => Some(Counted::Siblings(cluster.controller_count(controller))),
        None => cluster.service_selector(pod).map(Counted::Selected),
    }
}

fn constraint(
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    default: Option<Counted>,
    cluster: &mut Cluster,
) -> Constraint {
    let counted = default.unwrap_or_else(|| Counted::Selected(own_selector(pod, constraint)));
    let counts = match &counted {
        Counted::Siblings(counts) => Arc::clone(counts),
        // An empty selector counts no pods (`countPodsMatchSelector`), though every pod matches it.
        Counted::Selected(selector) if selector.is_empty() => Arc::default(),
        Counted::Selected(selector) => {
            let namespaces = Some([pod.metadata.namespace.clone()].into());
            let clauses = vec![Clause { namespaces, selector: selector.clone() }];
            cluster.count(PodQuery { clauses, ignores_deleting: true })
        }
    };
    Constraint {
        is_hostname: constraint.topology_key == HOSTNAME,
        max_skew: i64::from(constraint.max_skew),
        min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
        honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        counted,
        topology: cluster.topology(&constraint.topology_key),
        counts,
    }
}

/// The constraint's selector with the pod's own values of `matchLabelKeys`.
pub fn own_selector(pod: &Pod, constraint: &TopologySpreadConstraint) -> Selector {
    let mut selector = Selector::of(constraint.label_selector.as_ref());
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.metadata.labels.get(key) {
            selector.require(key, value);
        }
    }
    selector
}

fn count_domains(pod: &Pod, constraints: Vec<Constraint>, cluster: &mut Cluster) -> Vec<Hard> {
    let empty = |c: Constraint| Hard { domains: vec![None; c.topology.len()], constraint: c, least: 0 };
    let mut hard: Vec<Hard> = constraints.into_iter().map(empty).collect();
    if hard.is_empty() {
        return hard;
    }
    let includes_all = !node_affinity::restricts(pod) && hard.iter().all(|h| !h.constraint.honors_taints);
    for slot in cluster.order().iter().copied() {
        if hard.iter().any(|h| h.constraint.topology.domain(slot).is_none()) {
            continue;
        }
        let includes = |c: &Constraint| cluster.info(slot).node.as_ref().is_some_and(|node| c.includes(pod, node));
        for hard in &mut hard {
            if (includes_all || includes(&hard.constraint))
                && let Some(domain) = hard.constraint.topology.domain(slot)
            {
                let here = i64::from(hard.constraint.counts.get(slot));
                *hard.domains[domain].get_or_insert_default() += here;
            }
        }
    }
    hard.iter_mut().for_each(Hard::settle);
    hard
}

pub fn filter(pod: &Pod, state: &State, slot: Slot) -> Verdict {
    for hard in &state.hard {
        let Some(domain) = hard.constraint.topology.domain(slot) else {
            return refuse_for_good(
                Plugin::PodTopologySpread,
                "node(s) didn't match pod topology spread constraints (missing required label)",
            );
        };
        let here = hard.domains[domain].unwrap_or_default();
        let itself = i64::from(hard.constraint.counts_pod(pod, pod));
        if here + itself - hard.least > hard.constraint.max_skew {
            return refuse(Plugin::PodTopologySpread, "node(s) didn't match pod topology spread constraints");
        }
    }
    Ok(())
}

/// A soft constraint with its pods per domain among the nodes to choose from.
struct Soft<'a> {
    constraint: &'a Constraint,
    /// `None`: a domain that no node to choose from is in.
    domains: Vec<Option<i64>>,
    /// Domains with many values weigh more, as one pod more or less means more there (`topologyNormalizingWeight`).
    weight: f64,
}

impl Soft<'_> {
    fn cost(&self, slot: Slot) -> Option<f64> {
        let domain = self.constraint.topology.domain(slot)?;
        let count = if self.constraint.is_hostname {
            i64::from(self.constraint.counts.get(slot))
        } else {
            self.domains[domain].unwrap_or_default()
        };
        Some(count as f64 * self.weight + (self.constraint.max_skew - 1) as f64)
    }
}

/// The fewer matching pods in a node's domains, the higher; nodes that lack a required label score nothing.
pub fn scores(pod: &Pod, state: &State, cluster: &Cluster, order: &[Slot], nodes: &[&NodeInfo]) -> Vec<i64> {
    if state.soft.is_empty() {
        return vec![0; nodes.len()];
    }
    let ignored =
        |slot: Slot| state.requires_all_labels && state.soft.iter().any(|c| c.topology.domain(slot).is_none());
    let soft = soft_domains(pod, state, cluster, order, nodes, &ignored);
    let cost = |info: &&NodeInfo| {
        let sum: f64 = soft.iter().filter_map(|s| s.cost(info.slot)).sum();
        (!ignored(info.slot)).then(|| sum.round() as i64)
    };
    let costs: Vec<Option<i64>> = nodes.iter().map(cost).collect();
    let known = || costs.iter().flatten().copied();
    let (Some(min), Some(max)) = (known().min(), known().max()) else { return vec![0; nodes.len()] };
    let scaled = |cost: i64| if max == 0 { SCORE_MAX } else { SCORE_MAX * (max + min - cost) / max };
    costs.into_iter().map(|cost| cost.map_or(0, scaled)).collect()
}

fn soft_domains<'a>(
    pod: &Pod,
    state: &'a State,
    cluster: &Cluster,
    order: &[Slot],
    nodes: &[&NodeInfo],
    ignored: &dyn Fn(Slot) -> bool,
) -> Vec<Soft<'a>> {
    let scored = nodes.iter().filter(|info| !ignored(info.slot)).count();
    let make = |constraint: &'a Constraint| {
        let mut domains = vec![None; constraint.topology.len()];
        let mut size = scored;
        if !constraint.is_hostname {
            for info in nodes.iter().filter(|info| !ignored(info.slot)) {
                if let Some(domain) = constraint.topology.domain(info.slot) {
                    domains[domain] = Some(0);
                }
            }
            size = domains.iter().flatten().count();
            // Without the label a node is in a domain of its own, the nameless one.
            let nameless = |info: &&&NodeInfo| !ignored(info.slot) && constraint.topology.domain(info.slot).is_none();
            size += usize::from(nodes.iter().any(|info| nameless(&info)));
        }
        Soft { constraint, domains, weight: (size as f64 + 2.0).ln() }
    };
    let mut soft: Vec<Soft<'a>> = state.soft.iter().map(make).collect();
    let restricts = node_affinity::restricts(pod);
    for soft in soft.iter_mut().filter(|s| !s.constraint.is_hostname) {
        let includes_all = !restricts && !soft.constraint.honors_taints;
        for slot in order.iter().copied().filter(|slot| !ignored(*slot)) {
            let here = i64::from(soft.constraint.counts.get(slot));
            let Some(domain) = soft.constraint.topology.domain(slot).filter(|_| here > 0) else { continue };
            let included = || cluster.info(slot).node.as_ref().is_some_and(|n| soft.constraint.includes(pod, n));
            if let Some(count) = &mut soft.domains[domain]
                && (includes_all || included())
            {
                *count += here;
            }
        }
    }
    soft
}
