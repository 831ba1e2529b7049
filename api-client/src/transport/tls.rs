//! TLS towards API servers: whom to trust and who we are. Certificates given as files are read again when they
//! change, at the next connection, so that renewal needs no restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Error;
use crate::error::BoxError;

/// Trust anchors where a configuration names none (Debian's bundle).
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// PEM text given inline or as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    Inline(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    /// The text, wherever it is.
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::File(path) => std::fs::read(path)
                .map_err(|e| Error::Config { what: format!("read {}", path.display()), source: e.into() }),
        }
    }

    fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => modified(path),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// A client certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Pem,
}

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
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| config("set up TLS", e))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider.clone())))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut tls = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(Reloading::new(identity.clone(), provider)?)),
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(tls)
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let system = Pem::File(PathBuf::from(SYSTEM_ROOTS));
        let pem = self.authority.as_ref().unwrap_or(&system).read()?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|e| config("parse certificate authority", e))?)
                .map_err(|e| config("use certificate authority", e))?;
        }
        Ok(roots)
    }
}

fn config(what: &str, source: impl Into<BoxError>) -> Error {
    Error::Config { what: what.to_owned(), source: source.into() }
}

/// A client certificate that follows its files.
#[derive(Debug)]
struct Reloading {
    identity: Identity,
    provider: Arc<CryptoProvider>,
    current: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    modified: [Option<SystemTime>; 2],
}

impl Reloading {
    fn new(identity: Identity, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let current = Mutex::new(load(&identity, &provider)?);
        Ok(Self { identity, provider, current })
    }
}

fn load(identity: &Identity, provider: &CryptoProvider) -> Result<Loaded, Error> {
    let modified = [identity.certificate.modified(), identity.key.modified()];
    let chain = CertificateDer::pem_slice_iter(&identity.certificate.read()?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| config("parse client certificate", e))?;
    let key =
        PrivateKeyDer::from_pem_slice(&identity.key.read()?).map_err(|e| config("parse client certificate key", e))?;
    let key =
        CertifiedKey::from_der(chain, key, provider).map_err(|e| config("use client certificate with its key", e))?;
    Ok(Loaded { key: Arc::new(key), modified })
}

impl ResolvesClientCert for Reloading {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.modified != [self.identity.certificate.modified(), self.identity.key.modified()] {
            match load(&self.identity, &self.provider) {
                Ok(loaded) => *current = loaded,
                // Half-written files: the old pair is the best there is until the next connection.
                Err(error) => tracing::warn!(%error, "keep the client certificate already loaded"),
            }
        }
        Some(current.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts every server certificate, whoever it is for: for kubeconfigs with `insecure-skip-tls-verify`, and for probes,
/// which ask whether a container answers, not who it is. The handshake's signatures are still checked.
#[derive(Debug)]
pub struct AcceptAny(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
