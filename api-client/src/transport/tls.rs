//! TLS towards API servers: whom to trust and who we are. Certificates given as files are read again when they
//! change, at the next connection, so that renewal needs no restart.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;

use crate::Error;
use ::tls::Current;
pub use ::tls::{AcceptAny, Identity, Pem};

/// Trust anchors where a configuration names none (Debian's bundle).
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities; the host's bundle when `None`.
    pub authority: Option<Pem>,
    pub identity: Option<Identity>,
    /// The name to expect in the server's certificate instead of the host in the address.
    pub server_name: Option<String>,
    /// Accept any certificate (`insecure-skip-tls-verify`).
    pub insecure: bool,
}

impl Tls {
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        let servers: Arc<dyn ServerCertVerifier> = if self.insecure {
            Arc::new(AcceptAny(::tls::provider()))
        } else {
            let system = Pem::File(PathBuf::from(SYSTEM_ROOTS));
            let pem = self.authority.as_ref().unwrap_or(&system).read()?;
            ::tls::server_verifier(::tls::roots(&pem)?)?
        };
        let identity = match &self.identity {
            None => None,
            Some(identity) => Some(Current::following(identity.clone())? as Arc<dyn ResolvesClientCert>),
        };
        let mut config = ::tls::client_config(servers, identity)?;
        config.alpn_protocols = vec![::tls::HTTP2.to_vec(), ::tls::HTTP1.to_vec()];
        Ok(config)
    }
}
