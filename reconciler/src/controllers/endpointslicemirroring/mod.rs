//! The EndpointSlice mirroring controller: what people wrote into Endpoints by hand, for those who read EndpointSlices.
//! The keys are those of Endpoints.

pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api_client::events::ObjectReference;
use api_client::{Cache, DeleteParams, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpointslice::plan::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL, Step};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_SERVICE, label_of};

pub struct EndpointSliceMirroring {
    endpoints: Cache<Endpoints>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
}

impl EndpointSliceMirroring {
    pub fn new(caches: &Caches) -> Self {
        Self { endpoints: caches.get(), services: caches.get(), slices: caches.get() }
    }

    /// The slices that this controller made for the service.
    fn mirrored(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let slices = self.slices.snapshot();
        let own = slices.indexed(BY_SERVICE, &key.name).filter(|slice| {
            slice.metadata.namespace.as_deref() == Some(&key.namespace)
                && slice.metadata.deletion_timestamp.is_none()
                && is_managed(slice)
        });
        own.cloned().collect()
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    label_of(&slice.metadata, MANAGED_BY_LABEL) == Some(plan::MANAGED_BY)
}

fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.selector.is_some())
}

#[async_trait]
impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn queue(&self) -> &'static str {
        "endpoint_slice_mirroring"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.endpoints);
        inputs.watch(&self.services, |change, wake| {
            let selects = |service: &Option<Arc<Service>>| service.as_ref().map(|s| has_selector(s));
            if selects(&change.old) != selects(&change.new) {
                wake(change.key.clone());
            }
        });
        inputs.watch(&self.slices, |change, wake| {
            for slice in [&change.old, &change.new].into_iter().flatten().filter(|slice| is_managed(slice)) {
                if let Some(service) = label_of(&slice.metadata, SERVICE_NAME_LABEL) {
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
        let slices = self.mirrored(key);
        let wanted = self.endpoints.get(key).filter(|e| plan::is_mirrored(e));
        let service = self.services.get(key).filter(|s| !has_selector(s));
        let (Some(endpoints), Some(_)) = (wanted, service) else {
            for slice in &slices {
                act(work, key, plan::deletion(slice)).await?;
            }
            return Ok(Done::Settled);
        };
        let plan = plan::plan(&endpoints, &slices);
        for step in plan.steps {
            act(work, key, step).await?;
        }
        tell(work, &endpoints, plan.invalid, plan.too_many);
        Ok(Done::Settled)
    }
}

async fn act(work: &Work, key: &ObjectKey, step: Step) -> Result<(), Error> {
    match step {
        Step::Create(slice) => work.create::<EndpointSlice>(&key.namespace, &slice).await.map(drop),
        Step::Patch(key, patch) => work.patch::<EndpointSlice>(&key, &Patch::Merge(patch)).await.map(drop),
        Step::Delete(key, uid) => work.delete::<EndpointSlice>(&key, &uid, DeleteParams::default()).await,
    }
}

fn tell(work: &Work, endpoints: &Endpoints, invalid: usize, too_many: usize) {
    let regarding = ObjectReference::to(endpoints);
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        work.recorder().warning(regarding.clone(), "InvalidIPAddress", message);
    }
    if too_many > 0 {
        let max = plan::ADDRESSES_MAX;
        let skipped = too_many + invalid;
        let message = format!(
            "A max of {max} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
        );
        work.recorder().warning(regarding, "TooManyAddressesToMirror", message);
    }
}
