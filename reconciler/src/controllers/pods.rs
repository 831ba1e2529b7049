//! Making and deleting pods on behalf of a workload, in parallel, with the events users know from upstream's
//! `RealPodControl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api_client::events::ObjectReference;
use api_client::{Change, DeleteParams, Object};
use futures_util::TryFutureExt;
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use crate::engine::{Ages, Error, Work};
use crate::objects::{Owner, Pod};

/// Pods created or deleted in one reconcile; the rest follows in the next (`BurstReplicas`).
pub const BURST_PODS: usize = 500;
/// The first of the batches that double while creation succeeds, so that a refusing server (quota, admission) is
/// asked once and not hundreds of times (`SlowStartInitialBatchSize`).
const FIRST_BATCH: usize = 1;

/// The pod a template describes (`controller.GetPodFromTemplate`).
pub fn from_template(template: &PodTemplateSpec, owner: &Owner) -> Value {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": name_prefix(&owner.name),
            "ownerReferences": [owner.reference()],
        },
        "spec": template.spec,
    });
    let fields = [
        ("labels", serde_json::to_value(metadata.labels)),
        ("annotations", serde_json::to_value(metadata.annotations)),
        ("finalizers", serde_json::to_value(metadata.finalizers)),
    ];
    for (name, value) in fields {
        if let Ok(value) = value
            && !value.is_null()
        {
            pod["metadata"][name] = value;
        }
    }
    pod
}

/// `web-` for `web`; the bare name where that would be no valid prefix.
fn name_prefix(owner: &str) -> String {
    let prefix = format!("{owner}-");
    if api::name::dns1123_subdomain(owner).is_empty() { prefix } else { owner.to_owned() }
}

/// Forgets since when a pod that is gone was ready.
pub fn forget(ages: &Ages, change: &Change<Pod>) {
    if let (Some(gone), None) = (&change.old, &change.new) {
        ages.forget(&gone.metadata.uid);
    }
}

/// Creates `count` pods alike, in growing batches.
pub async fn create(
    work: &Work,
    regarding: &ObjectReference,
    namespace: &str,
    pod: &Value,
    count: usize,
) -> Result<(), Error> {
    let pods = vec![pod; count.min(BURST_PODS)];
    in_growing_batches(&pods, |pod| create_one(work, regarding, namespace, pod)).await
}

/// Creates these pods in growing batches; gives how many it made, and the first error.
pub async fn create_all(
    work: &Work,
    regarding: &ObjectReference,
    namespace: &str,
    pods: &[Value],
) -> (usize, Result<(), Error>) {
    let created = AtomicUsize::new(0);
    let each = |pod| {
        let creating = create_one(work, regarding, namespace, pod);
        creating.inspect_ok(|()| {
            created.fetch_add(1, Ordering::Relaxed);
        })
    };
    let result = in_growing_batches(pods, each).await;
    (created.into_inner(), result)
}

/// Runs `each` for every item, all items of a batch at once, in batches that double. Stops at the first batch with a
/// failure and gives its first error (`slowStartBatch`).
pub async fn in_growing_batches<'a, T, F>(items: &'a [T], each: impl Fn(&'a T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut left = items;
    let mut batch = FIRST_BATCH;
    while !left.is_empty() {
        let (now, later) = left.split_at(batch.min(left.len()));
        join_all(now.iter().map(&each)).await.into_iter().collect::<Result<(), Error>>()?;
        left = later;
        batch = (batch * 2).min(BURST_PODS);
    }
    Ok(())
}

/// Creates one pod. In a namespace that is being deleted nothing can be created, and nothing needs to be.
pub async fn create_one(work: &Work, regarding: &ObjectReference, namespace: &str, pod: &Value) -> Result<(), Error> {
    match work.create::<Pod>(namespace, pod).await {
        Ok(pod) => {
            let message = format!("Created pod: {}", pod.metadata.name);
            work.recorder().normal(regarding.clone(), "SuccessfulCreate", message);
            Ok(())
        }
        Err(e) if e.is_namespace_ending() => Ok(()),
        Err(e) => {
            work.recorder().warning(regarding.clone(), "FailedCreate", format!("Error creating: {e}"));
            Err(e)
        }
    }
}

/// Deletes these pods, all at once; gives the first error.
pub async fn delete(work: &Work, regarding: &ObjectReference, pods: &[Arc<Pod>]) -> Result<(), Error> {
    let deleted = join_all(pods.iter().take(BURST_PODS).map(|pod| delete_one(work, regarding, pod))).await;
    deleted.into_iter().collect()
}

pub async fn delete_one(work: &Work, regarding: &ObjectReference, pod: &Pod) -> Result<(), Error> {
    let name = &pod.metadata.name;
    match work.delete::<Pod>(&pod.key(), &pod.metadata.uid, DeleteParams::default()).await {
        Ok(()) => {
            work.recorder().normal(regarding.clone(), "SuccessfulDelete", format!("Deleted pod: {name}"));
            Ok(())
        }
        Err(e) => {
            work.recorder().warning(regarding.clone(), "FailedDelete", format!("Error deleting: {e}"));
            Err(e)
        }
    }
}
