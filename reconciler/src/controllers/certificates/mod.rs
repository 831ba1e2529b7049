//! CertificateSigningRequests: approved where a node asks for its own certificates, signed by upstream's signers, and
//! removed when nobody can need them any more. Three controllers with the request as key; decisions are in [`plan`].

mod approving;
mod cleaning;
pub mod plan;
mod signing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::engine::Cached;

pub use approving::Approver;
pub use cleaning::Cleaner;
pub use signing::Signing;

impl Cached for CertificateSigningRequest {}

pub(crate) const GROUP: &str = "certificates.k8s.io";
pub(crate) const RESOURCE: &str = "certificatesigningrequests";

/// Holds the key of the cluster's authority.
pub trait Signer: Send + Sync {
    /// The certificate (PEM) for a request (PEM); the error says why there is none. The lifetime asked for is a wish:
    /// the signer knows its own limit.
    fn sign(&self, request: &[u8], usages: &[&str], lifetime: Option<Duration>) -> Result<String, String>;
}
