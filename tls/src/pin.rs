//! Trust on a hash: the first contact of a machine that knows nothing of a cluster but the hash of its authority's
//! public key. The hash is kubeadm's `--discovery-token-ca-cert-hash`: SHA-256 of the DER SubjectPublicKeyInfo.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::FromDer;

use crate::{AcceptAny, Error, certificate, client_config, provider, root, server_verifier};

/// TCP and TLS handshake together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const PREFIX: &str = "sha256:";

/// The SHA-256 of a public key, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Of the key in a certificate.
    pub fn of(certificate: &[u8]) -> Result<Self, Error> {
        let parsed = x509_parser::certificate::X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|error| Error::Parse { what: "certificate", detail: error.to_string() })?;
        Ok(Self::of_key(parsed.public_key().raw))
    }

    /// Of a SubjectPublicKeyInfo.
    pub fn of_key(info: &[u8]) -> Self {
        Self(Sha256::digest(info).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written sha256: and 64 hexadecimal digits")]
pub struct BadPin;

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits = text.strip_prefix(PREFIX).ok_or(BadPin)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadPin);
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| BadPin)?;
        }
        Ok(Self(hash))
    }
}

/// Nothing in the server's chain has the pinned key.
#[derive(Debug, thiserror::Error)]
#[error("no certificate the server shows has the key {wanted}; its chain has {shown}")]
pub struct Mismatch {
    pub wanted: Pin,
    pub shown: String,
}

/// Accepts a server whose chain contains the authority with the pinned key and is good by that authority.
#[derive(Debug)]
pub struct Pinned {
    pin: Pin,
    any: AcceptAny,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl Pinned {
    pub fn new(pin: Pin) -> Self {
        Self { pin, any: AcceptAny(provider()), found: Mutex::default() }
    }

    /// The authority, once a server was accepted.
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pins: Vec<Option<Pin>> = intermediates.iter().map(|certificate| Pin::of(certificate).ok()).collect();
        let Some(index) = pins.iter().position(|pin| *pin == Some(self.pin)) else {
            let shown = pins.iter().flatten().map(Pin::to_string).collect::<Vec<_>>().join(", ");
            let shown = if shown.is_empty() { "no authority".to_owned() } else { shown };
            let other = OtherError(Arc::new(Mismatch { wanted: self.pin, shown }));
            return Err(CertificateError::Other(other).into());
        };
        let authority = intermediates[index].clone().into_owned();
        let unusable = |error: Error| rustls::Error::General(error.to_string());
        let verifier = server_verifier(root(authority.clone()).map_err(unusable)?).map_err(unusable)?;
        let verified = verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority);
        Ok(verified)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is no name or address to connect to")]
    Name(String),
    #[error("no connection within {} s", CONNECT_MAX.as_secs())]
    Timeout,
    /// No TCP connection.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The server was reached and its certificate is not good; [`crate::problem`] tells what is wrong with it.
    #[error("{0}")]
    Handshake(#[source] io::Error),
    #[error(transparent)]
    Setup(#[from] Error),
}

/// Connects to a server, checks it by the hash, and returns the PEM text of its authority.
pub async fn fetch_authority(host: &str, port: u16, pin: Pin) -> Result<String, FetchError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Name(host.to_owned()))?;
    let pinned = Arc::new(Pinned::new(pin));
    let config = client_config(pinned.clone(), None)?;
    let connect = async {
        let stream = TcpStream::connect((host, port)).await.map_err(FetchError::Connect)?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(FetchError::Handshake)
    };
    tokio::time::timeout(CONNECT_MAX, connect).await.map_err(|_| FetchError::Timeout)??;
    let authority = pinned.authority().ok_or_else(|| {
        FetchError::Setup(Error::Unusable { what: "the server's chain", detail: "it was not looked at".to_owned() })
    })?;
    Ok(certificate::pem(&authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_and_read() {
        let pin = Pin::of_key(b"key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for bad in ["", "sha256:", "sha256:12", &"0".repeat(64), &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(bad.parse::<Pin>(), Err(BadPin), "{bad}");
        }
    }
}
