//! The DNS server at work: caches, the host's resolver file, and the sockets, until shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_client::{Cache, Client, ListParams};
use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::forward::{Forwarder, Stub};
use crate::kept;
use crate::objects::{BY_ADDRESS, BY_POD_IP, BY_SECOND_ADDRESS, BY_SERVICE, NAMED};
use crate::resolv_conf::ResolvConf;
use crate::resolve::Sources;
use crate::server::Listener;

/// How often the host's resolver file is looked at: DHCP clients rewrite it when the host moves.
const HOST_FILE_PERIOD: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster domain {0:?} is not a DNS name")]
    Domain(String),
    #[error("stub domain {0:?} is not a DNS name")]
    StubDomain(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// Such as `cluster.local`.
    pub domain: String,
    /// Names the servers for everything outside; read again when it changes.
    pub resolv_conf: PathBuf,
    /// Asked instead of those of `resolv_conf`, where there are any.
    pub servers: Vec<SocketAddr>,
    /// Domains with servers of their own.
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
    /// Keeps the last state for a start without a server.
    pub state_file: Option<PathBuf>,
}

/// The identities answers are read with: nodes may read their own pods alone, and proxies all Services.
pub struct Clients {
    pub node: Client,
    pub proxy: Client,
}

/// Answers on `listener` until `shutdown`.
pub async fn run(
    clients: Clients,
    listener: Listener,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let domain = absolute(&options.domain).ok_or_else(|| Error::Domain(options.domain.clone()))?;
    let stubs = options.stub_domains.iter().map(|(domain, servers)| {
        let parsed = absolute(domain).ok_or_else(|| Error::StubDomain(domain.clone()))?;
        Ok(Stub { domain: parsed, servers: servers.clone() })
    });
    let stubs = stubs.collect::<Result<_, Error>>()?;
    let tasks = TaskTracker::new();
    let caches = shutdown.child_token();
    let _end_caches = caches.clone().drop_guard();
    let own_pods = ListParams::default().fields(format!("spec.nodeName={}", options.node_name));
    let all = ListParams::default();
    let addresses = [BY_ADDRESS, BY_SECOND_ADDRESS];
    let kept = options.state_file.as_deref().and_then(kept::load);
    let (services, slices, pods) = match kept {
        Some(kept) => (Some(kept.services), Some(kept.slices), Some(kept.pods)),
        None => (None, None, None),
    };
    let (node, proxy) = (&clients.node, &clients.proxy);
    let sources = Arc::new(Sources {
        domain,
        services: Cache::start_kept(proxy.api(), all.clone(), &addresses, services, &tasks, caches.clone()),
        slices: Cache::start_kept(proxy.api(), all, &[BY_SERVICE, NAMED], slices, &tasks, caches.clone()),
        pods: Cache::start_kept(node.api(), own_pods, &[BY_POD_IP], pods, &tasks, caches),
        host: ArcSwap::default(),
        servers: options.servers,
        forwarder: Forwarder::new(stubs),
    });
    let own = listener.ip();
    info!(address = %listener.address(), domain = options.domain, "cluster DNS is served");
    let follow = follow_host(&options.resolv_conf, own, &sources.host);
    let keep = async {
        match options.state_file.clone() {
            Some(path) => kept::keep(path, sources.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = listener.serve(sources.clone(), &tasks, shutdown) => {}
        () = async { tokio::join!(follow, keep); } => {}
    }
    if let Some(path) = &options.state_file {
        kept::store(path, &sources);
    }
    tasks.close();
    Ok(())
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

/// Keeps `host` at what the resolver file says. Never ends.
async fn follow_host(path: &std::path::Path, own: std::net::IpAddr, host: &ArcSwap<ResolvConf>) {
    let mut seen: Option<SystemTime> = None;
    loop {
        let changed = tokio::fs::metadata(path).await.and_then(|m| m.modified()).ok();
        if changed.is_none() || changed != seen {
            match tokio::fs::read_to_string(path).await {
                Ok(text) => host.store(Arc::new(ResolvConf::parse(&text, own))),
                // What was read last goes on to be used.
                Err(error) => warn!(path = %path.display(), %error, "reading the host's name servers failed"),
            }
            seen = changed;
        }
        tokio::time::sleep(HOST_FILE_PERIOD).await;
    }
}
