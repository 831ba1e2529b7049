//! The key directory of one cluster: which files there are and who they are for.
//!
//! ```text
//! ca.{crt,key}                        issues everything below and verifies client and node certificates
//! apiserver.{crt,key}                 what the API server shows on its port
//! apiserver-kubelet-client.{crt,key}  the API server towards the nodes
//! admin.{crt,key}                     the operator: group system:masters
//! sa.{key,pub}                        signs service account tokens (ES256)
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rcgen::KeyPair;

use super::Error;
use super::authority::Authority;
use super::certificate::{Credential, Subject, Validity, new_key};
use super::files::{self, Durable};

/// One year, renewed within the last fifth: at a start, or while running.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The names and addresses a server certificate is good for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub cluster_domain: String,
    /// First address of the service range: `kubernetes.default`.
    pub service_address: Option<IpAddr>,
    /// Addresses and names of this machine, and what the operator adds.
    pub extra: Vec<String>,
    /// How long what is issued lasts; a year when unset.
    pub lifetime: Option<Duration>,
}

impl Names {
    fn list(&self) -> Vec<String> {
        let mut names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec();
        if !self.cluster_domain.is_empty() {
            names.push(format!("kubernetes.default.svc.{}", self.cluster_domain));
        }
        names.extend(self.service_address.map(|a| a.to_string()));
        names.extend(self.extra.iter().filter(|n| !n.is_empty()).cloned());
        names.sort();
        names.dedup();
        names
    }
}

/// A certificate in use: renewed without a restart, shown by the next handshake.
#[derive(Debug)]
pub struct Kept {
    file: String,
    subject: Subject,
    /// Makes it a server's.
    names: Vec<String>,
    credential: ArcSwap<Credential>,
    shown: Arc<tls::Current>,
}

impl Kept {
    pub fn get(&self) -> Arc<Credential> {
        self.credential.load_full()
    }

    /// What ports and clients show.
    pub fn shown(&self) -> &Arc<tls::Current> {
        &self.shown
    }
}

/// Everything a server needs to identify itself and others.
#[derive(Debug)]
pub struct Cluster {
    pub authority: Authority,
    pub serving: Kept,
    pub kubelet_client: Kept,
    pub admin: Kept,
    /// PKCS#8 PEM of the P-256 key that signs service account tokens.
    pub token_key_pem: String,
    /// Serving certificates of nodes in this process.
    nodes: Mutex<Vec<Kept>>,
    issuing: Issuing,
}

/// How certificates are issued and kept.
#[derive(Debug)]
struct Issuing {
    /// None for a cluster that lives in memory only.
    directory: Option<PathBuf>,
    lifetime: Duration,
}

impl Cluster {
    /// Reads the directory, making what is missing and re-issuing what is about to expire or names other hosts.
    pub fn load_or_create(directory: &Path, names: &Names, now: Timestamp) -> Result<Self, Error> {
        let authority = Authority::load_or_create(directory, "ca", "kubernetes", now)?;
        let token_key_pem = token_key(directory)?;
        Self::assemble(authority, token_key_pem, Some(directory.to_owned()), names, now)
    }

    /// Keys that are gone with the process, for tests.
    pub fn ephemeral(names: &Names, now: Timestamp) -> Result<Self, Error> {
        let authority = Authority::ephemeral("kubernetes", now)?;
        Self::assemble(authority, new_key()?.serialize_pem(), None, names, now)
    }

    fn assemble(
        authority: Authority,
        token_key_pem: String,
        directory: Option<PathBuf>,
        names: &Names,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let issuing = Issuing { directory, lifetime: names.lifetime.unwrap_or(LIFETIME) };
        let keep = |file: &str, name: &str, group: &str, names: Vec<String>| {
            issuing.keep(&authority, file.to_owned(), Subject::new(name, group), names, now)
        };
        let masters = "system:masters";
        let serving = keep("apiserver", "kube-apiserver", "", names.list())?;
        let kubelet_client = keep("apiserver-kubelet-client", "kube-apiserver-kubelet-client", masters, Vec::new())?;
        let admin = keep("admin", "kubernetes-admin", masters, Vec::new())?;
        Ok(Self { serving, kubelet_client, admin, authority, token_key_pem, nodes: Mutex::default(), issuing })
    }

    /// A node's serving certificate, for the port the API server calls. Renewed with the others.
    pub fn node_serving(&self, node_name: &str, names: &[String], now: Timestamp) -> Result<Arc<Credential>, Error> {
        let subject = Subject::new(format!("system:node:{node_name}"), "system:nodes");
        let file = format!("node-{node_name}-serving");
        let mut names = names.to_vec();
        names.push(node_name.to_owned());
        names.sort();
        names.dedup();
        let kept = self.issuing.keep(&self.authority, file, subject, names, now)?;
        let credential = kept.get();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|other| other.file != kept.file);
        nodes.push(kept);
        Ok(credential)
    }

    /// The longest life of what is issued.
    pub fn lifetime(&self) -> Duration {
        self.issuing.lifetime
    }

    /// Re-issues what is in the last fifth of its life; whether there was anything. Ports and clients show the new
    /// certificates from their next handshake on; connections that are open go on.
    pub fn renew(&self, now: Timestamp) -> Result<bool, Error> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = false;
        for kept in [&self.serving, &self.kubelet_client, &self.admin].into_iter().chain(nodes.iter()) {
            if self.authority.still_good(&kept.get(), &kept.subject, &kept.names, now) {
                continue;
            }
            let credential = self.issuing.issue(&self.authority, &kept.file, &kept.subject, &kept.names, now)?;
            kept.shown.set(certified(&self.authority, &credential, &kept.names)?);
            kept.credential.store(Arc::new(credential));
            renewed = true;
        }
        Ok(renewed)
    }
}

impl Issuing {
    /// The pair on disk where that will do, a new one otherwise.
    fn keep(
        &self,
        authority: &Authority,
        file: String,
        subject: Subject,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Kept, Error> {
        let found = self.find(&file)?.filter(|found| authority.still_good(found, &subject, &names, now));
        let credential = match found {
            Some(found) => found,
            None => self.issue(authority, &file, &subject, &names, now)?,
        };
        let shown = tls::Current::holding(certified(authority, &credential, &names)?);
        Ok(Kept { file, subject, names, credential: ArcSwap::from_pointee(credential), shown })
    }

    fn find(&self, file: &str) -> Result<Option<Credential>, Error> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let certificate_pem = files::read(&directory.join(format!("{file}.crt")))?;
        let key_pem = files::read(&directory.join(format!("{file}.key")))?;
        Ok(certificate_pem.zip(key_pem).map(|(certificate_pem, key_pem)| Credential { certificate_pem, key_pem }))
    }

    fn issue(
        &self,
        authority: &Authority,
        file: &str,
        subject: &Subject,
        names: &[String],
        now: Timestamp,
    ) -> Result<Credential, Error> {
        let validity = Validity { now, lifetime: self.lifetime };
        let issued = match names {
            [] => authority.issue_client(subject, validity)?,
            names => authority.issue_server(subject, names, validity)?,
        };
        if let Some(directory) = &self.directory {
            files::write_key(&directory.join(format!("{file}.key")), &issued.key_pem, Durable::No)?;
            files::write_certificate(&directory.join(format!("{file}.crt")), &issued.certificate_pem, Durable::No)?;
        }
        Ok(issued)
    }
}

/// What a handshake shows. Servers add the authority, so that a client that pins it by its hash finds it there.
fn certified(
    authority: &Authority,
    credential: &Credential,
    names: &[String],
) -> Result<rustls::sign::CertifiedKey, Error> {
    let mut chain = credential.certificate_pem.clone();
    if !names.is_empty() {
        chain.push_str(authority.certificate_pem());
    }
    tls::Identity::inline(&chain, &credential.key_pem).load().map_err(|error| Error::Parse(error.to_string()))
}

fn token_key(directory: &Path) -> Result<String, Error> {
    let path = directory.join("sa.key");
    if let Some(pem) = files::read(&path)? {
        // Checked here so that a broken file is reported with its name, at start.
        KeyPair::from_pem(&pem).map_err(|e| Error::Unusable {
            path: path.clone(),
            what: "token signing key",
            detail: e.to_string(),
        })?;
        return Ok(pem);
    }
    let key = new_key()?;
    files::write_key(&path, &key.serialize_pem(), Durable::Yes)?;
    files::write_certificate(&directory.join("sa.pub"), &key.public_key_pem(), Durable::No)?;
    Ok(key.serialize_pem())
}
