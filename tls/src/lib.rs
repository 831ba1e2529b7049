//! What every TLS port and every TLS client of Keelson shares: certificates that are replaced while connections go on,
//! the verifiers that differ from the usual, the loop that takes connections, and the words for what went wrong.
//!
//! Contract: one crypto provider ([`provider`]); a certificate is read for every handshake from its [`Current`], so a
//! renewal needs no restart and drops no connection. Not here: who may do what, HTTP, issuing certificates.

pub mod accept;
pub mod certificate;
mod credential;
mod current;
mod explain;
mod pin;
mod request;
mod verify;

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

pub use credential::{Identity, Pem};
pub use current::Current;
pub use explain::{Problem, duration, problem};
pub use pin::{BadPin, FetchError, Pin, Pinned, fetch_authority};
pub use request::RequestFacts;
pub use verify::{AcceptAny, Possession};

pub const HTTP2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}")]
    File { path: String, source: std::io::Error },
    #[error("parse {what}: {detail}")]
    Parse { what: &'static str, detail: String },
    #[error("use {what}: {detail}")]
    Unusable { what: &'static str, detail: String },
    #[error("set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The one crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Trust anchors from PEM text.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| Error::Parse { what: "certificate authority", detail: error.to_string() })?;
        add(&mut roots, certificate)?;
    }
    if roots.is_empty() {
        return Err(Error::Parse { what: "certificate authority", detail: "no certificate in it".to_owned() });
    }
    Ok(roots)
}

/// One certificate as the only trust anchor.
pub fn root(certificate: CertificateDer<'static>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, certificate)?;
    Ok(roots)
}

fn add(roots: &mut RootCertStore, certificate: CertificateDer<'static>) -> Result<(), Error> {
    roots.add(certificate).map_err(|error| Error::Unusable { what: "certificate authority", detail: error.to_string() })
}

/// Judges client certificates against trust anchors.
pub fn client_verifier(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::Unusable { what: "certificate authority", detail: error.to_string() })
}

/// Judges server certificates against trust anchors.
pub fn server_verifier(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::Unusable { what: "certificate authority", detail: error.to_string() })?;
    Ok(verifier)
}

/// A port's side: what `current` holds is shown; with a verifier a client certificate is asked for, never required,
/// and only its possession is proven in the handshake. Whether it is good is asked per request, so that a bad one gets
/// a 401 and not a torn connection.
pub fn server_config(
    current: Arc<Current>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(Possession(verifier))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(current);
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

/// A client's side. No protocol is offered by ALPN: the caller adds those it speaks.
pub fn client_config(
    servers: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(servers);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let mut config = builder.with_client_cert_resolver(identity);
    // A resumed session stands for the certificate it began with, even after that was renewed.
    config.resumption = Resumption::disabled();
    Ok(config)
}
