//! A certificate authority on disk: `NAME.crt` and `NAME.key`. It issues client and server certificates; its own key
//! never leaves this type.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::certificate::{Credential, Facts, Purpose, Subject, Validity, new_key};
use super::files::{self, Durable};
use super::{Error, certificate};

/// Ten years, kubeadm's choice: an authority is replaced by an operator, not by a restart.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    key_id: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads `directory/name.crt` and `.key`, or makes both when neither exists. One without the other is an error: a
    /// new authority beside old certificates would lock every node out, so only an operator may decide that.
    pub fn load_or_create(directory: &Path, name: &str, common_name: &str, now: Timestamp) -> Result<Self, Error> {
        files::create_directory(directory)?;
        let certificate_path = directory.join(format!("{name}.crt"));
        let key_path = directory.join(format!("{name}.key"));
        let unusable = |path: &Path, what, detail: String| Error::Unusable { path: path.to_owned(), what, detail };
        match (files::read(&certificate_path)?, files::read(&key_path)?) {
            (Some(certificate_pem), Some(key_pem)) => {
                let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(&key_path, "private key", e.to_string()))?;
                Self::assemble(certificate_pem, key)
                    .map_err(|e| unusable(&certificate_path, "authority certificate", e.to_string()))
            }
            (None, None) => {
                let (authority, key_pem) = Self::create(common_name, now)?;
                // Key first: a certificate on disk implies its key is there.
                files::write_key(&key_path, &key_pem, Durable::Yes)?;
                files::write_certificate(&certificate_path, &authority.certificate_pem, Durable::Yes)?;
                Ok(authority)
            }
            // The leftover of a first start cut off between the two writes: nothing was issued from it yet.
            (None, Some(key_pem)) => {
                let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(&key_path, "private key", e.to_string()))?;
                let certificate_pem = self_signed(common_name, &key, now)?;
                files::write_certificate(&certificate_path, &certificate_pem, Durable::Yes)?;
                Self::assemble(certificate_pem, key)
            }
            (Some(_), None) => {
                Err(unusable(&key_path, "private key", "the certificate is there and its key is not".to_owned()))
            }
        }
    }

    /// An authority that lives in memory only, for tests and for issuing once.
    pub fn ephemeral(common_name: &str, now: Timestamp) -> Result<Self, Error> {
        Self::create(common_name, now).map(|(authority, _)| authority)
    }

    fn create(common_name: &str, now: Timestamp) -> Result<(Self, String), Error> {
        let key = new_key()?;
        let key_pem = key.serialize_pem();
        let certificate_pem = self_signed(common_name, &key, now)?;
        Ok((Self::assemble(certificate_pem, key)?, key_pem))
    }

    fn assemble(certificate_pem: String, key: KeyPair) -> Result<Self, Error> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| Error::Parse(e.to_string()))?;
        let facts = Facts::of_der(&certificate)?;
        if !facts.is_ca {
            return Err(Error::Parse("not an authority's certificate".to_owned()));
        }
        if facts.public_key != key.subject_public_key_info() {
            return Err(Error::Parse("certificate and key do not belong together".to_owned()));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|source| Error::Make { what: "issuer", source })?;
        Ok(Self { certificate_pem, certificate, key_id: facts.subject_key_id, issuer })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }
    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// The hash of the public key, which join tokens carry.
    pub fn pin(&self) -> Result<tls::Pin, Error> {
        tls::Pin::of(&self.certificate).map_err(|e| Error::Parse(e.to_string()))
    }

    pub fn issue_client(&self, subject: &Subject, validity: Validity) -> Result<Credential, Error> {
        self.issue(Purpose::Client, subject, &[], validity)
    }

    /// `names` are DNS names and IP addresses.
    pub fn issue_server(&self, subject: &Subject, names: &[String], validity: Validity) -> Result<Credential, Error> {
        self.issue(Purpose::Server, subject, names, validity)
    }

    fn issue(
        &self,
        purpose: Purpose,
        subject: &Subject,
        names: &[String],
        validity: Validity,
    ) -> Result<Credential, Error> {
        let key = new_key()?;
        let certificate = certificate::params(purpose, subject, names, validity)?
            .signed_by(&key, &self.issuer)
            .map_err(|source| Error::Make { what: "certificate", source })?;
        Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Whether a certificate on disk can go on being used: ours, fresh, for this subject and these names.
    pub(super) fn still_good(
        &self,
        credential: &Credential,
        subject: &Subject,
        names: &[String],
        now: Timestamp,
    ) -> bool {
        let Ok(facts) = Facts::of_pem(&credential.certificate_pem) else { return false };
        let Ok(key) = KeyPair::from_pem(&credential.key_pem) else { return false };
        let mut wanted = names.to_vec();
        wanted.sort();
        wanted.dedup();
        facts.fresh(now)
            && facts.authority_key_id == self.key_id
            && facts.subject == *subject
            && facts.names == wanted
            && facts.public_key == key.subject_public_key_info()
    }
}

fn self_signed(common_name: &str, key: &KeyPair, now: Timestamp) -> Result<String, Error> {
    let validity = Validity { now, lifetime: LIFETIME };
    let subject = Subject::new(common_name, "");
    let certificate = certificate::params(Purpose::Authority, &subject, &[], validity)?
        .self_signed(key)
        .map_err(|source| Error::Make { what: "authority", source })?;
    Ok(certificate.pem())
}
