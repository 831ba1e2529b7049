//! A daemon set's status: counts over nodes. Pure.

use k8s_openapi::api::apps::v1::DaemonSetStatus;
use serde_json::{Value, json};

use super::place::Fit;
use super::plan::{ByNode, Input};

/// Counts, as numbers where the API leaves out zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub observed_generation: i64,
    pub desired: i32,
    pub current: i32,
    pub misscheduled: i32,
    pub ready: i32,
    pub updated: i32,
    pub available: i32,
    pub unavailable: i32,
    pub collision_count: Option<i32>,
}

impl Status {
    pub fn of(status: Option<&DaemonSetStatus>) -> Self {
        let status = status.cloned().unwrap_or_default();
        Self {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: status.desired_number_scheduled,
            current: status.current_number_scheduled,
            misscheduled: status.number_misscheduled,
            ready: status.number_ready,
            updated: status.updated_number_scheduled.unwrap_or_default(),
            available: status.number_available.unwrap_or_default(),
            unavailable: status.number_unavailable.unwrap_or_default(),
            collision_count: status.collision_count,
        }
    }

    /// Of a node's pods the oldest counts (`updateDaemonSetStatus`).
    pub fn count(input: &Input<'_>, by_node: &ByNode<'_>) -> Self {
        let mut status = Self {
            observed_generation: input.set.metadata.generation.unwrap_or_default(),
            collision_count: input.collisions,
            ..Self::default()
        };
        for node in input.nodes {
            let oldest = by_node.get(node.metadata.name.as_str()).and_then(|pods| pods.first());
            if input.place.fit(node) != Fit::Run {
                status.misscheduled += i32::from(oldest.is_some());
                continue;
            }
            status.desired += 1;
            let Some(pod) = oldest else { continue };
            status.current += 1;
            status.ready += i32::from(pod.is_ready());
            status.available += i32::from(input.is_available(pod));
            status.updated += i32::from(input.is_updated(pod));
        }
        status.unavailable = status.desired - status.available;
        status
    }

    /// As a merge patch; the API leaves out some zeros.
    pub fn patch(&self) -> Value {
        let count = |n: i32| if n == 0 { Value::Null } else { n.into() };
        json!({"status": {
            "observedGeneration": self.observed_generation,
            "desiredNumberScheduled": self.desired,
            "currentNumberScheduled": self.current,
            "numberMisscheduled": self.misscheduled,
            "numberReady": self.ready,
            "updatedNumberScheduled": count(self.updated),
            "numberAvailable": count(self.available),
            "numberUnavailable": count(self.unavailable),
            "collisionCount": self.collision_count,
        }})
    }
}
