//! Namespace deletion: empties a namespace that is being deleted, pods before everything else, and lets it go when
//! nothing is left. Works on whatever the server serves, by metadata alone.

pub mod plan;

use std::time::Duration;

use api_client::discovery::{self, Discovery, Served};
use api_client::{Cache, Client, DeleteParams, List, ListParams, Object, ObjectKey, PartialObject, Patch, Propagation};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use k8s_openapi::api::core::v1::Namespace;
use plan::Found;
use serde_json::{Value, json};

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::Pod;

/// The finalizer in a namespace's spec that this controller removes.
const FINALIZER: &str = "kubernetes";
/// Resources emptied at a time.
const PARALLEL: usize = 8;
/// How often one call is made before its failure counts. A round makes some eighty of them and ends the namespace only
/// if all succeed: where every third call fails, without this no round ever would.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; it doubles.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Namespaces {
    client: Client,
    namespaces: Cache<Namespace>,
    pods: Cache<Pod>,
}

impl Namespaces {
    pub fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), namespaces: caches.get(), pods: caches.get() }
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.namespaces);
        let (namespaces, pods) = (self.namespaces.clone(), self.pods.clone());
        // Everything else waits for the last pod. A round for each would be one over all that are left.
        inputs.watch(&self.pods, move |change, wake| {
            let key = ObjectKey::new("", change.key.namespace.as_str());
            let is_last = || pods.snapshot().namespace(&key.name).next().is_none();
            let is_going = || namespaces.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
            if change.new.is_none() && is_going() && is_last() {
                wake(key);
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::exclusive("", "namespaces/status"),
            Output::exclusive("", "namespaces/finalize"),
            // Deletions in namespaces that are being deleted.
            Output::shared("*", "*"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let going = |n: &Namespace| n.metadata.deletion_timestamp.is_some() && has_finalizer(n);
        if !self.namespaces.get(key).is_some_and(|n| going(&n)) {
            return Ok(Done::Settled);
        }
        let Some(namespace) = work.live::<Namespace>().find(key).await?.filter(going) else { return Ok(Done::Settled) };
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Terminating") {
            let patch = json!({"status": {"phase": "Terminating"}});
            work.patch_status::<Namespace>(key, &Patch::Merge(patch)).await?;
        }
        let found = self.empty(&key.name, work).await?;
        let old = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let conditions = plan::conditions(&old, &found, work.now());
        if conditions != old {
            let patch = json!({"status": {"conditions": conditions}});
            work.patch_status::<Namespace>(key, &Patch::Merge(patch)).await?;
        }
        if found.is_empty() {
            finalize(work, key).await?;
            return Ok(Done::Settled);
        }
        let since = namespace.metadata.deletion_timestamp.as_ref().map(|t| work.now().duration_since(t.0));
        let age = since.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        Ok(Done::After(found.pause(age)))
    }
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
    finalizers.iter().any(|f| f == FINALIZER)
}

/// Removes our finalizer; with the last one the server removes the namespace.
async fn finalize(work: &Work, key: &ObjectKey) -> Result<(), Error> {
    let Some(namespace) = work.live::<Namespace>().find(key).await? else { return Ok(()) };
    let mut value = json!(namespace);
    let left: Vec<Value> = value["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    value["spec"]["finalizers"] = left.into_iter().filter(|f| f != FINALIZER).collect::<Vec<_>>().into();
    match work.replace_subresource::<Namespace>(key, "finalize", &value).await {
        Ok(_) => Ok(()),
        Err(Error::Api(e)) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

impl Namespaces {
    /// One round over everything in the namespace.
    async fn empty(&self, namespace: &str, work: &Work) -> Result<Found, Error> {
        let Discovery { resources, failed } = insist(|| discovery::read(&self.client)).await?;
        let mut found = Found { undiscovered: failed, ..Found::default() };
        let deletable = |r: &Served| r.gvr.namespaced && r.has_verbs(&["delete"]);
        let (pods, others): (Vec<Served>, Vec<Served>) =
            resources.into_iter().filter(deletable).partition(|r| r.gvr.group.is_empty() && r.gvr.resource == "pods");
        for resource in &pods {
            note(&mut found, resource, empty_resource(resource, namespace, work).await);
        }
        // What pods use goes only after the pods are gone (`OrderedNamespaceDeletion`).
        if !found.remaining.is_empty() || !found.errors.is_empty() {
            return Ok(found);
        }
        let emptied = stream::iter(others.into_iter().map(|resource| async move {
            let left = empty_resource(&resource, namespace, work).await;
            (resource, left)
        }));
        let emptied: Vec<_> = emptied.buffer_unordered(PARALLEL).collect().await;
        for (resource, left) in emptied {
            note(&mut found, &resource, left);
        }
        found.errors.sort();
        Ok(found)
    }
}

/// Deletes all objects of a resource in the namespace; gives those left.
async fn empty_resource(resource: &Served, namespace: &str, work: &Work) -> Result<Vec<PartialObject>, Error> {
    let api = work.metadata_api(&resource.gvr)?;
    let all = ListParams::namespace(namespace);
    let list = |listed: Result<List<PartialObject>, api_client::Error>| match listed {
        Ok(list) => Ok(list.items),
        // Served by discovery only: there is nothing to delete.
        Err(e) if e.is_not_found() || e.is_method_not_allowed() => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let before = list(insist(|| api.list(&all)).await)?;
    // Also when nothing is left but what is on its way: deleting it again changes nothing.
    if before.iter().all(|object| object.metadata.is_deleting()) {
        return Ok(before);
    }
    let params = DeleteParams::default().propagation(Propagation::Background);
    let collected = if resource.has_verbs(&["deletecollection"]) {
        insist(|| api.delete_collection(&all, &params)).await.map(|()| true)
    } else {
        Ok(false)
    };
    match collected {
        Ok(true) => {}
        Err(e) if !(e.is_not_found() || e.is_method_not_allowed()) => return Err(e.into()),
        _ => {
            for object in &before {
                let key = object.key();
                match insist(|| api.delete(&key, &params)).await {
                    Err(e) if !e.is_not_found() => return Err(e.into()),
                    _ => {}
                }
            }
        }
    }
    Ok(list(insist(|| api.list(&all)).await)?)
}

/// Makes a call again if it got no answer, or one that says nothing about the call itself.
async fn insist<T, F>(call: impl Fn() -> F) -> Result<T, api_client::Error>
where
    F: Future<Output = Result<T, api_client::Error>>,
{
    let passing = |error: &api_client::Error| match error {
        api_client::Error::Transport { .. } => true,
        other => other.status().is_some_and(|s| matches!(s.code, 429 | 503 | 504)),
    };
    let mut attempt = 1;
    loop {
        match call().await {
            Err(error) if attempt < ATTEMPTS && passing(&error) => {
                tokio::time::sleep(ATTEMPT_PAUSE * 2u32.pow(attempt - 1)).await;
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

fn note(found: &mut Found, resource: &Served, left: Result<Vec<PartialObject>, Error>) {
    match left {
        Err(e) => found.errors.push(e.to_string()),
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            found.remaining.insert(format!("{}.{}", resource.gvr.resource, resource.gvr.group), left.len());
            for finalizer in left.iter().flat_map(|o| &o.metadata.finalizers) {
                *found.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
    }
}
