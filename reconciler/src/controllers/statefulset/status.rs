//! A stateful set's status: counts over its pods, and the revisions they are at. Pure.

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use serde_json::{Value, json};

use super::identity::Set;
use super::plan::{Input, is_available, is_running_and_ready, revision_of};
use crate::objects::Pod;

/// Counts, as numbers where the API leaves out zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub current: i32,
    pub updated: i32,
    pub current_revision: String,
    pub update_revision: String,
    pub collision_count: Option<i32>,
}

impl Status {
    pub fn of(status: Option<&StatefulSetStatus>) -> Self {
        let status = status.cloned().unwrap_or_default();
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            replicas: status.replicas,
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            current: status.current_replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            current_revision: status.current_revision.unwrap_or_default(),
            update_revision: status.update_revision.unwrap_or_default(),
            collision_count: status.collision_count,
        }
    }

    /// Counts pods (`computeReplicaStatus`).
    pub fn count<'a>(input: &Input<'_>, set: &Set<'_>, pods: impl Iterator<Item = &'a Pod> + Clone) -> Self {
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(pods.clone().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
        };
        let is_created = |pod: &Pod| !pod.status.phase.is_empty();
        let at = |revision: &str| {
            count(&|pod| is_created(pod) && !pod.metadata.is_deleting() && revision_of(pod) == revision)
        };
        Self {
            observed_generation: set.object.metadata.generation.unwrap_or_default(),
            replicas: count(&is_created),
            ready: count(&is_running_and_ready),
            available: count(&|pod| is_running_and_ready(pod) && is_available(set, pod, input.clock)),
            current: at(input.current.name),
            updated: at(input.update.name),
            current_revision: input.current.name.to_owned(),
            update_revision: input.update.name.to_owned(),
            collision_count: Some(input.collisions),
        }
    }

    /// Everything is at the update revision, which thereby becomes the current one (`completeRollingUpdate`).
    pub fn complete(&mut self, set: &Set<'_>) {
        let all = [self.updated, self.ready, self.replicas].iter().all(|count| *count == set.replicas);
        if set.is_rolling() && all {
            self.current = self.updated;
            self.current_revision.clone_from(&self.update_revision);
        }
    }

    /// As a merge patch; the API leaves out most zeros.
    pub fn patch(&self) -> Value {
        let count = |n: i32| if n == 0 { Value::Null } else { n.into() };
        json!({"status": {
            "observedGeneration": self.observed_generation,
            "replicas": self.replicas,
            "readyReplicas": count(self.ready),
            "availableReplicas": self.available,
            "currentReplicas": count(self.current),
            "updatedReplicas": count(self.updated),
            "currentRevision": self.current_revision,
            "updateRevision": self.update_revision,
            "collisionCount": self.collision_count,
        }})
    }
}
