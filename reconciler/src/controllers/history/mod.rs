//! ControllerRevisions of stateful and daemon sets: brings the history up to what [`plan`] says.

pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::{DeleteParams, Object, ObjectKey, Patch};
use k8s_openapi::api::apps::v1::ControllerRevision;
use plan::{Subject, Update};
use serde_json::json;

use crate::engine::{Error, Work};

/// Names tried for a new revision in one reconcile; each collision gives another.
const NAMES_MAX: usize = 16;

/// Makes the revision of the present template the newest and gives it. `subject.collisions` is raised for every name
/// that another template has.
pub async fn ensure(
    work: &Work,
    subject: &mut Subject<'_>,
    revisions: &[Arc<ControllerRevision>],
) -> Result<Arc<ControllerRevision>, Error> {
    match plan::update(subject, revisions) {
        Update::Unchanged(revision) => Ok(revision),
        Update::Renumber { revision, number } => {
            let patch = json!({
                "metadata": {"resourceVersion": revision.metadata.resource_version}, "revision": number,
            });
            work.patch::<ControllerRevision>(&revision.key(), &Patch::Merge(patch)).await.map(Arc::new)
        }
        Update::Create { number, .. } => create(work, subject, number).await,
    }
}

async fn create(work: &Work, subject: &mut Subject<'_>, number: i64) -> Result<Arc<ControllerRevision>, Error> {
    for _ in 0..NAMES_MAX {
        let object = plan::object(subject, number);
        match work.create::<ControllerRevision>(subject.namespace, &object).await {
            Err(Error::Api(e)) if e.is_already_exists() => {}
            created => return created.map(Arc::new),
        }
        let key = ObjectKey::new(subject.namespace, plan::name(subject));
        let taken = work.live::<ControllerRevision>().get(&key).await?;
        if plan::keeps(&taken, subject.template) {
            return Ok(Arc::new(taken));
        }
        subject.collisions += 1;
    }
    Err(Error::Object {
        object: format!("{} {}/{}", subject.owner.kind, subject.namespace, subject.owner.name),
        why: format!("the names of {NAMES_MAX} revisions in a row are taken by other templates"),
    })
}

/// Deletes revisions.
pub async fn delete(work: &Work, revisions: &[Arc<ControllerRevision>]) -> Result<(), Error> {
    for revision in revisions {
        let uid = revision.metadata.uid.as_deref().unwrap_or_default();
        work.delete::<ControllerRevision>(&revision.key(), uid, DeleteParams::default()).await?;
    }
    Ok(())
}
