//! One certificate request: made, sent, waited for.

use std::net::IpAddr;
use std::time::Duration;

use api_client::{Cache, Client, ListParams, Object, ObjectKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use serde_json::json;
use tls::certificate::Facts;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Error as FileError;

const NODES: &str = "system:nodes";
/// A request that nobody decides on is spoken of this often.
const PENDING_TOLD: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    Client,
    Serving,
}

impl Signer {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// No key encipherment: that is for RSA keys, and ours are of elliptic curves (upstream's `DefaultUsages`).
    fn usages(self) -> [&'static str; 2] {
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Serving => ["digital signature", "server auth"],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Api(#[from] api_client::Error),
    #[error("{0}")]
    Denied(String),
    #[error("certificate request {name} could not be signed: {message}")]
    Failed { name: String, message: String },
    #[error("certificate request {name} was answered with something else: {detail}")]
    Answer { name: String, detail: String },
    #[error("shutting down")]
    Stopped,
}

/// Names a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// As a certificate's [`Facts`] list them.
    pub fn sorted(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.dns.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Asks for a certificate and waits until there is one (PEM), it is denied, or shutdown.
pub async fn request(
    client: &Client,
    signer: Signer,
    node: &str,
    names: &Names,
    key: &KeyPair,
    shutdown: &CancellationToken,
) -> Result<String, Error> {
    let name = create(client, signer, node, names, key).await?;
    // The watch ends with this function, however it ends.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    let only = ListParams::default().fields(format!("metadata.name={name}"));
    let cache = Cache::<CertificateSigningRequest>::start(client, only, &tasks, stop);
    let request_key = ObjectKey::new("", name.as_str());
    let decided = async {
        cache.synced().await;
        cache.wait_until(|snapshot| snapshot.get(&request_key).is_none_or(|request| is_decided(request))).await;
        cache.get(&request_key)
    };
    let told = async {
        loop {
            tokio::time::sleep(PENDING_TOLD).await;
            tracing::warn!(
                request = name,
                "the certificate request waits for approval: kubectl certificate approve {name}"
            );
        }
    };
    let request = tokio::select! {
        request = decided => request,
        () = shutdown.cancelled() => return Err(Error::Stopped),
        () = told => return Err(Error::Stopped),
    };
    let answer = |detail: &str| Error::Answer { name: name.clone(), detail: detail.to_owned() };
    let request = request.ok_or_else(|| answer("it was removed before it was decided on"))?;
    if let Some(denied) = condition(&request, "Denied") {
        return Err(Error::Denied(
            denied.message.clone().unwrap_or_else(|| format!("certificate request {name} was denied")),
        ));
    }
    if let Some(failed) = condition(&request, "Failed") {
        return Err(Error::Failed { name, message: failed.message.clone().unwrap_or_default() });
    }
    let pem = certificate(&request).ok_or_else(|| answer("no certificate"))?;
    let facts = Facts::of_pem(pem.as_bytes()).map_err(|error| answer(&error.to_string()))?;
    if facts.pin != tls::Pin::of_key(&key.subject_public_key_info()) {
        return Err(answer("a certificate for another key"));
    }
    Ok(pem)
}

async fn create(client: &Client, signer: Signer, node: &str, names: &Names, key: &KeyPair) -> Result<String, Error> {
    let pem = encode(node, names, key).map_err(FileError::from)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-csr-"},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer.name(), "usages": signer.usages()},
    });
    let (created, _) = client.api::<CertificateSigningRequest>().create_value(&object).await?;
    Ok(created.key().name)
}

/// PEM of the request.
fn encode(node: &str, names: &Names, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(names.dns.clone())?;
    params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    params.serialize_request(key)?.pem()
}

fn condition<'r>(request: &'r CertificateSigningRequest, kind: &str) -> Option<&'r CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<String> {
    let bytes = &request.status.as_ref()?.certificate.as_ref()?.0;
    String::from_utf8(bytes.clone()).ok().filter(|pem| !pem.is_empty())
}

fn is_decided(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_some() || ["Denied", "Failed"].iter().any(|kind| condition(request, kind).is_some())
}
