//! The kinds that ask for a number of like pods. What differs between them is data: where the fields stand, and what
//! they are called.

use api::selector::LabelSelector;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta_v1, ObjectMeta};

use super::plan::{Condition, Status, Wanted};
use crate::engine::{Cached, Output};
use crate::objects::compile;

/// A kind whose objects are replicated pods.
pub trait Replicated: Cached<Meta = ObjectMeta> {
    /// Upstream's name of the controller.
    const CONTROLLER: &'static str;
    const OUTPUTS: &'static [Output];

    fn selector(&self) -> LabelSelector;
    fn replicas(&self) -> Option<i32>;
    fn min_ready_seconds(&self) -> Option<i32>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> Status;

    fn wanted(&self) -> Wanted {
        let labels = self.template().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
        Wanted {
            replicas: self.replicas().unwrap_or(1),
            min_ready_seconds: self.min_ready_seconds().unwrap_or_default(),
            template_labels: labels.unwrap_or_default(),
            generation: self.metadata().generation.unwrap_or_default(),
            deleting: self.metadata().deletion_timestamp.is_some(),
        }
    }
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const OUTPUTS: &'static [Output] = &[Output::shared("", "pods"), Output::exclusive("apps", "replicasets/status")];

    fn selector(&self) -> LabelSelector {
        compile(self.spec.as_ref().map(|s| &s.selector))
    }
    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }
    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let condition = |c: k8s_openapi::api::apps::v1::ReplicaSetCondition| Condition {
            kind: c.type_,
            status: c.status,
            reason: c.reason.unwrap_or_default(),
            message: c.message.unwrap_or_default(),
            last_transition_time: c.last_transition_time.map(|t| t.0),
        };
        Status {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas.unwrap_or_default(),
            ready_replicas: status.ready_replicas.unwrap_or_default(),
            available_replicas: status.available_replicas.unwrap_or_default(),
            terminating_replicas: Some(status.terminating_replicas.unwrap_or_default()),
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status.conditions.unwrap_or_default().into_iter().map(condition).collect(),
        }
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";
    const OUTPUTS: &'static [Output] =
        &[Output::shared("", "pods"), Output::exclusive("", "replicationcontrollers/status")];

    /// A plain map of labels; an empty one selects nothing.
    fn selector(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|s| s.selector.clone()).filter(|labels| !labels.is_empty());
        let of = |labels| meta_v1::LabelSelector { match_labels: Some(labels), match_expressions: None };
        compile(labels.map(of).as_ref())
    }
    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }
    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let condition = |c: k8s_openapi::api::core::v1::ReplicationControllerCondition| Condition {
            kind: c.type_,
            status: c.status,
            reason: c.reason.unwrap_or_default(),
            message: c.message.unwrap_or_default(),
            last_transition_time: c.last_transition_time.map(|t| t.0),
        };
        Status {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas.unwrap_or_default(),
            ready_replicas: status.ready_replicas.unwrap_or_default(),
            available_replicas: status.available_replicas.unwrap_or_default(),
            terminating_replicas: None,
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status.conditions.unwrap_or_default().into_iter().map(condition).collect(),
        }
    }
}
