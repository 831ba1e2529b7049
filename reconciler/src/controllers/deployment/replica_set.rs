//! The replica sets of a deployment as they will be, the one for its template, and the writes that bring them there.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_client::Object;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, Step};
use super::revision;
use super::status::{self, PROGRESSING, condition};
use crate::controllers::template;
use crate::objects::Owner;

/// A replica set as it will be.
#[derive(Clone, Debug)]
pub struct Set {
    pub object: Arc<ReplicaSet>,
    pub replicas: i32,
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: i32,
    /// Not there yet.
    pub created: bool,
}

impl Set {
    pub fn of(object: &Arc<ReplicaSet>) -> Self {
        let spec = object.spec.as_ref();
        Self {
            replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
            annotations: object.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds).unwrap_or_default(),
            object: object.clone(),
            created: false,
        }
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }
    pub fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
    }
    pub fn ready(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default()
    }
    /// Pods there are, as its own controller counted them.
    pub fn actual(&self) -> i32 {
        self.object.status.as_ref().map(|s| s.replicas).unwrap_or_default()
    }
}

impl Rollout<'_> {
    /// The index of the new set, made if it isn't there.
    pub(super) fn ensure_new(&mut self) -> usize {
        if let Some(new) = self.new {
            return new;
        }
        let deployment = self.input.deployment;
        let next = revision::max(self.sets.iter().map(|s| &s.annotations)) + 1;
        let own = deployment.metadata.annotations.clone().unwrap_or_default();
        let (name, object) = new_replica_set(deployment, self.status.collision_count);
        let mut annotations = BTreeMap::new();
        revision::annotate(&own, &mut annotations, next);
        annotations.insert(DESIRED_REPLICAS.into(), self.replicas.to_string());
        annotations.insert(MAX_REPLICAS.into(), (self.replicas + self.max_surge()).to_string());
        let size = self.new_size(0);
        let object = Arc::new(object);
        self.sets.push(Set { replicas: size, annotations, created: true, ..Set::of(&object) });
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.steps.push(Step::Event { reason: "ScalingReplicaSet", message });
        }
        if status::progress_deadline(deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            self.status.set(condition(PROGRESSING, "True", "NewReplicaSetCreated", message, self.input.clock.now));
        }
        self.revision = Some(next.to_string());
        self.new = Some(self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// One write for each set that differs from what is stored.
    pub(super) fn writes(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for set in &self.sets {
            if set.created {
                let object = created_object(set);
                steps.push(Step::Create { name: set.name().to_owned(), object });
                continue;
            }
            let stored = Set::of(&set.object);
            let mut patch = json!({});
            if stored.replicas != set.replicas {
                patch["spec"]["replicas"] = set.replicas.into();
            }
            if stored.min_ready_seconds != set.min_ready_seconds {
                patch["spec"]["minReadySeconds"] = set.min_ready_seconds.into();
            }
            let changed = set.annotations.iter().filter(|(key, value)| stored.annotations.get(*key) != Some(value));
            for (key, value) in changed {
                patch["metadata"]["annotations"][key] = value.as_str().into();
            }
            if patch.as_object().is_some_and(|p| !p.is_empty()) {
                // On condition that nobody scaled it meanwhile.
                patch["metadata"]["resourceVersion"] = json!(set.object.metadata.resource_version);
                steps.push(Step::Patch { key: set.object.key(), patch });
            }
        }
        steps
    }
}

/// The replica set for the deployment's template, without size and annotations.
fn new_replica_set(deployment: &Deployment, collisions: Option<i32>) -> (String, ReplicaSet) {
    let spec = deployment.spec.clone().unwrap_or_default();
    let mut template = spec.template;
    let hash = template::hash(&template, collisions);
    let name = template::replica_set_name(deployment.metadata.name.as_deref().unwrap_or_default(), &hash);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(template::HASH_LABEL.into(), hash.clone());
    let mut object = ReplicaSet::default();
    object.metadata.name = Some(name.clone());
    object.metadata.namespace.clone_from(&deployment.metadata.namespace);
    object.metadata.labels = Some(labels.clone());
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash);
    object.spec = Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
        ..Default::default()
    });
    let owner = Owner::of(deployment).reference();
    object.metadata.owner_references = serde_json::from_value(json!([owner])).ok();
    (name, object)
}

fn created_object(set: &Set) -> Value {
    let mut object = json!(*set.object);
    object["spec"]["replicas"] = set.replicas.into();
    object["metadata"]["annotations"] = json!(set.annotations);
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}
