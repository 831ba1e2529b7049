//! Revisions of a template, kept as ControllerRevisions: which one is current, what to write so that it is, and which
//! are too many. Pure. The data is a strategic merge patch that puts the template back, as upstream's
//! `history.NewControllerRevision` callers write it, so that `kubectl rollout undo` can apply it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use crate::controllers::template;
use crate::objects::{Owner, label_of};

/// `history.ControllerRevisionHashLabel`.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Label of pods and, for daemon sets, of revisions (`apps.ControllerRevisionHashLabelKey`).
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Longest prefix of a revision's name in bytes (`history.ControllerRevisionName`).
const PREFIX_BYTES_MAX: usize = 223;

/// What revisions are made from.
pub struct Subject<'a> {
    pub owner: Owner,
    pub namespace: &'a str,
    pub annotations: Option<&'a BTreeMap<String, String>>,
    pub template: &'a PodTemplateSpec,
    /// Which label carries the hash, [`HASH_LABEL`] or [`REVISION_LABEL`].
    pub hash_label: &'static str,
    pub collisions: i32,
}

/// How the revision of the present template comes about.
#[derive(Clone, Debug)]
pub enum Update {
    /// It is the newest there is.
    Unchanged(Arc<ControllerRevision>),
    /// An older one becomes the newest: a rollback.
    Renumber { revision: Arc<ControllerRevision>, number: i64 },
    /// The template is new.
    Create { name: String, number: i64 },
}

/// Oldest first (`history.SortControllerRevisions`).
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        let created = |r: &ControllerRevision| r.metadata.creation_timestamp.clone();
        let order = a.revision.cmp(&b.revision).then_with(|| created(a).cmp(&created(b)));
        order.then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
}

/// The template a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Whether a revision keeps this template. Compared decoded, so that another writer's spelling of the same template
/// starts no rollout.
pub fn keeps(revision: &ControllerRevision, wanted: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|kept| template::equal(&kept, wanted))
}

/// `revisions` sorted, oldest first.
pub fn update(subject: &Subject<'_>, revisions: &[Arc<ControllerRevision>]) -> Update {
    let next = revisions.last().map_or(1, |newest| newest.revision + 1);
    let Some(same) = revisions.iter().rfind(|r| keeps(r, subject.template)) else {
        return Update::Create { name: name(subject), number: next };
    };
    let newest = revisions.last().is_some_and(|newest| keeps(newest, subject.template));
    match newest {
        true => Update::Unchanged(revisions.last().unwrap_or(same).clone()),
        false => Update::Renumber { revision: same.clone(), number: next },
    }
}

/// The name of the revision of the present template; the collision count gives another one.
pub fn name(subject: &Subject<'_>) -> String {
    let owner = &subject.owner.name;
    format!("{}-{}", owner.get(..PREFIX_BYTES_MAX).unwrap_or(owner), hash(subject))
}

pub fn hash(subject: &Subject<'_>) -> String {
    template::hash(subject.template, Some(subject.collisions))
}

/// The revision to be created.
pub fn object(subject: &Subject<'_>, number: i64) -> Value {
    let mut template = json!(subject.template);
    template["$patch"] = "replace".into();
    let labels = subject.template.metadata.as_ref().and_then(|m| m.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(subject.hash_label.to_owned(), hash(subject));
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": name(subject), "namespace": subject.namespace,
            "labels": labels, "ownerReferences": [subject.owner.reference()],
        },
        "data": {"spec": {"template": template}},
        "revision": number,
    });
    if let Some(annotations) = subject.annotations.filter(|a| !a.is_empty()) {
        object["metadata"]["annotations"] = json!(annotations);
    }
    object
}

/// The oldest revisions beyond `limit` that nothing uses; `live` are names or hashes. `count_live`: whether those in
/// use count against the limit (daemon sets) or not (stateful sets).
pub fn excess(
    revisions: &[Arc<ControllerRevision>],
    live: &HashSet<&str>,
    limit: Option<i32>,
    count_live: bool,
) -> Vec<Arc<ControllerRevision>> {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return Vec::new() };
    let in_use = |r: &Arc<ControllerRevision>| {
        let name = r.metadata.name.as_deref().unwrap_or_default();
        live.contains(name) || label_of(&r.metadata, REVISION_LABEL).is_some_and(|hash| live.contains(hash))
    };
    let counted = revisions.iter().filter(|r| count_live || !in_use(r)).count();
    revisions.iter().filter(|r| !in_use(r)).take(counted.saturating_sub(limit)).cloned().collect()
}
