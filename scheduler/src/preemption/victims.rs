//! The pods that would have to leave one node: as few and as unimportant as possible (`SelectVictimsOnNode`). Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::node::{NodeInfo, Slot};
use crate::objects::Pod;
use crate::plugins::{self, Context, State};
use crate::verdict::Refusal;

/// A node on which the pod would fit without some pods.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub slot: Slot,
    /// The most important first; never empty.
    pub victims: Vec<Arc<Pod>>,
    /// Victims whose disruption budgets have nothing left.
    pub violations: usize,
}

/// More important pods first: by priority, then those that have run for longer (`util.MoreImportantPod`). A pod that
/// has not started counts as started just now.
fn importance(pod: &Arc<Pod>) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.start_time.unwrap_or(Timestamp::MAX))
}

/// Victims on a node, or why none help. The state is the decision's.
pub fn select(context: &Context<'_>, state: &State, info: &NodeInfo) -> Result<Candidate, Option<Refusal>> {
    let Context { pod, cluster, .. } = context;
    let mut potential: Vec<Arc<Pod>> = info.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(None);
    }
    let mut trial = Trial { context, state: state.clone(), info: info.clone() };
    for victim in &potential {
        trial.remove(victim);
    }
    trial.filter().map_err(Some)?;
    potential.sort_by_key(importance);
    let (violating, others) = by_budgets(potential, cluster);
    // Pods whose budgets are used up are spared first, then the more important ones.
    let mut victims = Vec::new();
    for victim in &violating {
        if !trial.spare(victim) {
            victims.push(Arc::clone(victim));
        }
    }
    let violations = victims.len();
    victims.extend(others.iter().filter(|victim| !trial.spare(victim)).cloned());
    victims.sort_by_key(importance);
    if victims.is_empty() { Err(None) } else { Ok(Candidate { slot: info.slot, victims, violations }) }
}

/// The node and the decision's state as they would be.
struct Trial<'a> {
    context: &'a Context<'a>,
    state: State,
    info: NodeInfo,
}

impl Trial<'_> {
    fn remove(&mut self, victim: &Arc<Pod>) {
        self.info.remove(&victim.metadata.uid);
        self.state.update(self.context.pod, victim, self.info.slot, -1, self.context.cluster);
    }

    fn filter(&self) -> Result<(), Refusal> {
        plugins::filter_beside_nominated(self.context, &self.state, &self.info)
    }

    /// Lets a pod stay if the incoming one fits beside it.
    fn spare(&mut self, victim: &Arc<Pod>) -> bool {
        self.info.add(victim);
        self.state.update(self.context.pod, victim, self.info.slot, 1, self.context.cluster);
        let fits = self.filter().is_ok();
        if !fits {
            self.remove(victim);
        }
        fits
    }
}

/// Those whose going would break a budget, and the others (`filterPodsWithPDBViolation`). The order stays.
fn by_budgets(pods: Vec<Arc<Pod>>, cluster: &Cluster) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: Vec<_> = cluster.budgets.values().map(|b| (b, b.disruptions_allowed)).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in &mut left {
            // An eviction that is under way is counted in the budget already.
            if !pod.metadata.labels.is_empty()
                && budget.metadata.namespace == pod.metadata.namespace
                && budget.selector.matches(&pod.metadata.labels)
                && !budget.disrupted.contains(&pod.metadata.name)
            {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// What a candidate costs: the least wins, and the first of equals (`pickOneNodeForPreemption`).
pub fn cost(candidate: &Candidate) -> impl Ord + use<> {
    let victims = &candidate.victims;
    let highest = victims.first().map_or(i32::MIN, |p| p.priority);
    // Shifted, so that many pods of negative priority cost more than few.
    let sum: i64 = victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let of_highest = victims.iter().filter(|p| p.priority == highest);
    let earliest = of_highest.map(|p| p.start_time.unwrap_or(Timestamp::MAX)).min();
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}
