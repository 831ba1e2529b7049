//! What a daemon set needs next: pods to make on nodes and to delete from them, and its status. Pure.
//!
//! First every node is given what it should have (`podsShouldBeOnNode`). Only when nothing of that is left to do does
//! the rollout go on ([`roll`]).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::Value;

use super::place::{Fit, GENERATION_LABEL, Place};
use super::roll;
use super::status::Status;
use crate::controllers::history::plan::REVISION_LABEL;
use crate::controllers::int_or_percent::scaled;
use crate::engine::Clock;
use crate::objects::{Node, Pod};

/// What is known.
pub struct Input<'a> {
    pub set: &'a DaemonSet,
    pub place: &'a Place,
    pub nodes: &'a [Arc<Node>],
    /// The pods it owns.
    pub pods: &'a [Arc<Pod>],
    /// Of the present template.
    pub hash: &'a str,
    pub generation: Option<i64>,
    pub collisions: Option<i32>,
    /// How long the failed pod on a node must still be left alone.
    pub failed_pause: &'a dyn Fn(&str) -> Option<Duration>,
    pub clock: Clock<'a>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    pub events: Vec<Event>,
    /// Nodes whose failed pod is among those deleted.
    pub failed: Vec<String>,
    /// Merge patch of the status subresource.
    pub status: Option<Value>,
    /// When to look again though nothing changes (availability, failed pods).
    pub check_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// The pods of each node, oldest first; those that have ended and are on their way out left out.
pub type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<Pod>>>;

pub fn plan(input: &Input<'_>) -> Plan {
    let by_node = by_node(input);
    let mut plan = Plan::default();
    for node in input.nodes {
        on_node(input, node, &by_node, &mut plan);
    }
    plan.delete.extend(lost(input, &by_node));
    let is_rolling = input.strategy().is_none_or(|s| s.type_.as_deref().unwrap_or("RollingUpdate") == "RollingUpdate");
    if plan.create.is_empty() && plan.delete.is_empty() && is_rolling {
        roll::roll(input, &by_node, &mut plan);
    }
    let status = Status::count(input, &by_node);
    if input.min_ready_seconds() > 0 && status.ready != status.available {
        plan.look_after(next_available(input));
    }
    let old = Status::of(input.set.status.as_ref());
    plan.status = (status != old).then(|| status.patch());
    plan
}

impl Plan {
    /// The earliest of all delays counts.
    fn look_after(&mut self, delay: Duration) {
        self.check_after = Some(self.check_after.map_or(delay, |other| other.min(delay)));
    }
}

impl Input<'_> {
    pub fn strategy(&self) -> Option<&k8s_openapi::api::apps::v1::DaemonSetUpdateStrategy> {
        self.set.spec.as_ref()?.update_strategy.as_ref()
    }

    pub fn min_ready_seconds(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    pub fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.min_ready_seconds(), self.clock)
    }

    /// Whether a pod is of the present template (`IsPodUpdated`).
    pub fn is_updated(&self, pod: &Pod) -> bool {
        let label = |name: &str| pod.metadata.labels.get(name);
        let by_hash = !self.hash.is_empty() && label(REVISION_LABEL).is_some_and(|hash| hash == self.hash);
        let by_generation =
            || self.generation.is_some_and(|g| label(GENERATION_LABEL).is_some_and(|l| *l == g.to_string()));
        by_hash || by_generation()
    }

    /// How many of `nodes` may have two pods during a rollout.
    pub fn max_surge(&self, nodes: i32) -> i32 {
        let rolling = self.strategy().and_then(|s| s.rolling_update.as_ref());
        scaled(rolling.and_then(|r| r.max_surge.as_ref()), nodes, true)
    }

    pub fn max_unavailable(&self, nodes: i32) -> i32 {
        let rolling = self.strategy().and_then(|s| s.rolling_update.as_ref());
        scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), nodes, true)
    }
}

fn by_node<'a>(input: &Input<'a>) -> ByNode<'a> {
    let mut by_node: ByNode<'a> = BTreeMap::new();
    for pod in input.pods.iter().filter(|pod| !(pod.is_terminal() && pod.metadata.is_deleting())) {
        if let Some(node) = pod.node_or_target() {
            by_node.entry(node).or_default().push(pod);
        }
    }
    by_node.values_mut().for_each(|pods| pods.sort_by_key(|pod| age(pod)));
    by_node
}

/// Scheduled pods first, then the oldest (`podByCreationTimestampAndPhase`).
fn age(pod: &Pod) -> (bool, Option<Timestamp>, String) {
    (pod.spec.node_name.is_empty(), pod.metadata.creation_timestamp, pod.metadata.name.clone())
}

/// What one node needs.
fn on_node(input: &Input<'_>, node: &Node, by_node: &ByNode<'_>, plan: &mut Plan) {
    let name = node.metadata.name.as_str();
    let there = by_node.get(name);
    let pods = there.map(Vec::as_slice).unwrap_or_default();
    let alive = || pods.iter().filter(|pod| !pod.metadata.is_deleting());
    let fit = input.place.fit(node);
    if fit == Fit::No {
        plan.delete.extend(alive().map(|pod| (*pod).clone()));
        return;
    }
    if there.is_none() {
        if fit == Fit::Run {
            plan.create.push(name.to_owned());
        }
        return;
    }
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in alive() {
        match pod.status.phase.as_str() {
            "Failed" => replace_failed(input, name, pod, plan),
            "Succeeded" => {
                let key = pod.metadata.key();
                let message = format!("Found succeeded daemon pod {key} on node {name}, will try to delete it");
                plan.events.push(Event { warning: false, reason: "SucceededDaemonPod", message });
                plan.delete.push((*pod).clone());
            }
            _ => running.push(pod),
        }
    }
    if input.max_surge(1) == 0 {
        plan.delete.extend(running.into_iter().skip(1).cloned());
    } else if running.is_empty() {
        if fit == Fit::Run {
            plan.create.push(name.to_owned());
        }
    } else {
        surplus(input, &running, plan);
    }
}

fn replace_failed(input: &Input<'_>, node: &str, pod: &Arc<Pod>, plan: &mut Plan) {
    if let Some(left) = (input.failed_pause)(node) {
        plan.look_after(left);
        return;
    }
    let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.metadata.key());
    plan.events.push(Event { warning: true, reason: "FailedDaemonPod", message });
    plan.failed.push(node.to_owned());
    plan.delete.push(pod.clone());
}

/// While surging a node may have an old pod that is ready beside a new one that is not available yet; every other
/// combination is thinned out.
fn surplus(input: &Input<'_>, running: &[&Arc<Pod>], plan: &mut Plan) {
    let is_new = |pod: &Pod| pod.metadata.labels.get(REVISION_LABEL).is_some_and(|hash| hash == input.hash);
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.iter().partition(|pod| is_new(pod));
    plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!old.is_ready() || input.is_available(new))
    {
        plan.delete.push((*old).clone());
    }
}

/// Unscheduled pods meant for nodes that are gone: nobody else deletes them (`getUnscheduledPodsWithoutNode`).
fn lost(input: &Input<'_>, by_node: &ByNode<'_>) -> Vec<Arc<Pod>> {
    let nodes: HashSet<&str> = input.nodes.iter().map(|node| node.metadata.name.as_str()).collect();
    let gone = by_node.iter().filter(|(node, _)| !nodes.contains(**node));
    let unscheduled = |pod: &&&Arc<Pod>| pod.spec.node_name.is_empty() && !pod.metadata.is_deleting();
    gone.flat_map(|(_, pods)| pods.iter().filter(unscheduled).map(|pod| (*pod).clone())).collect()
}

fn next_available(input: &Input<'_>) -> Duration {
    let wait = SignedDuration::from_secs(i64::from(input.min_ready_seconds()));
    let left = |pod: &Arc<Pod>| Some(wait - pod.ready_for(input.clock)?);
    let next = input.pods.iter().filter_map(left).filter(|left| left.is_positive()).min();
    Duration::try_from(next.unwrap_or(wait)).unwrap_or_default()
}
