//! The directory of a node's keys and certificates.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use tls::Pin;
use tls::certificate::Facts;

use super::Error;

const DIRECTORY_MODE: u32 = 0o700;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }
    pub fn client(&self) -> Pair {
        self.pair("node-client")
    }
    pub fn serving(&self) -> Pair {
        self.pair("node-serving")
    }

    fn pair(&self, name: &str) -> Pair {
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        Pair { certificate: file("crt"), key: file("key") }
    }

    pub fn create_directory(&self) -> Result<(), Error> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.directory);
        made.map_err(|source| failed("create", &self.directory, source))
    }

    /// The hash of the authority's key; `None` when there is no authority yet.
    pub fn authority_pin(&self) -> Result<Option<Pin>, Error> {
        let path = self.authority();
        let Some(pem) = read(&path)? else { return Ok(None) };
        let facts = Facts::of_pem(&pem).map_err(|error| unusable(&path, "authority", error.to_string()))?;
        Ok(Some(facts.pin))
    }

    pub fn write_authority(&self, pem: &str) -> Result<(), Error> {
        write(&self.authority(), pem, CERTIFICATE_MODE)
    }
}

impl Pair {
    /// The key, made now if there is none.
    pub fn key(&self) -> Result<KeyPair, Error> {
        if let Some(pem) = read(&self.key)? {
            let pem = String::from_utf8_lossy(&pem);
            return KeyPair::from_pem(&pem).map_err(|error| unusable(&self.key, "private key", error.to_string()));
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        write(&self.key, &key.serialize_pem(), KEY_MODE)?;
        Ok(key)
    }

    /// The hash of the key's public half; `None` when there is no usable key.
    pub fn pin(&self) -> Option<Pin> {
        let pem = read(&self.key).ok().flatten()?;
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&pem)).ok()?;
        Some(Pin::of_key(&key.subject_public_key_info()))
    }

    /// What the certificate says; `None` when there is none, or none for the key.
    pub fn facts(&self) -> Result<Option<Facts>, Error> {
        let Some(pem) = read(&self.certificate)? else { return Ok(None) };
        let facts = Facts::of_pem(&pem);
        let facts = facts.map_err(|error| unusable(&self.certificate, "certificate", error.to_string()))?;
        Ok(Some(facts).filter(|facts| Some(facts.pin) == self.pin()))
    }

    pub fn write_certificate(&self, pem: &str) -> Result<(), Error> {
        write(&self.certificate, pem, CERTIFICATE_MODE)
    }

    pub fn identity(&self) -> tls::Identity {
        tls::Identity::files(&self.certificate, &self.key)
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.display().to_string(), source }
}

fn unusable(path: &Path, what: &'static str, detail: String) -> Error {
    Error::Unusable { path: path.display().to_string(), what, detail }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Whole or not there, also after a power cut: a half-written certificate would cost the node its identity.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|source| failed("write", path, source))
}
