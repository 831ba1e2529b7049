//! The running API server: the state every request shares, and the handle that owns its tasks.

use std::sync::{Arc, Weak};

use api::catalogue::{Catalogue, Resource};
use arc_swap::ArcSwap;
use http::{Request, Response};
use jiff::Timestamp;
use store_client::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::authn::{self, Authenticator};
use crate::authz::Authorizer;
use crate::body::Body;
use crate::bootstrap;
use crate::cache::{Cache, ResourceCache};
use crate::definitions;
use crate::health::Readiness;
use crate::metrics::Requests;
use crate::nodeproxy::{self, NodeClient};
use crate::options::Options;
use crate::pipeline;
use crate::pki;
use crate::resource_metrics;
use crate::upkeep;
use crate::user::Peer;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the store at start: {0}")]
    Store(#[from] store_client::Error),
    #[error("make keys at start: {0}")]
    Keys(#[from] pki::Error),
    #[error("read keys at start: {0}")]
    Authenticator(#[from] authn::Error),
    #[error("prepare calls to nodes: {0}")]
    Nodes(#[from] nodeproxy::Error),
}

/// What a request needs at hand. Shared, immutable but for what its parts guard themselves.
pub struct Server {
    pub options: Options,
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    /// The served resources; swapped as a whole when custom resources change.
    pub catalogue: ArcSwap<Catalogue>,
    /// What requests on custom resources know of their definitions.
    pub definitions: ArcSwap<definitions::Known>,
    /// Keys and certificates.
    pub identity: Arc<pki::Cluster>,
    pub readiness: Readiness,
    pub requests: Requests,
    /// Reaches nodes and pods for those who ask through this server.
    pub nodes: NodeClient,
    /// What nodes and pods use, for those who ask.
    pub resource_metrics: resource_metrics::Collector,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub admission: Chain,
    /// This server, for parts that call it from within.
    pub itself: Weak<Server>,
    /// Ends every task and every open watch.
    pub shutdown: CancellationToken,
    /// Owns every task of this server.
    pub tasks: TaskTracker,
}

impl Server {
    /// The cache of a resource.
    pub fn cache_of(&self, resource: &Resource) -> Arc<ResourceCache> {
        self.cache.resource(resource.storage_prefix())
    }

    /// The row of a resource in its group's preferred version, and its cache; for readers inside the server.
    pub fn resource(&self, group: &str, plural: &str) -> Option<(Arc<Resource>, Arc<ResourceCache>)> {
        let row = Arc::clone(self.catalogue.load().preferred(group, plural)?);
        let cache = self.cache_of(&row);
        Some((row, cache))
    }
}

/// A running API server; cheap to clone. [`ApiServer::stop`] ends its tasks.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
}

impl ApiServer {
    /// Loads the cache from the store and starts the server's tasks. Returns when requests can be answered.
    pub async fn start(options: Options, store: Arc<dyn Store>) -> Result<Self, Error> {
        let catalogue = Catalogue::builtin();
        let cache = Arc::new(Cache::load(Arc::clone(&store), &catalogue).await?);
        let identity = match &options.identity {
            Some(identity) => Arc::clone(identity),
            None => Arc::new(pki::Cluster::ephemeral(&options.names(), Timestamp::now())?),
        };
        let nodes = NodeClient::new(&identity)?;
        let authenticator = Authenticator::new(&identity, &options.token_issuer())?;
        let server = Arc::new_cyclic(|itself| Server {
            itself: Weak::clone(itself),
            options,
            store,
            cache,
            catalogue: ArcSwap::new(catalogue),
            definitions: ArcSwap::default(),
            identity,
            readiness: Readiness::default(),
            requests: Requests::default(),
            nodes,
            resource_metrics: resource_metrics::Collector::default(),
            authenticator,
            authorizer: Authorizer::default(),
            admission: Chain::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        server.tasks.spawn(Arc::clone(&server.cache).run(server.shutdown.clone()));
        server.tasks.spawn(upkeep::run(Arc::clone(&server)));
        server.tasks.spawn(definitions::run(Arc::clone(&server)));
        if server.options.bootstrap {
            server.tasks.spawn(bootstrap::run(Arc::clone(&server)));
        }
        Ok(Self { server })
    }

    /// Answers one request; never fails: every error is a `Status` in the response.
    pub async fn call(&self, request: Request<Body>, peer: Peer) -> Response<Body> {
        pipeline::serve(Arc::clone(&self.server), request, peer).await
    }

    /// Returns when the objects that every cluster has are in place: from then on the parts of a control plane have
    /// their rights. Never returns if they are not to be created.
    pub async fn bootstrapped(&self) {
        self.server.readiness.all_done().await;
    }

    /// The state shared by all requests.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Ends watches and tasks, and returns when they have ended.
    pub async fn stop(&self) {
        self.server.shutdown.cancel();
        self.server.tasks.close();
        self.server.tasks.wait().await;
    }
}
