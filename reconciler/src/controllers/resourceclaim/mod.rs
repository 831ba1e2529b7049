//! Claims for devices (dynamic resource allocation): by pod, claims are made from its templates and reserved for it
//! once it has a node; by claim, those that no pod uses are given free. Allocation is the scheduler's.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, DeleteParams, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{Pod, PodResourceClaim};

/// A template that a pod names and that is missing is looked for again after this long; templates are not watched.
const TEMPLATE_PAUSE: Duration = Duration::from_secs(5);

/// By pod.
pub struct PodClaims {
    pods: Cache<Pod>,
    claims: Cache<ResourceClaim>,
}

impl PodClaims {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.get(), claims: caches.get() }
    }
}

fn wake_owner(change: &Change<ResourceClaim>, wake: &dyn Fn(ObjectKey)) {
    [&change.old, &change.new].into_iter().flatten().filter_map(|claim| plan::owner_key(claim)).for_each(wake);
}

#[async_trait]
impl Controller for PodClaims {
    fn name(&self) -> &'static str {
        "resourceclaim-controller"
    }

    fn queue(&self) -> &'static str {
        "resource_claim"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary_when(&self.pods, |change| {
            change.new.as_ref().is_some_and(|pod| !pod.spec.resource_claims.is_empty() && !pod.metadata.is_deleting())
        });
        inputs.watch(&self.claims, wake_owner);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::shared("resource.k8s.io", "resourceclaims"),
            Output::shared("resource.k8s.io", "resourceclaims/status"),
            Output::shared("", "pods/status"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let needs = |pod: &Arc<Pod>| !pod.spec.resource_claims.is_empty() && !pod.metadata.is_deleting();
        let Some(pod) = self.pods.get(key).filter(needs).filter(|pod| !pod.is_terminal()) else {
            return Ok(Done::Settled);
        };
        let mut names: Vec<(String, String)> = Vec::new();
        for wanted in &pod.spec.resource_claims {
            let made = match self.claim_for(&pod, wanted, work).await {
                Ok(made) => made,
                Err(Error::Object { object, why }) => {
                    let message = format!("PodResourceClaim {}: {object}: {why}", wanted.name);
                    work.recorder().warning(ObjectReference::to(&*pod), "FailedResourceClaimCreation", message);
                    return Ok(Done::After(TEMPLATE_PAUSE));
                }
                Err(error) => return Err(error),
            };
            names.extend(made.map(|claim| (wanted.name.clone(), claim)));
        }
        let told = |(name, claim): &(String, String)| {
            pod.status.resource_claim_statuses.iter().any(|s| s.name == *name && s.resource_claim_name == *claim)
        };
        if !names.iter().all(told) {
            let statuses: Vec<Value> =
                names.iter().map(|(name, claim)| json!({"name": name, "resourceClaimName": claim})).collect();
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": statuses}});
            work.patch_status::<Pod>(key, &Patch::Strategic(patch)).await?;
        }
        if !pod.spec.node_name.is_empty() {
            let named = pod.spec.resource_claims.iter().filter_map(|c| c.resource_claim_name.clone());
            for claim in names.into_iter().map(|(_, claim)| claim).chain(named) {
                self.reserve(&pod, &claim, work).await?;
            }
        }
        Ok(Done::Settled)
    }
}

impl PodClaims {
    /// The name of the claim that is made, or was, from a template of the pod; `None` for a claim that it names itself.
    async fn claim_for(&self, pod: &Pod, wanted: &PodResourceClaim, work: &Work) -> Result<Option<String>, Error> {
        let Some(template) = wanted.resource_claim_template_name.as_deref() else { return Ok(None) };
        let claims = self.claims.snapshot();
        let namespace = pod.metadata.namespace.as_str();
        let present = plan::generated(pod, &wanted.name, claims.namespace(namespace).map(|claim| &**claim));
        if let Some(claim) = present {
            return Ok(claim.metadata.name.clone());
        }
        let key = ObjectKey::new(namespace, template);
        let Some(template) = work.live::<ResourceClaimTemplate>().find(&key).await? else {
            let object = format!("resource claim template {template:?}");
            return Err(Error::Object { object, why: "not found".into() });
        };
        let claim = plan::new_claim(pod, &wanted.name, &template);
        Ok(work.create::<ResourceClaim>(namespace, &claim).await?.metadata.name)
    }

    /// A pod that was bound without the scheduler gets its claims reserved here.
    async fn reserve(&self, pod: &Pod, name: &str, work: &Work) -> Result<(), Error> {
        let key = ObjectKey::new(pod.metadata.namespace.as_str(), name);
        let Some(claim) = self.claims.get(&key) else { return Ok(()) };
        let Some(status) = claim.status.as_ref().filter(|s| s.allocation.is_some()) else { return Ok(()) };
        let mut reserved: Vec<Value> = status.reserved_for.iter().flatten().map(|r| json!(r)).collect();
        let is_reserved = reserved.iter().any(|r| r["uid"] == *pod.metadata.uid);
        if is_reserved || reserved.len() >= plan::RESERVED_MAX {
            return Ok(());
        }
        reserved.push(json!({"resource": "pods", "name": pod.metadata.name, "uid": pod.metadata.uid}));
        write_status(work, &key, &claim, json!({"reservedFor": reserved})).await.map(drop)
    }
}

/// Only if nothing has changed meanwhile.
async fn write_status(
    work: &Work,
    key: &ObjectKey,
    claim: &ResourceClaim,
    status: Value,
) -> Result<ResourceClaim, Error> {
    let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status});
    work.patch_status::<ResourceClaim>(key, &Patch::Merge(patch)).await
}

/// By claim.
pub struct Claims {
    pods: Cache<Pod>,
    claims: Cache<ResourceClaim>,
}

impl Claims {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.get(), claims: caches.get() }
    }
}

#[async_trait]
impl Controller for Claims {
    fn name(&self) -> &'static str {
        "resourceclaim-release-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.claims);
        inputs.watch(&self.pods, |change, wake| {
            let ended = change.new.as_ref().is_none_or(|pod| plan::is_done(pod));
            for pod in [&change.old, &change.new].into_iter().flatten().filter(|_| ended) {
                let named = pod.spec.resource_claims.iter().filter_map(|c| c.resource_claim_name.as_deref());
                let made = pod.status.resource_claim_statuses.iter().map(|s| s.resource_claim_name.as_str());
                named.chain(made).for_each(|name| wake(ObjectKey::new(change.key.namespace.as_str(), name)));
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::shared("resource.k8s.io", "resourceclaims"),
            Output::shared("resource.k8s.io", "resourceclaims/status"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Done::Settled) };
        let gone = self.gone(&claim, key, work).await?;
        let owner = plan::owner_key(&claim).and_then(|key| self.pods.get(&key));
        let plan = plan::plan(&claim, &|_, uid| !gone.iter().any(|g| g == uid), owner.as_deref());
        let mut current = (*claim).clone();
        if plan.reserved.is_some() || plan.deallocate {
            let mut status = json!({});
            if let Some(reserved) = plan.reserved {
                status["reservedFor"] = if reserved.is_empty() { Value::Null } else { reserved.into() };
            }
            if plan.deallocate {
                status["allocation"] = Value::Null;
            }
            current = write_status(work, key, &current, status).await?;
        }
        if plan.remove_finalizer {
            let left: Vec<&String> =
                current.metadata.finalizers.iter().flatten().filter(|f| *f != plan::FINALIZER).collect();
            let patch = json!({"metadata": {"resourceVersion": current.metadata.resource_version, "finalizers": left}});
            work.patch::<ResourceClaim>(key, &Patch::Merge(patch)).await?;
        }
        if plan.delete {
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            work.delete::<ResourceClaim>(key, &uid, DeleteParams::default()).await?;
        }
        Ok(Done::Settled)
    }
}

impl Claims {
    /// The uids of pods that it is reserved for and that will not use it any more. A pod that the cache lacks may be
    /// too new for it: then the server is asked.
    async fn gone(&self, claim: &ResourceClaim, key: &ObjectKey, work: &Work) -> Result<Vec<String>, Error> {
        let mut gone = Vec::new();
        let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
        for reference in reserved.iter().filter(|r| r.resource == "pods") {
            let pod_key = ObjectKey::new(key.namespace.as_str(), reference.name.as_str());
            let pod = match self.pods.get(&pod_key) {
                Some(pod) => Some((*pod).clone()),
                None => work.live::<Pod>().find(&pod_key).await?,
            };
            if pod.is_none_or(|pod| pod.metadata.uid != reference.uid || plan::is_done(&pod)) {
                gone.push(reference.uid.clone());
            }
        }
        Ok(gone)
    }
}
