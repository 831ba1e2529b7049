//! What is written about pods beside the decisions: why they wait, and the evictions of those that make room.

use std::sync::Arc;
use std::time::Instant;

use api_client::events::{ObjectReference, Recorder};
use api_client::{Api, DeleteParams, Error, Object, Patch};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Scheduler;
use crate::config::Profile;
use crate::objects::Pod;
use crate::queue::Event;

/// What became of a write.
pub(super) enum Written {
    Binding {
        pod: Arc<Pod>,
        failure: Option<String>,
    },
    Report,
    /// The victims of a pod were asked to go, or some could not be.
    Eviction {
        uid: String,
        is_complete: bool,
    },
}

/// What becomes of `status.nominatedNodeName`.
pub(super) enum Nomination {
    Keep,
    Set(String),
    Clear,
}

impl Scheduler {
    /// Writes why the pod waits and where it is to go, unless that is what its status says already.
    pub(super) fn report(
        &mut self,
        profile: &Profile,
        pod: &Arc<Pod>,
        reason: &'static str,
        message: String,
        nomination: Nomination,
    ) {
        let is_said = pod.unscheduled.as_ref().is_some_and(|(r, m)| r == reason && *m == message);
        let mut status = serde_json::Map::new();
        match nomination {
            Nomination::Set(node) => {
                self.cluster.nominated.add(pod, &node);
                if pod.nominated_node != node {
                    status.insert("nominatedNodeName".to_owned(), node.into());
                }
            }
            Nomination::Clear if !pod.nominated_node.is_empty() => {
                status.insert("nominatedNodeName".to_owned(), Value::Null);
            }
            Nomination::Clear | Nomination::Keep => {}
        }
        if !is_said {
            let recorder = self.recorder.named(&profile.scheduler_name);
            recorder.warning(ObjectReference::to(&**pod), "FailedScheduling", message.as_str());
            let mut condition = json!({
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "observedGeneration": pod.metadata.generation,
            });
            if pod.unscheduled.is_none() {
                condition["lastTransitionTime"] = now().into();
            }
            status.insert("conditions".to_owned(), json!([condition]));
        }
        if status.is_empty() {
            return;
        }
        let pods = self.client.api::<Pod>();
        let pod = Arc::clone(pod);
        self.writes.spawn(async move {
            if let Err(error) = patch_status(&pods, &pod, Value::Object(status)).await {
                warn!(pod = %pod.key(), %error, "reporting an unschedulable pod failed");
            }
            Written::Report
        });
    }

    /// Sends the victims away; less important pods that wait for the same room look elsewhere (`prepareCandidate`).
    pub(super) fn make_room(&mut self, profile: &Profile, pod: &Arc<Pod>, node: &str, victims: Vec<Arc<Pod>>) {
        let outbid: Vec<Arc<Pod>> =
            self.cluster.nominated.on(node).iter().filter(|other| other.priority < pod.priority).cloned().collect();
        for other in &outbid {
            self.cluster.nominated.remove(&other.metadata.uid);
            self.queue.add(other);
        }
        info!(pod = %pod.key(), node, victims = victims.len(), "making room");
        let pods = self.client.api::<Pod>();
        let recorder = self.recorder.named(&profile.scheduler_name);
        let scheduler = profile.scheduler_name.clone();
        let (preemptor, node) = (pod.metadata.uid.clone(), node.to_owned());
        self.writes.spawn(async move {
            for other in outbid {
                if let Err(error) = patch_status(&pods, &other, json!({ "nominatedNodeName": null })).await {
                    warn!(pod = %other.key(), %error, "taking a nomination back failed");
                }
            }
            let eviction = Eviction { pods, recorder, scheduler, preemptor, node };
            let mut is_complete = true;
            for victim in victims.iter().filter(|victim| !victim.metadata.is_deleting()) {
                if let Err(error) = eviction.evict(victim).await {
                    warn!(pod = %victim.key(), %error, "making room failed");
                    is_complete = false;
                }
            }
            Written::Eviction { uid: eviction.preemptor, is_complete }
        });
    }

    pub(super) fn finish(&mut self, written: Written) {
        match written {
            Written::Report | Written::Eviction { is_complete: true, .. } => {}
            // The pod waits for what does not happen: it tries again.
            Written::Eviction { uid, is_complete: false } => self.queue.failed(&uid, Instant::now()),
            Written::Binding { pod, failure } => {
                // What the binding waited for is in the picture before the reservation goes.
                self.take_updates();
                let uid = &pod.metadata.uid;
                self.cluster.storage.release(uid);
                self.cluster.devices.release(uid);
                let Some(failure) = failure else { return };
                let place = self.cluster.place_of(uid).and_then(|i| i.node.as_ref()).map(|n| n.metadata.name.clone());
                self.cluster.forget(uid);
                self.queue.failed(uid, Instant::now());
                if let Some(node) = place.filter(|_| !self.cluster.is_placed(uid)) {
                    self.wake(&Event::PodGone { pod: &pod, node: &node });
                }
                let config = Arc::clone(&self.config);
                if let Some(profile) = config.profile(&pod).filter(|_| !failure.is_empty()) {
                    self.report(profile, &pod, "SchedulerError", failure, Nomination::Keep);
                }
            }
        }
    }
}

struct Eviction {
    pods: Api<Pod>,
    recorder: Recorder,
    scheduler: String,
    preemptor: String,
    node: String,
}

impl Eviction {
    async fn evict(&self, victim: &Arc<Pod>) -> Result<(), Error> {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", self.scheduler),
            "observedGeneration": victim.metadata.generation, "lastTransitionTime": now(),
        });
        patch_status(&self.pods, victim, json!({ "conditions": [condition] })).await?;
        match self.pods.delete(&victim.key(), &DeleteParams::uid(victim.metadata.uid.as_str())).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            // Gone already, or another pod has its name by now.
            _ => {}
        }
        let message = format!("Preempted by pod {} on node {}", self.preemptor, self.node);
        self.recorder.normal(ObjectReference::to(&**victim), "Preempted", message);
        Ok(())
    }
}

/// Patches a pod's status, if it is still the same pod; one that is gone needs none.
async fn patch_status(pods: &Api<Pod>, pod: &Arc<Pod>, status: Value) -> Result<(), Error> {
    let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
    match pods.patch_status(&pod.key(), &Patch::Strategic(patch)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
