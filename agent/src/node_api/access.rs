//! Who may use the node API: holders of a client certificate of the cluster's authority that stand for the API server
//! or an administrator.
//!
//! Trust is judged per request, so that a certificate that expires on an open connection stops working.

use std::{path::Path, sync::Arc};

use http::StatusCode;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{answer::Refusal, certificate::Error};

/// Members may do anything.
const MASTERS: &str = "system:masters";
/// The API server's own identity towards nodes.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// Judges client certificates.
#[derive(Clone)]
pub struct Access {
    /// Without an authority nobody is trusted.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Access {
    /// `authority` is a PEM file with one or more certificates.
    pub fn new(authority: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = authority else { return Ok(Self { verifier: None }) };
        let failed = |problem: String| Error::Authority { path: path.to_owned(), problem };
        let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let roots = tls::roots(&pem).map_err(|error| failed(error.to_string()))?;
        let verifier = tls::client_verifier(roots).map_err(|error| failed(error.to_string()))?;
        Ok(Self { verifier: Some(verifier) })
    }

    pub fn verifier(&self) -> Option<&Arc<dyn ClientCertVerifier>> {
        self.verifier.as_ref()
    }

    /// `chain` is what the client proved to hold, leaf first; empty when it showed none.
    pub fn check(&self, chain: &[CertificateDer<'_>], what: &str) -> Result<(), Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        let (Some(verifier), Some((leaf, intermediates))) = (&self.verifier, chain.split_first()) else {
            return Err(unauthorized());
        };
        if let Err(error) = verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            tracing::debug!(%error, "client certificate refused");
            return Err(unauthorized());
        }
        let (name, groups) = names(leaf).ok_or_else(unauthorized)?;
        if name == API_SERVER || groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, format!("Forbidden (user={name}, resource=nodes, subresource={what})")))
    }
}

/// Common name and organizations: the user and its groups.
fn names(certificate: &[u8]) -> Option<(String, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().last()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    Some((name, groups))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls_pki_types::CertificateDer;

    use super::Access;

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    fn leaf(authority: &Authority, name: &str, group: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().der().clone()
    }

    fn code(access: &Access, chain: &[CertificateDer<'static>]) -> u16 {
        access.check(chain, "proxy").map_or_else(|refusal| refusal.code.as_u16(), |()| 200)
    }

    #[test]
    fn the_api_server_and_masters_of_the_right_authority_pass() {
        let (ours, theirs) = (authority(), authority());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, &ours.pem).unwrap();
        let access = Access::new(Some(&path)).unwrap();
        assert_eq!(code(&access, &[leaf(&ours, "root", "system:masters")]), 200);
        assert_eq!(code(&access, &[leaf(&ours, "kube-apiserver-kubelet-client", "any")]), 200);
        assert_eq!(code(&access, &[leaf(&ours, "system:node:n1", "system:nodes")]), 403);
        assert_eq!(code(&access, &[leaf(&theirs, "root", "system:masters")]), 401);
        assert_eq!(code(&access, &[]), 401);
    }

    #[test]
    fn without_an_authority_nobody_passes() {
        let ours = authority();
        let access = Access::new(None).unwrap();
        assert_eq!(code(&access, &[leaf(&ours, "root", "system:masters")]), 401);
    }
}
