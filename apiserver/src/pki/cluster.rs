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
use std::time::Duration;

use jiff::Timestamp;
use rcgen::KeyPair;

use super::Error;
use super::authority::Authority;
use super::certificate::{Credential, Subject, Validity, new_key};
use super::files::{self, Durable};

/// One year, renewed at a start within the last fifth.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The names and addresses a server certificate is good for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub cluster_domain: String,
    /// First address of the service range: `kubernetes.default`.
    pub service_address: Option<IpAddr>,
    /// Addresses and names of this machine, and what the operator adds.
    pub extra: Vec<String>,
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

/// Everything a server needs to identify itself and others.
#[derive(Debug)]
pub struct Cluster {
    pub authority: Authority,
    pub serving: Credential,
    pub kubelet_client: Credential,
    pub admin: Credential,
    /// PKCS#8 PEM of the P-256 key that signs service account tokens.
    pub token_key_pem: String,
    /// None for a cluster that lives in memory only.
    directory: Option<PathBuf>,
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
        let names = names.list();
        let serving = credential(
            &authority,
            directory.as_deref(),
            "apiserver",
            &Subject::new("kube-apiserver", ""),
            &names,
            now,
        )?;
        let client = Subject::new("kube-apiserver-kubelet-client", "system:masters");
        let kubelet_client =
            credential(&authority, directory.as_deref(), "apiserver-kubelet-client", &client, &[], now)?;
        let admin = Subject::new("kubernetes-admin", "system:masters");
        let admin = credential(&authority, directory.as_deref(), "admin", &admin, &[], now)?;
        Ok(Self { authority, serving, kubelet_client, admin, token_key_pem, directory })
    }

    /// The certificate of a component or a node, kept as `NAME.{crt,key}` in the key directory.
    pub fn client(&self, name: &str, subject: &Subject, now: Timestamp) -> Result<Credential, Error> {
        credential(&self.authority, self.directory.as_deref(), name, subject, &[], now)
    }

    /// A node's serving certificate, for the port the API server calls.
    pub fn node_serving(&self, node_name: &str, names: &[String], now: Timestamp) -> Result<Credential, Error> {
        let subject = Subject::new(format!("system:node:{node_name}"), "system:nodes");
        let file = format!("node-{node_name}-serving");
        let mut names = names.to_vec();
        names.push(node_name.to_owned());
        names.sort();
        names.dedup();
        credential(&self.authority, self.directory.as_deref(), &file, &subject, &names, now)
    }
}

/// An issued pair on disk; `names` makes it a server's.
fn credential(
    authority: &Authority,
    directory: Option<&Path>,
    file: &str,
    subject: &Subject,
    names: &[String],
    now: Timestamp,
) -> Result<Credential, Error> {
    let Some(directory) = directory else { return issue(authority, subject, names, now) };
    let certificate_path = directory.join(format!("{file}.crt"));
    let key_path = directory.join(format!("{file}.key"));
    if let (Some(certificate_pem), Some(key_pem)) = (files::read(&certificate_path)?, files::read(&key_path)?) {
        let found = Credential { certificate_pem, key_pem };
        if authority.still_good(&found, subject, names, now) {
            return Ok(found);
        }
    }
    let issued = issue(authority, subject, names, now)?;
    files::write_key(&key_path, &issued.key_pem, Durable::No)?;
    files::write_certificate(&certificate_path, &issued.certificate_pem, Durable::No)?;
    Ok(issued)
}

fn issue(authority: &Authority, subject: &Subject, names: &[String], now: Timestamp) -> Result<Credential, Error> {
    let validity = Validity { now, lifetime: LIFETIME };
    if names.is_empty() {
        authority.issue_client(subject, validity)
    } else {
        authority.issue_server(subject, names, validity)
    }
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
