//! Client certificates: the common name is the user, the organizations are its groups. Trust and validity are judged
//! here, per request, so that a certificate expiring on an open connection stops working; the outcome is remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::pki;
use crate::user::User;

/// Verified leaves that are remembered; beyond it all are forgotten. About 300 bytes each.
const REMEMBERED_MAX: usize = 8 * 1024;
/// Upstream's audit-relevant extra: which certificate it was.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("authority certificate: {0}")]
    Authority(String),
    #[error("client certificate: {0}")]
    Refused(String),
}

/// A verified leaf: whose it is and between which seconds it is good.
struct Verified {
    user: User,
    not_before: i64,
    not_after: i64,
}

pub struct Verifier {
    verifier: Arc<dyn ClientCertVerifier>,
    remembered: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    pub fn new(authority: &CertificateDer<'static>) -> Result<Self, Error> {
        Ok(Self { verifier: webpki(authority)?, remembered: Mutex::default() })
    }

    /// The user of a chain (leaf first), at `now` in seconds since the epoch.
    pub fn user(&self, chain: &[CertificateDer<'static>], now: i64) -> Result<User, Error> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Error::Refused("the chain is empty".to_owned()));
        };
        let fingerprint: [u8; 32] = Sha256::digest(leaf).into();
        let known = self.remembered().get(&fingerprint).cloned();
        if let Some(known) = known {
            return within(&known, now).map(|()| known.user.clone());
        }
        let verified = Arc::new(self.verify(leaf, intermediates, now, &fingerprint)?);
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(fingerprint, Arc::clone(&verified));
        Ok(verified.user.clone())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Verified>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'static>,
        intermediates: &[CertificateDer<'static>],
        now: i64,
        fingerprint: &[u8; 32],
    ) -> Result<Verified, Error> {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
        self.verifier
            .verify_client_cert(leaf, intermediates, time)
            .map_err(|error| Error::Refused(error.to_string()))?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| Error::Refused(e.to_string()))?;
        let (name, organizations) = pki::names_of(&certificate);
        if name.is_empty() {
            return Err(Error::Refused("it has no common name".to_owned()));
        }
        let groups: Vec<&str> = organizations.iter().map(String::as_str).collect();
        let mut user = User::new(name, &groups);
        let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")]);
        let validity = certificate.validity();
        Ok(Verified { user, not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
    }
}

fn within(verified: &Verified, now: i64) -> Result<(), Error> {
    if now < verified.not_before {
        return Err(Error::Refused("it is not valid yet".to_owned()));
    }
    if now > verified.not_after {
        return Err(Error::Refused("it has expired".to_owned()));
    }
    Ok(())
}

/// Verifies client chains against one authority; also says which names the handshake hints at.
pub(crate) fn webpki(authority: &CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let verifier = tls::root(authority.clone()).and_then(tls::client_verifier);
    verifier.map_err(|error| Error::Authority(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Subject, Validity};
    use jiff::Timestamp;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Validity {
        let now = Timestamp::from_second(NOW + seconds).unwrap();
        Validity { now, lifetime: Duration::from_secs(3600) }
    }

    fn chain(authority: &Authority, name: &str, group: &str) -> Vec<CertificateDer<'static>> {
        authority.issue_client(&Subject::new(name, group), at(0)).unwrap().chain().unwrap()
    }

    #[test]
    fn a_good_certificate_names_its_user_until_it_expires() {
        let authority = Authority::ephemeral("kubernetes", at(0).now).unwrap();
        let verifier = Verifier::new(authority.certificate()).unwrap();
        let chain = chain(&authority, "jane", "dev");
        let user = verifier.user(&chain, NOW).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("jane", &["dev".into(), "system:authenticated".into()][..])
        );
        assert_eq!(verifier.user(&chain, NOW + 1800).unwrap(), user, "remembered");
        assert!(matches!(verifier.user(&chain, NOW + 3601), Err(Error::Refused(_))), "remembered, but expired");
        let fresh = Verifier::new(authority.certificate()).unwrap();
        assert!(matches!(fresh.user(&chain, NOW + 3601), Err(Error::Refused(_))), "expired at first sight");
        assert!(matches!(fresh.user(&chain, NOW - 86_400), Err(Error::Refused(_))), "not valid yet");
    }

    #[test]
    fn foreign_self_signed_and_server_certificates_are_refused() {
        let ours = Authority::ephemeral("kubernetes", at(0).now).unwrap();
        let theirs = Authority::ephemeral("kubernetes", at(0).now).unwrap();
        let verifier = Verifier::new(ours.certificate()).unwrap();
        assert!(verifier.user(&chain(&theirs, "kubernetes-admin", "system:masters"), NOW).is_err());
        assert!(verifier.user(std::slice::from_ref(theirs.certificate()), NOW).is_err());
        assert!(verifier.user(&[], NOW).is_err());
        assert!(verifier.user(&[CertificateDer::from(b"garbage".to_vec())], NOW).is_err());
        let nameless = ours.issue_client(&Subject::new("", "system:masters"), at(0)).unwrap().chain().unwrap();
        assert!(verifier.user(&nameless, NOW).is_err());
    }

    #[test]
    fn what_is_remembered_stays_bounded() {
        let authority = Authority::ephemeral("kubernetes", at(0).now).unwrap();
        let verifier = Verifier::new(authority.certificate()).unwrap();
        let verified = Arc::new(Verified { user: User::default(), not_before: 0, not_after: 0 });
        for index in 0..REMEMBERED_MAX as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&index.to_be_bytes());
            verifier.remembered().insert(key, Arc::clone(&verified));
        }
        verifier.user(&chain(&authority, "jane", "dev"), NOW).unwrap();
        assert_eq!(verifier.remembered().len(), 1);
    }
}
