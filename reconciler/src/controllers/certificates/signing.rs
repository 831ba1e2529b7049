//! Signs approved requests with the cluster's authority (upstream's `csrsigning`).

use std::sync::Arc;
use std::time::Duration;

use api_client::{Cache, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use tls::RequestFacts;

use super::approving::with_condition;
use super::{GROUP, Signer, plan};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

pub struct Signing {
    requests: Cache<CertificateSigningRequest>,
    signer: Arc<dyn Signer>,
}

impl Signing {
    pub fn new(caches: &Caches, signer: Arc<dyn Signer>) -> Self {
        Self { requests: caches.get(), signer }
    }

    fn sign(&self, request: &CertificateSigningRequest) -> Result<String, String> {
        let spec = &request.spec;
        let facts = RequestFacts::of_pem(&spec.request.0).map_err(|error| error.to_string())?;
        if let Some(why) = plan::objection(spec, &facts) {
            return Err(why);
        }
        let usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
        let wished = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        self.signer.sign(&spec.request.0, &usages, wished.map(Duration::from_secs))
    }
}

#[async_trait]
impl Controller for Signing {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.requests);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive(GROUP, "certificatesigningrequests/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let ours = |request: &Arc<CertificateSigningRequest>| {
            let signer = request.spec.signer_name.as_str();
            [plan::CLIENT, plan::NODE_CLIENT, plan::NODE_SERVING].contains(&signer) && plan::awaits_signature(request)
        };
        let Some(request) = self.requests.get(key).filter(ours) else { return Ok(Done::Settled) };
        let object = match self.sign(&request) {
            Ok(certificate) => {
                let mut signed = CertificateSigningRequest::clone(&request);
                signed.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                let unwritable =
                    |error: serde_json::Error| Error::Object { object: key.to_string(), why: error.to_string() };
                serde_json::to_value(&signed).map_err(unwritable)?
            }
            Err(why) => with_condition(&request, "Failed", "SignerValidationFailure", &why)?,
        };
        work.replace_subresource::<CertificateSigningRequest>(key, "status", &object).await?;
        Ok(Done::Settled)
    }
}
