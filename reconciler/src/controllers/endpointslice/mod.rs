//! The EndpointSlice controller: tells service proxies and DNS which pods stand behind a service. It does not write
//! upstream's last-change-trigger-time annotation, which only feeds a latency metric.

pub mod plan;
pub mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, Change, DeleteParams, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use plan::Step;

use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_NODE, BY_SERVICE, Node, Pod, has_labels, label_of};

pub struct EndpointSlices {
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
}

impl EndpointSlices {
    pub fn new(caches: &Caches) -> Self {
        Self { services: caches.get(), pods: caches.get(), nodes: caches.get(), slices: caches.get() }
    }
}

#[async_trait]
impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn queue(&self) -> &'static str {
        "endpoint_slice"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.services);
        let services = self.services.clone();
        inputs.watch(&self.pods, move |change, wake| wake_services(&services, change, wake));
        let (services, pods) = (self.services.clone(), self.pods.clone());
        inputs.watch(&self.nodes, move |change, wake| wake_services_on_node(&services, &pods, change, wake));
        inputs.watch(&self.slices, |change, wake| {
            for slice in [&change.old, &change.new].into_iter().flatten().filter(|slice| is_managed(slice)) {
                if let Some(service) = label_of(&slice.metadata, plan::SERVICE_NAME_LABEL) {
                    wake(ObjectKey::new(change.key.namespace.as_str(), service));
                }
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("discovery.k8s.io", "endpointslices")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        // The slices of a service that is gone are garbage-collected after it.
        let Some(service) = self.services.get(key) else { return Ok(Done::Settled) };
        let Some(plan) = self.plan(&service, key) else { return Ok(Done::Settled) };
        for step in plan.steps {
            act(work, &service, key, step).await?;
        }
        if plan.skipped.is_empty() {
            return Ok(Done::Settled);
        }
        // Their nodes wake this service when they appear.
        tracing::debug!(service = %key, pods = ?plan.skipped, "pods on unknown nodes left out");
        Ok(Done::Settled)
    }
}

impl EndpointSlices {
    /// `None` where somebody else manages the service's slices.
    fn plan(&self, service: &Service, key: &ObjectKey) -> Option<plan::Plan> {
        let selector = selector(service)?;
        let pods = self.pods.snapshot();
        let nodes = self.nodes.snapshot();
        let slices = self.slices.snapshot();
        let own = slices.indexed(BY_SERVICE, &key.name).filter(|slice| {
            slice.metadata.namespace.as_deref() == Some(&key.namespace)
                && slice.metadata.deletion_timestamp.is_none()
                && is_managed(slice)
        });
        Some(plan::plan(&plan::Input {
            service,
            pods: pods.namespace(&key.namespace).filter(|pod| has_labels(&***pod, selector)).cloned().collect(),
            node: &|name| nodes.get(&ObjectKey::new("", name)).cloned(),
            slices: own.cloned().collect(),
        }))
    }
}

async fn act(work: &Work, service: &Service, key: &ObjectKey, step: Step) -> Result<(), Error> {
    let acted = match step {
        Step::Create(slice) => work.create::<EndpointSlice>(&key.namespace, &slice).await.map(drop),
        Step::Patch(key, patch) => work.patch::<EndpointSlice>(&key, &Patch::Merge(patch)).await.map(drop),
        Step::Delete(key, uid) => work.delete::<EndpointSlice>(&key, &uid, DeleteParams::default()).await,
    };
    match acted {
        Err(e) if !e.is_race() && !e.is_namespace_ending() => {
            let message = format!("Error updating Endpoint Slices for Service {key}: {e}");
            work.recorder().warning(ObjectReference::to(service), "FailedToUpdateEndpointSlices", message);
            Err(e)
        }
        other => other,
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    label_of(&slice.metadata, plan::MANAGED_BY_LABEL) == Some(plan::MANAGED_BY)
}

/// The selector of a service whose endpoints are found by controllers: not those of external names, nor those
/// without a selector.
pub fn selector(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// A pod wakes the services that select it, or did, when what they say of it may have changed.
pub fn wake_services(services: &Cache<Service>, change: &Change<Pod>, wake: &dyn Fn(ObjectKey)) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !differs(old, new)
    {
        return;
    }
    for service in services.snapshot().namespace(&change.key.namespace) {
        let Some(selector) = selector(service) else { continue };
        if [&change.old, &change.new].into_iter().flatten().any(|pod| has_labels(&**pod, selector)) {
            wake(service.key());
        }
    }
}

/// `podEndpointsChanged`, and the labels.
fn differs(old: &Arc<Pod>, new: &Arc<Pod>) -> bool {
    let told = |pod: &Pod| {
        (
            pod.is_ready(),
            pod.is_terminal(),
            pod.metadata.is_deleting(),
            pod.spec.node_name.clone(),
            pod.status.pod_ip.clone(),
        )
    };
    told(old) != told(new)
        || old.status.pod_ips != new.status.pod_ips
        || old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
}

/// A node that comes, goes or changes zone wakes the services of its pods.
fn wake_services_on_node(
    services: &Cache<Service>,
    pods: &Cache<Pod>,
    change: &Change<Node>,
    wake: &dyn Fn(ObjectKey),
) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && old.zone() == new.zone()
    {
        return;
    }
    for pod in pods.snapshot().indexed(BY_NODE, &change.key.name) {
        let appeared = Change { key: pod.key(), old: None, new: Some(pod.clone()) };
        wake_services(services, &appeared, wake);
    }
}
