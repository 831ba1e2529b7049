//! The certificate shown in the next handshake, of a server or of a client. It is replaced by whoever renews it, or
//! follows its files; connections that are open go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{Error, Identity};

#[derive(Debug)]
pub struct Current {
    /// Empty until there is a certificate: handshakes fail until then.
    key: ArcSwapOption<CertifiedKey>,
    followed: Option<Followed>,
}

#[derive(Debug)]
struct Followed {
    identity: Identity,
    /// When the files were last written, as of what is loaded.
    seen: Mutex<[Option<SystemTime>; 2]>,
}

impl Current {
    /// Shows `key` until another is set.
    pub fn holding(key: CertifiedKey) -> Arc<Self> {
        Arc::new(Self { key: ArcSwapOption::from_pointee(key), followed: None })
    }

    /// Shows what the files hold. They must be good now; later a bad pair leaves the one already loaded.
    pub fn following(identity: Identity) -> Result<Arc<Self>, Error> {
        let seen = written(&identity);
        let key = identity.load()?;
        let followed = Followed { identity, seen: Mutex::new(seen) };
        Ok(Arc::new(Self { key: ArcSwapOption::from_pointee(key), followed: Some(followed) }))
    }

    /// Like [`Current::following`], for files that may not be there yet.
    pub fn awaiting(identity: Identity) -> Arc<Self> {
        let followed = Followed { identity, seen: Mutex::new([None, None]) };
        Arc::new(Self { key: ArcSwapOption::empty(), followed: Some(followed) })
    }

    /// Shows `key` from the next handshake on.
    pub fn set(&self, key: CertifiedKey) {
        self.key.store(Some(Arc::new(key)));
    }

    /// What the next handshake shows.
    pub fn get(&self) -> Option<Arc<CertifiedKey>> {
        if let Some(followed) = &self.followed {
            let mut seen = followed.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = written(&followed.identity);
            if *seen != now && now.iter().all(Option::is_some) {
                match followed.identity.load() {
                    Ok(key) => {
                        self.key.store(Some(Arc::new(key)));
                        *seen = now;
                    }
                    // Half-written files: the old pair is the best there is until the next connection.
                    Err(error) => tracing::warn!(%error, "keep the certificate already loaded"),
                }
            }
        }
        self.key.load_full()
    }
}

fn written(identity: &Identity) -> [Option<SystemTime>; 2] {
    [identity.certificate.modified(), identity.key.modified()]
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn write(directory: &Path, name: &str, seconds: u64) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        for (file, text) in [("c.crt", certificate.pem()), ("c.key", key.serialize_pem())] {
            let path = directory.join(file);
            std::fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        }
        certificate.der().to_vec()
    }

    fn shown(current: &Current) -> Option<Vec<u8>> {
        current.get().map(|key| key.cert[0].to_vec())
    }

    #[test]
    fn files_are_followed_and_a_bad_pair_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::files(directory.path().join("c.crt"), directory.path().join("c.key"));
        assert!(Current::following(identity.clone()).is_err());
        let current = Current::awaiting(identity.clone());
        assert_eq!(shown(&current), None);
        let first = write(directory.path(), "a", 1000);
        assert_eq!(shown(&current).as_ref(), Some(&first));
        assert_eq!(shown(&Current::following(identity).unwrap()).as_ref(), Some(&first));
        std::fs::write(directory.path().join("c.crt"), "half a certif").unwrap();
        assert_eq!(shown(&current).as_ref(), Some(&first));
        let second = write(directory.path(), "b", 3000);
        assert_eq!(shown(&current), Some(second));
    }
}
