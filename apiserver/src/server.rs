//! The running API server: the state every request shares, and the handle that owns its tasks.

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::body::Body;
use crate::options::Options;
use crate::pipeline;
use crate::user::Peer;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("store: {0}")]
    Store(String),
}

/// What a request needs at hand. Shared, immutable but for what its parts guard themselves.
pub struct Server {
    pub options: Options,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub admission: Chain,
    /// Ends every task and every open watch.
    pub shutdown: CancellationToken,
    /// Owns every task of this server.
    pub tasks: TaskTracker,
}

/// A running API server; cheap to clone. [`ApiServer::stop`] ends its tasks.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
}

impl ApiServer {
    /// Loads the cache from the store and starts the server's tasks. Returns when requests can be answered.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let server = Server {
            options,
            authenticator: Authenticator::default(),
            authorizer: Authorizer::default(),
            admission: Chain::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok(Self { server: Arc::new(server) })
    }

    /// Answers one request; never fails: every error is a `Status` in the response.
    pub async fn call(&self, request: Request<Body>, peer: Peer) -> Response<Body> {
        pipeline::serve(Arc::clone(&self.server), request, peer).await
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
