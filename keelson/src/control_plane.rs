//! The API server of this process: store, keys, port, and the transport that other parts of the process use.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api_client::Transport;
use api_client::transport::InProcess;
use apiserver::metrics::Sources;
use apiserver::serve::Listener;
use apiserver::user::Peer;
use apiserver::{ApiServer, User, pki};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use reconciler::controllers::certificates::Signer;
use store_client::Store;
use store_client::embedded::{self, Embedded};
use store_client::etcd::{self, Etcd};
use store_client::memory::Memory;
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::config::{self, Settings};
use crate::server::Parts;
use crate::state;

/// How often the age of certificates is looked at.
const CERTIFICATES_LOOKED_AT: Duration = Duration::from_secs(60);
/// Longest wait for the objects of a new cluster; they take some tens of milliseconds.
const BOOTSTRAP_WAIT_MAX: Duration = Duration::from_secs(5);

/// A started API server with its port bound but not yet served.
pub struct ControlPlane {
    pub api: ApiServer,
    pub identity: Arc<pki::Cluster>,
    /// PEM.
    pub root_ca: String,
    pub address: SocketAddr,
    /// Where parts of this process add theirs.
    pub metrics: Sources,
    listener: Listener,
}

pub async fn start(settings: &Settings) -> Result<ControlPlane> {
    let mut options = apiserver::Options {
        bind: settings.bind,
        data_dir: settings.data_dir.clone(),
        service_cidr: settings.service_cidr.clone(),
        advertise_address: settings.node_ip,
        serving_names: settings.tls_san.clone(),
        certificate_lifetime: Some(settings.certificate_lifetime),
        cluster_domain: settings.cluster_domain.clone(),
        told_to_nodes: cluster::told(settings),
        ..apiserver::Options::default()
    };
    let identity =
        options.load_identity().with_context(|| format!("keys in {}", settings.data_dir.join("pki").display()))?;
    // The port first: when it is taken, nothing else has happened yet.
    let listener = Listener::bind(settings.bind, &identity).await.context("API server")?;
    let address = listener.address();
    options.bind = address;
    let metrics = options.metrics.clone();
    let store = open_store(settings).await?;
    let api = ApiServer::start(options, store).await.with_context(|| match &settings.store {
        config::Store::Etcd(etcd) => format!("API server on etcd at {}", etcd.endpoints.join(", ")),
        config::Store::Embedded | config::Store::Memory => "API server".to_owned(),
    })?;
    write_kubeconfigs(settings, address, &identity)?;
    let root_ca = identity.authority.certificate_pem().to_owned();
    Ok(ControlPlane { api, identity, root_ca, address, metrics, listener })
}

impl ControlPlane {
    /// Waits for the default roles, without which every part would be refused and come back only after a pause. A
    /// store that fails just now must not keep the port closed: parts retry, so waiting has an end.
    pub async fn bootstrapped(&self, asked_to_stop: &CancellationToken) {
        let done = asked_to_stop.run_until_cancelled(self.api.bootstrapped());
        if tokio::time::timeout(BOOTSTRAP_WAIT_MAX, done).await.is_err() {
            tracing::warn!("the default objects of the cluster are not in place yet; starting the parts anyway");
        }
    }

    /// Signs certificate requests with the cluster's authority.
    pub fn signer(&self) -> Arc<dyn Signer> {
        Arc::new(ClusterSigner(Arc::clone(&self.identity)))
    }

    pub fn serve(self, settings: &Settings, parts: &mut Parts) {
        let (identity, settings, address) = (Arc::clone(&self.identity), settings.clone(), self.address);
        let stop = parts.stop.clone();
        parts.spawn("certificates", async move {
            keep_certificates(&settings, address, &identity, &stop).await;
            Ok(())
        });
        let stop = parts.stop.clone();
        parts.spawn("API server", async move {
            let watches = {
                let (api, stop) = (self.api.clone(), stop.clone());
                async move {
                    stop.cancelled().await;
                    api.stop().await;
                }
            };
            tokio::join!(self.listener.run(self.api, stop), watches);
            Ok(())
        });
    }
}

/// Renews this server's certificates when they near their end. Looked at often, as a clock may jump: it costs nothing.
async fn keep_certificates(
    settings: &Settings,
    address: SocketAddr,
    identity: &pki::Cluster,
    stop: &CancellationToken,
) {
    let pause = CERTIFICATES_LOOKED_AT.min(settings.certificate_lifetime / 20);
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let renewed = identity.renew(Timestamp::now()).context("renew the server's certificates");
        let written = renewed.and_then(|renewed| match renewed {
            true => write_kubeconfigs(settings, address, identity).map(|()| true),
            false => Ok(false),
        });
        match written {
            Ok(true) => tracing::info!("the server's certificates were renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!("trying again: {error:#}"),
        }
    }
}

struct ClusterSigner(Arc<pki::Cluster>);

impl Signer for ClusterSigner {
    fn sign(&self, request: &[u8], usages: &[&str], lifetime: Option<Duration>) -> Result<String, String> {
        // Upstream's `--cluster-signing-duration`: what is asked for is granted up to it.
        let longest = self.0.lifetime();
        let lifetime = lifetime.unwrap_or(longest).min(longest);
        let validity = pki::Validity { now: Timestamp::now(), lifetime };
        let signed = self.0.authority.sign_request(request, usages.iter().copied(), validity);
        signed.map_err(|error| error.to_string())
    }
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>> {
    match &settings.store {
        config::Store::Memory => Ok(Arc::new(Memory::new())),
        config::Store::Embedded => {
            let directory = settings.data_dir.join("store");
            // Replaying a large store is file work; nothing else runs yet, so it may block this thread.
            let store = Embedded::open(&directory, embedded::Options::default())
                .with_context(|| format!("open the store in {}", directory.display()))?;
            Ok(Arc::new(store))
        }
        config::Store::Etcd(etcd) => Ok(Arc::new(connect_etcd(etcd).await?)),
    }
}

pub async fn connect_etcd(settings: &config::Etcd) -> Result<Etcd> {
    let config::Etcd { endpoints, ca, certificate, key } = settings;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let tls = match ca {
        None => None,
        Some(ca) => {
            let identity = match (certificate, key) {
                (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
                _ => None,
            };
            Some(etcd::Tls { ca: read(ca)?, identity })
        }
    };
    let options = etcd::Options { tls, ..etcd::Options::new(endpoints.clone()) };
    Etcd::connect(options).await.with_context(|| format!("connect to etcd at {}", endpoints.join(", ")))
}

fn write_kubeconfigs(settings: &Settings, address: SocketAddr, identity: &pki::Cluster) -> Result<()> {
    let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("https://{host}:{}", address.port());
    let own = state::kubeconfig(&settings.data_dir);
    for path in [&own, &settings.write_kubeconfig] {
        apiserver::kubeconfig::admin(path, &url, identity)
            .with_context(|| format!("write kubeconfig {}", path.display()))?;
        if own == settings.write_kubeconfig {
            break;
        }
    }
    Ok(())
}

/// Requests of a part of this process, as `user`.
pub fn transport(api: ApiServer, user: User) -> Arc<dyn Transport> {
    let call = move |request: http::Request<Bytes>| -> futures_util::future::BoxFuture<'static, _> {
        let (api, peer) = (api.clone(), Peer::Component(user.clone()));
        let request = request.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
        Box::pin(async move { api.call(request, peer).await })
    };
    Arc::new(InProcess::new(Arc::new(call)))
}
