//! What a stateful set needs next: claims and pods to make, to repair and to delete, and its status. Pure.
//!
//! The work comes in stages (living replicas, claims of doomed pods, scaling down, rolling on), each a list of groups,
//! one per pod. An ordered set does one group after the other and a blocked one ends the plan; a parallel set does all
//! groups of a stage at once. Either way a stage that fails ends the work (`updateStatefulSet`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api_client::{Object, ObjectKey};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use serde_json::{Value, json};

use super::identity::{Set, ordinal};
use super::retention::{self, Owners, User};
use super::status::Status;
use crate::controllers::history::plan::REVISION_LABEL;
use crate::controllers::int_or_percent::scaled;
use crate::engine::Clock;
use crate::objects::Pod;

/// A revision with the template it keeps.
#[derive(Clone, Copy)]
pub struct Revision<'a> {
    pub name: &'a str,
    pub template: &'a PodTemplateSpec,
}

/// What is known.
pub struct Input<'a> {
    pub set: &'a StatefulSet,
    /// The pods it owns.
    pub pods: &'a [Arc<Pod>],
    /// A claim of the set's namespace, by name.
    pub claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    pub current: Revision<'a>,
    pub update: Revision<'a>,
    pub collisions: i32,
    pub clock: Clock<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateClaim {
        pod: String,
        name: String,
        object: Value,
    },
    /// Give a claim these owners.
    OwnClaim {
        pod: String,
        key: ObjectKey,
        patch: Value,
    },
    CreatePod {
        name: String,
        object: Value,
    },
    /// Give a pod its identity back.
    PatchPod {
        key: ObjectKey,
        patch: Value,
    },
    DeletePod(Arc<Pod>),
    Warn {
        reason: &'static str,
        message: String,
    },
    /// The pod can't be had as it should be; tried again with backoff.
    Fail {
        verb: &'static str,
        pod: String,
        why: String,
    },
}

/// The steps of one pod, in order.
pub type Group = Vec<Step>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub stages: Vec<Vec<Group>>,
    /// Merge patch of the status subresource.
    pub status: Option<Value>,
    /// When to look again though nothing changes (availability).
    pub check_after: Option<Duration>,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let Some(set) = Set::of(input.set) else { return Plan::default() };
    let mut planner = Planner::new(input, set);
    if input.set.metadata.deletion_timestamp.is_none() {
        planner.decide();
    }
    planner.finish()
}

pub fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.get(REVISION_LABEL).map_or("", String::as_str)
}

pub fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.phase == "Running" && pod.is_ready()
}

pub fn is_available(set: &Set<'_>, pod: &Pod, clock: Clock<'_>) -> bool {
    pod.is_available(set.min_ready_seconds(), clock)
}

/// The place of an ordinal.
enum Replica {
    There(Arc<Pod>),
    /// To be made, at the current revision or the one updated to.
    Missing {
        ordinal: i32,
        outdated: bool,
    },
}

struct Planner<'a> {
    input: &'a Input<'a>,
    set: Set<'a>,
    /// By ordinal.
    replicas: Vec<Replica>,
    /// Pods outside the ordinals, highest first.
    condemned: Vec<Arc<Pod>>,
    stages: Vec<Vec<Group>>,
    /// Pods deleted for the update.
    rolled: i32,
}

/// Whether an ordered set goes on to the next pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl<'a> Planner<'a> {
    fn new(input: &'a Input<'a>, set: Set<'a>) -> Self {
        let ordinals = set.ordinals();
        let by_ordinal = input.pods.iter().filter_map(|pod| Some((ordinal(&pod.metadata.name)?, pod)));
        let by_ordinal: HashMap<i32, &Arc<Pod>> = by_ordinal.collect();
        let replicas = ordinals.clone().map(|ordinal| match by_ordinal.get(&ordinal) {
            Some(pod) => Replica::There((*pod).clone()),
            None => Replica::Missing { ordinal, outdated: starts_outdated(input, &set, ordinal) },
        });
        let outside = |pod: &&Arc<Pod>| ordinal(&pod.metadata.name).is_some_and(|o| !ordinals.contains(&o));
        let mut condemned: Vec<Arc<Pod>> = input.pods.iter().filter(outside).cloned().collect();
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(&pod.metadata.name)));
        Self { input, set, replicas: replicas.collect(), condemned, stages: Vec::new(), rolled: 0 }
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        !is_available(&self.set, pod, self.input.clock) || pod.metadata.is_deleting()
    }

    fn decide(&mut self) {
        let replicas = (0..self.replicas.len()).map(|i| self.replica(&self.replicas[i]));
        let stage: Vec<(Group, Flow)> = replicas.collect();
        if self.stage(stage) == Flow::Stop {
            return;
        }
        let claims: Vec<(Group, Flow)> =
            self.condemned.iter().map(|pod| (self.own_claims(&user(pod)), Flow::On)).collect();
        self.stage(claims);
        let unavailable = self.first_unavailable();
        let doomed: Vec<(Group, Flow)> =
            self.condemned.iter().map(|pod| self.scale_down(pod, unavailable.as_deref())).collect();
        if self.stage(doomed) == Flow::Stop || !self.set.is_rolling() {
            return;
        }
        let rolled = self.roll();
        self.rolled = i32::try_from(rolled.len()).unwrap_or(i32::MAX);
        self.stage(rolled.into_iter().map(|pod| (vec![Step::DeletePod(pod)], Flow::On)).collect());
    }

    /// Adds a stage; an ordered set's ends at the first pod that must be waited for.
    fn stage(&mut self, groups: Vec<(Group, Flow)>) -> Flow {
        let ordered = !self.set.is_parallel();
        let stop = groups.iter().position(|(_, flow)| ordered && *flow == Flow::Stop);
        let kept = stop.map_or(groups.len(), |stop| stop + 1);
        let groups: Vec<Group> = groups.into_iter().take(kept).map(|(g, _)| g).filter(|g| !g.is_empty()).collect();
        if !groups.is_empty() {
            self.stages.push(groups);
        }
        if stop.is_some() { Flow::Stop } else { Flow::On }
    }

    /// One living replica (`processReplica`).
    fn replica(&self, replica: &Replica) -> (Group, Flow) {
        let pod = match replica {
            Replica::Missing { ordinal, outdated } => return self.make(*ordinal, *outdated),
            Replica::There(pod) => pod,
        };
        if pod.is_terminal() {
            // Also one that succeeded: it was ended, whatever its exit code. A new one comes when it is gone.
            let delete = (!pod.metadata.is_deleting()).then(|| Step::DeletePod(pod.clone()));
            return (delete.into_iter().collect(), Flow::Stop);
        }
        let mut group = Vec::new();
        if pod.status.phase == "Pending" {
            group = self.claims(&user(pod));
            if group.iter().any(|step| matches!(step, Step::Fail { .. })) {
                return (group, Flow::Stop);
            }
        }
        let waits = pod.metadata.is_deleting() || !is_running_and_ready(pod) || self.is_unavailable(pod);
        if waits && !self.set.is_parallel() {
            return (group, Flow::Stop);
        }
        group.extend(self.repair(pod));
        (group, Flow::On)
    }

    /// A pod that isn't there: its claims first.
    fn make(&self, ordinal: i32, outdated: bool) -> (Group, Flow) {
        let name = self.set.pod_name(ordinal);
        let pod = User { name: &name, uid: "", ordinal };
        let claims = self.existing_claims(ordinal);
        if claims.iter().any(|claim| retention::is_stale(&self.set, claim, &pod)) {
            return (Vec::new(), Flow::Stop);
        }
        let mut group = self.claims(&pod);
        if !group.iter().any(|step| matches!(step, Step::Fail { .. })) {
            let revision = if outdated { self.input.current } else { self.input.update };
            let object = self.set.pod(revision.template, revision.name, ordinal);
            group.push(Step::CreatePod { name, object });
        }
        (group, Flow::Stop)
    }

    fn existing_claims(&self, ordinal: i32) -> Vec<Arc<PersistentVolumeClaim>> {
        let templates = self.set.claim_templates().iter();
        templates.filter_map(|template| (self.input.claim)(&self.set.claim_name(template, ordinal))).collect()
    }

    /// Makes the claims of a pod that are missing, and sets the owners of the others.
    fn claims(&self, pod: &User<'_>) -> Group {
        let mut group = Vec::new();
        for template in self.set.claim_templates() {
            let name = self.set.claim_name(template, pod.ordinal);
            match (self.input.claim)(&name) {
                Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
                    let why = format!("pvc {name} is being deleted");
                    return vec![Step::Fail { verb: "create", pod: pod.name.to_owned(), why }];
                }
                Some(_) => {}
                None => {
                    let owners = retention::initial(&self.set, pod.ordinal);
                    let object = self.set.claim(template, pod.ordinal, &owners);
                    group.push(Step::CreateClaim { pod: pod.name.to_owned(), name, object });
                }
            }
        }
        group.extend(self.own_claims(pod));
        group
    }

    /// Gives the claims of a pod the owners that the retention policy wants.
    fn own_claims(&self, pod: &User<'_>) -> Group {
        let mut group = Vec::new();
        for claim in self.existing_claims(pod.ordinal) {
            let owners = match retention::owners(&self.set, &claim, pod) {
                Owners::Right => continue,
                Owners::Write(owners) => owners,
                Owners::Contested(owners) => {
                    let name = claim.metadata.name.as_deref().unwrap_or_default();
                    let message = format!(
                        "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing \
                         controller, the retention policy is ignored for this claim"
                    );
                    group.push(Step::Warn { reason: "ConflictingController", message });
                    owners
                }
            };
            let owners = if owners.is_empty() { Value::Null } else { owners.into() };
            let patch = json!({"metadata": {
                "ownerReferences": owners, "resourceVersion": claim.metadata.resource_version,
            }});
            group.push(Step::OwnClaim { pod: pod.name.to_owned(), key: claim.key(), patch });
        }
        group
    }

    /// Restores what a pod must keep (`UpdateStatefulPod`).
    fn repair(&self, pod: &Arc<Pod>) -> Group {
        let mut group = self.own_claims(&user(pod));
        if !self.set.storage_matches(pod) {
            let why = "its volumes are not the claims of the set, and volumes of a pod can't change".to_owned();
            return vec![Step::Fail { verb: "update", pod: pod.metadata.name.clone(), why }];
        }
        if !self.set.identity_matches(pod)
            && let Some(ordinal) = ordinal(&pod.metadata.name)
        {
            let labels: serde_json::Map<String, Value> = self
                .set
                .identity_labels(&pod.metadata.name, ordinal)
                .into_iter()
                .map(|(label, value)| (label.to_owned(), value.into()))
                .collect();
            let patch = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
            group.push(Step::PatchPod { key: pod.key(), patch });
        }
        group
    }

    /// The lowest replica that is not available, else the lowest condemned one.
    fn first_unavailable(&self) -> Option<String> {
        let replica = |replica: &Replica| match replica {
            Replica::Missing { ordinal, .. } => Some(self.set.pod_name(*ordinal)),
            Replica::There(pod) => self.is_unavailable(pod).then(|| pod.metadata.name.clone()),
        };
        let condemned = || self.condemned.iter().rev().find(|pod| self.is_unavailable(pod));
        self.replicas.iter().find_map(replica).or_else(|| condemned().map(|pod| pod.metadata.name.clone()))
    }

    /// One condemned pod (`processCondemned`). An ordered set takes one at a time, and none while another is unwell.
    fn scale_down(&self, pod: &Arc<Pod>, first_unavailable: Option<&str>) -> (Group, Flow) {
        let is_first = first_unavailable == Some(pod.metadata.name.as_str());
        let unwell = !is_running_and_ready(pod) || !is_available(&self.set, pod, self.input.clock);
        let waits = pod.metadata.is_deleting() || unwell && !is_first && !self.set.is_parallel();
        if waits { (Vec::new(), Flow::Stop) } else { (vec![Step::DeletePod(pod.clone())], Flow::Stop) }
    }

    /// The pods to be replaced now by ones of the update revision.
    fn roll(&self) -> Vec<Arc<Pod>> {
        let from = usize::try_from(self.set.partition().unwrap_or_default()).unwrap_or_default();
        let rolling = self.set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        match rolling.and_then(|r| r.max_unavailable.as_ref()) {
            None => self.roll_one(from).into_iter().collect(),
            Some(limit) => {
                let limit = scaled(Some(limit), self.set.replicas, false).max(1);
                self.roll_many(from, usize::try_from(limit).unwrap_or_default())
            }
        }
    }

    /// The highest outdated pod, unless one above it is not available yet.
    fn roll_one(&self, from: usize) -> Option<Arc<Pod>> {
        for replica in self.replicas.iter().skip(from).rev() {
            let Replica::There(pod) = replica else { return None };
            if revision_of(pod) != self.input.update.name && !pod.metadata.is_deleting() {
                return Some(pod.clone());
            }
            if self.is_unavailable(pod) {
                return None;
            }
        }
        None
    }

    /// The highest outdated pods, as many as keep the unavailable ones below the limit
    /// (`updateStatefulSetAfterInvariantEstablished`).
    fn roll_many(&self, from: usize, max_unavailable: usize) -> Vec<Arc<Pod>> {
        let unavailable = self.replicas.iter().filter(|replica| match replica {
            Replica::Missing { .. } => true,
            Replica::There(pod) => self.is_unavailable(pod),
        });
        let budget = max_unavailable.saturating_sub(unavailable.count());
        let outdated = self.replicas.iter().skip(from).rev().filter_map(|replica| match replica {
            Replica::There(pod) if revision_of(pod) != self.input.update.name && !pod.metadata.is_deleting() => {
                Some(pod.clone())
            }
            _ => None,
        });
        outdated.take(budget).collect()
    }

    fn finish(self) -> Plan {
        let pods = self.input.pods.iter().map(|pod| &**pod).filter(|pod| ordinal(&pod.metadata.name).is_some());
        let mut status = Status::count(self.input, &self.set, pods);
        status.current = (status.current - self.rolled).max(0);
        status.complete(&self.set);
        let old = Status::of(self.set.object.status.as_ref());
        let check_after = self.next_check(&status);
        let status = (status != old).then(|| status.patch());
        Plan { stages: self.stages, status, check_after }
    }

    /// When the next ready pod becomes available.
    fn next_check(&self, status: &Status) -> Option<Duration> {
        let seconds = self.set.min_ready_seconds();
        if seconds <= 0 || status.ready == status.available {
            return None;
        }
        let wait = SignedDuration::from_secs(i64::from(seconds));
        let left = |pod: &Arc<Pod>| Some(wait - pod.ready_for(self.input.clock)?);
        let next = self.input.pods.iter().filter_map(left).filter(|left| left.is_positive()).min();
        Duration::try_from(next.unwrap_or(wait)).ok()
    }
}

/// Whether a new pod of this ordinal is made at the current revision rather than the one updated to
/// (`newVersionedStatefulSetPod`).
fn starts_outdated(input: &Input<'_>, set: &Set<'_>, ordinal: i32) -> bool {
    match set.partition() {
        Some(partition) => ordinal < set.start.saturating_add(partition),
        None => {
            let current = input.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default();
            set.is_rolling() && ordinal < set.start.saturating_add(current)
        }
    }
}

fn user(pod: &Pod) -> User<'_> {
    let ordinal = ordinal(&pod.metadata.name).unwrap_or(-1);
    User { name: &pod.metadata.name, uid: &pod.metadata.uid, ordinal }
}
