//! A certificate with its key, as PEM in memory or in files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, provider};

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
            Self::File(path) => {
                std::fs::read(path).map_err(|source| Error::File { path: path.display().to_string(), source })
            }
        }
    }

    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => modified(path),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Pem,
}

impl Identity {
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: Pem::File(certificate.into()), key: Pem::File(key.into()) }
    }

    pub fn inline(certificate: &str, key: &str) -> Self {
        Self { certificate: Pem::Inline(certificate.into()), key: Pem::Inline(key.into()) }
    }

    pub fn load(&self) -> Result<CertifiedKey, Error> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate.read()?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Parse { what: "certificate", detail: error.to_string() })?;
        let key = PrivateKeyDer::from_pem_slice(&self.key.read()?)
            .map_err(|error| Error::Parse { what: "certificate key", detail: error.to_string() })?;
        CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| Error::Unusable { what: "certificate with its key", detail: error.to_string() })
    }
}
