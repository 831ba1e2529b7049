//! The garbage collector: deletes objects whose owners are all gone, and carries out deletions that wait for
//! dependents (foreground) or leave them behind (orphan). Works on any resource by metadata alone.

pub mod graph;
mod monitor;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{
    Api, Client, DeleteParams, GroupVersionResource, Metadata, ObjectKey, OwnerReference, PartialObject, Patch,
    Preconditions, Propagation,
};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use graph::{Node, Owner, Uid};
use monitor::Monitor;
use plan::{Standing, Verdict};
use serde_json::{Value, json};

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

/// Objects worked on at a time (`--concurrent-gc-syncs`).
const WORKERS: usize = 20;

pub struct GarbageCollector {
    monitor: Arc<Monitor>,
}

impl GarbageCollector {
    pub fn new(client: &Client, caches: &Caches) -> Self {
        let monitor = Monitor::new(client.clone(), caches.tasks().clone(), caches.shutdown().clone());
        Self { monitor }
    }

    /// What it watches, for others that want to know of objects that go.
    pub fn removals(&self) -> Removals {
        Removals(self.monitor.clone())
    }
}

/// Tells of objects of any kind that go. Without the garbage collector at work it tells nothing.
#[derive(Clone)]
pub struct Removals(Arc<Monitor>);

impl Removals {
    /// `observer` gets the namespaces of objects that are gone.
    pub fn observe(&self, observer: impl Fn(&str) + Send + Sync + 'static) {
        self.0.observe_removals(Box::new(observer));
    }
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn queue(&self) -> &'static str {
        "garbage_collector_attempt_to_delete"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        let (monitor, synced) = (self.monitor.clone(), self.monitor.clone());
        let synced = move || {
            let monitor = synced.clone();
            async move { monitor.synced().await }.boxed()
        };
        inputs.source("*", move |wake| monitor.start(wake), synced);
    }

    fn outputs(&self) -> &'static [Output] {
        // Deletions, owner references and two finalizers of any object.
        const OUTPUTS: &[Output] = &[Output::shared("*", "*")];
        OUTPUTS
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let uid = Uid::parse(&key.name);
        let Some((verdict, node, gvr)) = self.judge(uid, &HashMap::new()) else { return Ok(Done::Settled) };
        let (verdict, unobserved) = match verdict {
            Verdict::Ask(owners) => {
                let mut asked = HashMap::new();
                for owner in owners {
                    asked.insert(owner.uid, self.ask(&node, &gvr, &owner, work).await?);
                }
                let unobserved = asked.values().any(|standing| *standing != Standing::Dangling);
                let Some((verdict, ..)) = self.judge(uid, &asked) else { return Ok(Done::Settled) };
                (verdict, unobserved)
            }
            verdict => (verdict, false),
        };
        self.act(uid, &node, &gvr, verdict, work).await?;
        // An owner that exists but was not observed yet is looked for again, until it is observed or gone.
        Ok(if unobserved { Done::Later } else { Done::Settled })
    }
}

impl GarbageCollector {
    fn judge(&self, uid: Uid, asked: &HashMap<Uid, Standing>) -> Option<(Verdict, Node, GroupVersionResource)> {
        let state = self.monitor.state();
        let node = state.graph.get(uid)?.clone();
        let gvr = state.resource(node.resource)?.gvr.clone();
        let verdict = plan::judge(&state.graph, uid, |owner| asked.get(&owner.uid).copied());
        Some((verdict, node, gvr))
    }

    /// Asks the server for an owner as the dependent states it (`isDangling`).
    async fn ask(
        &self,
        node: &Node,
        gvr: &GroupVersionResource,
        owner: &Owner,
        work: &Work,
    ) -> Result<Standing, Error> {
        let reference = &owner.reference;
        let owner_gvr = self.monitor.state().of_reference(reference).map(|served| served.gvr.clone());
        let Some(owner_gvr) = owner_gvr else {
            return Err(Error::Object {
                object: format!("{} {}/{}", gvr.qualified(), node.namespace, node.name),
                why: format!("its owner's kind {} {} is not served", reference.api_version, reference.kind),
            });
        };
        if owner_gvr.namespaced && node.namespace.is_empty() {
            // Not valid, and no question the server could answer: such an object is left alone.
            return Ok(Standing::Solid);
        }
        let namespace = if owner_gvr.namespaced { &*node.namespace } else { "" };
        let key = ObjectKey::new(namespace, reference.name.as_str());
        let found = work.metadata_api(&owner_gvr)?.find(&key).await?;
        let Some(found) = found.filter(|found| found.metadata.uid == reference.uid) else {
            self.report_wrong_namespace(node, gvr, owner, work);
            return Ok(Standing::Dangling);
        };
        let waits = found.metadata.is_deleting() && found.metadata.finalizers.iter().any(|f| f == "foregroundDeletion");
        Ok(if waits { Standing::Waiting } else { Standing::Solid })
    }

    /// Tells the user of a reference across namespaces, which never holds.
    fn report_wrong_namespace(&self, node: &Node, gvr: &GroupVersionResource, owner: &Owner, work: &Work) {
        let state = self.monitor.state();
        let elsewhere = state.graph.get(owner.uid).filter(|known| known.namespace != node.namespace);
        if elsewhere.is_none_or(|known| known.namespace.is_empty()) {
            return;
        }
        let kind = state.resource(node.resource).map(|served| served.kind.clone()).unwrap_or_default();
        let regarding = ObjectReference {
            api_version: api::meta::api_version(&gvr.group, &gvr.version),
            kind,
            namespace: node.namespace.to_string(),
            name: node.name.to_string(),
            uid: node.uid.to_string(),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = &*owner.reference;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {}, name: {name}, uid: {uid}] does not exist in namespace {:?}",
            node.namespace, node.namespace
        );
        work.recorder().warning(regarding, "OwnerRefInvalidNamespace", message);
    }

    async fn act(
        &self,
        uid: Uid,
        node: &Node,
        gvr: &GroupVersionResource,
        verdict: Verdict,
        work: &Work,
    ) -> Result<(), Error> {
        match verdict {
            Verdict::Nothing | Verdict::Ask(_) => Ok(()),
            Verdict::DropOwners(owners) => {
                let drop = |reference: &OwnerReference| !owners.contains(&Uid::parse(&reference.uid));
                self.rewrite_owners(work, uid, |references| references.into_iter().filter(drop).collect()).await
            }
            Verdict::Delete { policy, unblock } => {
                if unblock {
                    let free = |reference| OwnerReference { block_owner_deletion: false, ..reference };
                    self.rewrite_owners(work, uid, |references| references.into_iter().map(free).collect()).await?;
                }
                self.delete(work, (uid, node, gvr), policy, unblock).await
            }
            Verdict::Orphan(dependents) => {
                let others = |r: &OwnerReference| Uid::parse(&r.uid) != uid;
                let rewrite = |references: Vec<OwnerReference>| references.into_iter().filter(others).collect();
                let orphaned = join_all(dependents.into_iter().map(|d| self.rewrite_owners(work, d, rewrite))).await;
                orphaned.into_iter().collect::<Result<(), Error>>()?;
                remove_finalizer(work, node, gvr, "orphan").await
            }
            Verdict::FinishForeground => remove_finalizer(work, node, gvr, "foregroundDeletion").await,
            Verdict::DeleteDependents(dependents) => {
                // Each is judged in its own right: it may have other owners.
                for dependent in dependents {
                    self.monitor.wake(dependent);
                }
                Ok(())
            }
        }
    }

    fn target(&self, uid: Uid) -> Option<(GroupVersionResource, ObjectKey, Box<str>)> {
        let state = self.monitor.state();
        let node = state.graph.get(uid)?;
        let gvr = state.resource(node.resource)?.gvr.clone();
        Some((gvr, ObjectKey::new(&*node.namespace, &*node.name), node.uid.clone()))
    }

    /// Changes an object's owner references, on condition that it is the same object in the state that was read.
    async fn rewrite_owners(
        &self,
        work: &Work,
        uid: Uid,
        rewrite: impl Fn(Vec<OwnerReference>) -> Vec<OwnerReference>,
    ) -> Result<(), Error> {
        let Some((gvr, key, own_uid)) = self.target(uid) else { return Ok(()) };
        let api = work.metadata_api(&gvr)?;
        let Some(live) = api.find(&key).await?.filter(|live| *live.metadata.uid == *own_uid) else { return Ok(()) };
        let new = rewrite(live.metadata.owner_references.clone());
        if new == live.metadata.owner_references {
            return Ok(());
        }
        patch_metadata(&api, &key, &live, json!({"ownerReferences": new})).await
    }

    /// Deletes on condition that the object is still in the state it was judged in. A change that leaves the owners as
    /// they were doesn't matter.
    async fn delete(
        &self,
        work: &Work,
        (uid, node, gvr): (Uid, &Node, &GroupVersionResource),
        policy: Propagation,
        unblocked: bool,
    ) -> Result<(), Error> {
        let api = work.metadata_api(gvr)?;
        let key = ObjectKey::new(&*node.namespace, &*node.name);
        let params = |resource_version: Option<String>| DeleteParams {
            preconditions: Some(Preconditions { uid: Some(node.uid.to_string()), resource_version }),
            ..DeleteParams::default().propagation(policy)
        };
        let judged = Some(node.revision.to_string()).filter(|_| !unblocked && !node.revision.is_none());
        let mut deleted = api.delete(&key, &params(judged)).await;
        if deleted.as_ref().is_err_and(api_client::Error::is_conflict) {
            let live = api.find(&key).await?.filter(|live| *live.metadata.uid == *node.uid);
            let same = |live: &PartialObject| {
                let judged: Vec<&OwnerReference> = node.owners.iter().map(|o| &*o.reference).collect();
                judged == live.metadata.owner_references.iter().collect::<Vec<_>>()
            };
            deleted = match live {
                None => Ok(api_client::Revision::NONE),
                Some(live) if same(&live) => api.delete(&key, &params(None)).await,
                Some(_) => deleted,
            };
        }
        match deleted {
            Err(e) if !e.is_not_found() => Err(e.into()),
            Err(_) => {
                // Gone before its deletion was observed; its dependents need not wait for that.
                self.monitor.forget(uid);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

async fn remove_finalizer(work: &Work, node: &Node, gvr: &GroupVersionResource, finalizer: &str) -> Result<(), Error> {
    let api = work.metadata_api(gvr)?;
    let key = ObjectKey::new(&*node.namespace, &*node.name);
    let Some(live) = api.find(&key).await?.filter(|live| *live.metadata.uid == *node.uid) else { return Ok(()) };
    let left: Vec<&String> = live.metadata.finalizers.iter().filter(|f| *f != finalizer).collect();
    if left.len() == live.metadata.finalizers.len() {
        return Ok(());
    }
    patch_metadata(&api, &key, &live, json!({"finalizers": left})).await
}

async fn patch_metadata(
    api: &Api<PartialObject>,
    key: &ObjectKey,
    live: &PartialObject,
    mut metadata: Value,
) -> Result<(), Error> {
    metadata["resourceVersion"] = live.metadata.resource_version().into();
    metadata["uid"] = live.metadata.uid().into();
    match api.patch(key, &Patch::Merge(json!({"metadata": metadata}))).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e.into()),
    }
}
