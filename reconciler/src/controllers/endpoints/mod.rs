//! The Endpoints controller: the older, single-object form of what EndpointSlices say, for those who still read it.

pub mod plan;

use api_client::{Cache, DeleteParams, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::endpointslice::{selector, wake_services};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{Pod, has_labels, label_of};

pub struct EndpointsController {
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
}

impl EndpointsController {
    pub fn new(caches: &Caches) -> Self {
        Self { services: caches.get(), pods: caches.get(), endpoints: caches.get() }
    }
}

#[async_trait]
impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    fn queue(&self) -> &'static str {
        "endpoint"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.services);
        let services = self.services.clone();
        inputs.watch(&self.pods, move |change, wake| wake_services(&services, change, wake));
        inputs.watch(&self.endpoints, |change, wake| wake(change.key.clone()));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("", "endpoints")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Only what we made goes with the service; it has no owner reference.
            let is_ours = |e: &Endpoints| label_of(&e.metadata, plan::MANAGED_BY_LABEL) == Some(plan::MANAGED_BY);
            if let Some(endpoints) = current.filter(|e| is_ours(e)) {
                let uid = endpoints.metadata.uid.clone().unwrap_or_default();
                work.delete::<Endpoints>(key, &uid, DeleteParams::default()).await?;
            }
            return Ok(Done::Settled);
        };
        let Some(selector) = selector(&service) else { return Ok(Done::Settled) };
        let pods = self.pods.snapshot();
        let pods: Vec<_> = pods.namespace(&key.namespace).filter(|p| has_labels(&***p, selector)).cloned().collect();
        let wanted = plan::wanted(&service, &pods);
        match &current {
            None => {
                let object = plan::new_object(&key.name, &wanted);
                work.create::<Endpoints>(&key.namespace, &object).await?;
            }
            Some(current) => {
                if let Some(patch) = plan::patch(current, &wanted) {
                    work.patch::<Endpoints>(key, &Patch::Merge(patch)).await?;
                }
            }
        }
        Ok(Done::Settled)
    }
}
