//! The resource quota controller: counts what a namespace with a quota uses. Admission adds to the count before a
//! write; this one corrects it, above all when something goes. It lists what it counts when it counts, since few
//! namespaces have quotas and the requests of every pod would take memory for all.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use api_client::{Cache, Change, Client, GroupVersionResource, ListParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use futures_util::FutureExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota, Service};
use plan::{Counted, Found};
use serde_json::json;

use super::garbage::Removals;
use super::served::{ServedResources, Whole};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::Pod;

pub struct ResourceQuotas {
    client: Client,
    quotas: Cache<ResourceQuota>,
    pods: Cache<Pod>,
    services: Cache<Service>,
    claims: Cache<PersistentVolumeClaim>,
    removals: Removals,
    served: ServedResources,
}

impl ResourceQuotas {
    pub fn new(client: &Client, caches: &Caches, removals: Removals) -> Self {
        Self {
            client: client.clone(),
            quotas: caches.get(),
            pods: caches.get(),
            services: caches.get(),
            claims: caches.get(),
            removals,
            served: ServedResources::new(client),
        }
    }
}

#[async_trait]
impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary_when(&self.quotas, concerns);
        let quotas = self.quotas.clone();
        inputs.watch(&self.pods, move |change, wake| {
            if ends(change) {
                wake_namespace(&quotas, &change.key.namespace, wake);
            }
        });
        // Their use may also shrink by a change.
        let quotas = self.quotas.clone();
        inputs.watch(&self.services, move |change, wake| wake_if_changed(&quotas, change, wake));
        let quotas = self.quotas.clone();
        inputs.watch(&self.claims, move |change, wake| wake_if_changed(&quotas, change, wake));
        let (quotas, removals) = (self.quotas.clone(), self.removals.clone());
        let connect = move |wake: crate::engine::Waker| {
            removals.observe(move |namespace| wake_namespace(&quotas, namespace, &*wake));
        };
        inputs.source("*", connect, || std::future::ready(()).boxed());
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("", "resourcequotas/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(quota) = self.quotas.get(key) else { return Ok(Done::Settled) };
        let (spec, old) = (json!(quota.spec), json!(quota.status));
        let mut found: BTreeMap<Counted, Found> = BTreeMap::new();
        for (group, resource) in plan::counted(&spec["hard"]) {
            if let Some(gvr) = self.served.named(&group, &resource).await? {
                let content = plan::needs_content(&group, &resource);
                found.insert((group, resource), self.list(gvr, &key.namespace, content).await?);
            }
        }
        let now = work.now();
        let used = plan::used(&spec, &old["used"], &found, now);
        let version = quota.metadata.resource_version.as_deref().unwrap_or_default();
        if let Some(patch) = plan::patch(&spec, &old, &used, version) {
            work.patch_status::<ResourceQuota>(key, &Patch::Merge(patch)).await?;
        }
        Ok(Done::after(plan::next_change(&found, now)))
    }
}

impl ResourceQuotas {
    async fn list(&self, gvr: GroupVersionResource, namespace: &str, content: bool) -> Result<Found, Error> {
        let params = ListParams::namespace(namespace);
        if content {
            let list = self.client.api_at::<Whole>(gvr).list(&params).await?;
            return Ok(Found::Objects(list.items.into_iter().map(|whole| whole.object).collect()));
        }
        let list = self.client.metadata_api(gvr).list(&params).await?;
        Ok(Found::Number(list.items.len()))
    }
}

/// A pod that ends uses nothing any more. Its removal is told by [`Removals`].
fn ends(change: &Change<Pod>) -> bool {
    let ended = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| pod.is_terminal());
    let leaving = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| pod.metadata.is_deleting());
    change.new.is_some() && (ended(&change.old) != ended(&change.new) || leaving(&change.old) != leaving(&change.new))
}

/// Admission counts in `status.used` what is about to be written, and must not be corrected before it is. Nobody but
/// this controller has reason to write `status.hard`.
fn concerns(change: &Change<ResourceQuota>) -> bool {
    let spec = |quota: &Option<Arc<ResourceQuota>>| quota.as_ref().map(|q| q.spec.clone());
    let told = |quota: &Option<Arc<ResourceQuota>>| quota.as_ref().and_then(|q| q.status.as_ref()?.hard.clone());
    spec(&change.old) != spec(&change.new) || change.old.is_some() && told(&change.old) != told(&change.new)
}

fn wake_if_changed<T: Object>(quotas: &Cache<ResourceQuota>, change: &Change<T>, wake: &dyn Fn(ObjectKey)) {
    if change.old.is_some() && change.new.is_some() {
        wake_namespace(quotas, &change.key.namespace, wake);
    }
}

fn wake_namespace(quotas: &Cache<ResourceQuota>, namespace: &str, wake: &dyn Fn(ObjectKey)) {
    quotas.snapshot().namespace(namespace).for_each(|quota| wake(quota.key()));
}
