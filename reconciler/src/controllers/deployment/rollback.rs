//! The deprecated way back: a revision in the annotation `deprecated.deployment.rollback.to`, which old clients write
//! through `rollbackTo` (upstream's `rollback`). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::revision::{self, is_inherited};
use crate::controllers::template;
use crate::objects::annotation_of;

pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const HASH_LABEL: &str = "pod-template-hash";

/// What becomes of the wish; the annotation goes in any case.
#[derive(Debug, PartialEq)]
pub struct Rollback {
    /// JSON patch of the deployment, for the version that was looked at.
    pub patch: Value,
    pub done: bool,
    pub reason: &'static str,
    pub message: String,
}

/// `None`: nobody asks for it. A revision that is no number is nobody's wish.
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Rollback> {
    let wanted: i64 = annotation_of(&deployment.metadata, ROLLBACK_TO)?.parse().ok()?;
    let spec = deployment.spec.as_ref()?;
    let revision_of = |set: &ReplicaSet| revision::of(set.metadata.annotations.as_ref().unwrap_or(&BTreeMap::new()));
    let target = match wanted {
        0 => last(sets.iter().map(|set| revision_of(set))),
        revision => Some(revision),
    };
    let Some(target) = target else {
        return Some(refused(deployment, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.".into()));
    };
    let found = sets.iter().find(|set| revision_of(set) == target);
    let found = found.and_then(|set| Some((set, set.spec.as_ref()?.template.as_ref()?)));
    let Some((set, old)) = found else {
        let message = "Unable to find the revision to rollback to.".to_owned();
        return Some(refused(deployment, "DeploymentRollbackRevisionNotFound", message));
    };
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    if template::equal(old, &spec.template) {
        let message = format!("The rollback revision contains the same template as current deployment {name:?}");
        return Some(refused(deployment, "DeploymentRollbackTemplateUnchanged", message));
    }
    let mut old = old.clone();
    if let Some(labels) = old.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    // The change-cause and its like belong to the revision.
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !is_inherited(key));
    let from = set.metadata.annotations.iter().flatten().filter(|(key, _)| is_inherited(key));
    annotations.extend(from.map(|(key, value)| (key.clone(), value.clone())));
    let mut patch = without_wish(deployment, annotations);
    if let Some(steps) = patch.as_array_mut() {
        steps.push(json!({"op": "replace", "path": "/spec/template", "value": old}));
    }
    let message = format!("Rolled back deployment {name:?} to revision {target}");
    Some(Rollback { patch, done: true, reason: "DeploymentRollback", message })
}

/// The revision before the newest.
fn last(revisions: impl Iterator<Item = i64>) -> Option<i64> {
    let mut revisions: Vec<i64> = revisions.filter(|r| *r > 0).collect();
    revisions.sort_unstable();
    revisions.len().checked_sub(2).map(|index| revisions[index])
}

fn refused(deployment: &Deployment, reason: &'static str, message: String) -> Rollback {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    Rollback { patch: without_wish(deployment, annotations), done: false, reason, message }
}

fn without_wish(deployment: &Deployment, mut annotations: BTreeMap<String, String>) -> Value {
    annotations.remove(ROLLBACK_TO);
    let version = deployment.metadata.resource_version.as_deref().unwrap_or_default();
    json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/annotations", "value": annotations},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(to: &str, image: &str) -> Deployment {
        let annotations = json!({ROLLBACK_TO: to, "deployment.kubernetes.io/revision": "2", "cause": "edit"});
        let template = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        let spec = json!({"selector": {}, "template": template});
        let metadata = json!({"name": "web", "resourceVersion": "9", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn set(revision: &str, image: &str) -> Arc<ReplicaSet> {
        let annotations = json!({"deployment.kubernetes.io/revision": revision, "cause": format!("made {image}")});
        let labels = json!({"pod-template-hash": "x", "app": "web"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}});
        let object = json!({"metadata": {"annotations": annotations}, "spec": {"selector": {}, "template": template}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn goes_back_to_the_revision_before_or_a_named_one() {
        let sets = [set("1", "app:1"), set("2", "app:2"), set("3", "app:3")];
        for (to, image) in [("0", "app:2"), ("1", "app:1")] {
            let rollback = plan(&deployment(to, "app:3"), &sets).unwrap();
            assert!(rollback.done, "{rollback:?}");
            assert_eq!(rollback.patch[0]["value"], "9");
            let expected = json!({"deployment.kubernetes.io/revision": "2", "cause": format!("made {image}")});
            assert_eq!(rollback.patch[1]["value"], expected);
            assert_eq!(rollback.patch[2]["value"]["spec"]["containers"][0]["image"], image);
            assert_eq!(rollback.patch[2]["value"]["metadata"]["labels"], json!({"app": "web"}));
        }
    }

    #[test]
    fn says_why_it_does_not() {
        let sets = [set("1", "app:1")];
        let reason = |to: &str, image: &str| plan(&deployment(to, image), &sets).map(|r| (r.done, r.reason));
        assert_eq!(reason("0", "app:1"), Some((false, "DeploymentRollbackRevisionNotFound")));
        assert_eq!(reason("7", "app:2"), Some((false, "DeploymentRollbackRevisionNotFound")));
        assert_eq!(reason("x", "app:2"), None);
    }
}
