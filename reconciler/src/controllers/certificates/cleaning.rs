//! Removes requests that nobody can need any more (upstream's `csrcleaner`).

use std::time::Duration;

use api_client::{Cache, DeleteParams, ObjectKey};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use tls::certificate::Facts;

use super::{GROUP, RESOURCE, plan};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

pub struct Cleaner {
    requests: Cache<CertificateSigningRequest>,
}

impl Cleaner {
    pub fn new(caches: &Caches) -> Self {
        Self { requests: caches.get() }
    }
}

/// The time from `now` until `then`; `None` when it has come.
pub(super) fn until(then: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[async_trait]
impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.requests);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive(GROUP, RESOURCE)];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(request) = self.requests.get(key) else { return Ok(Done::Settled) };
        let ends = plan::certificate(&request).and_then(|pem| Facts::of_pem(pem).ok()).map(|facts| facts.not_after);
        let Some(at) = plan::remove_at(&request, ends) else { return Ok(Done::Settled) };
        if let Some(left) = until(at, work.now()) {
            return Ok(Done::After(left));
        }
        let uid = request.metadata.uid.clone().unwrap_or_default();
        work.delete::<CertificateSigningRequest>(key, &uid, DeleteParams::default()).await?;
        Ok(Done::Settled)
    }
}
