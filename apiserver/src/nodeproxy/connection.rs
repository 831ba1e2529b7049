//! One connection per proxied request: to a node over TLS with our client certificate, to a pod in the clear or over
//! unverified TLS (a pod's certificate is its owner's affair, as upstream has it).

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tls::AcceptAny;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::Body;
use crate::pki;
use crate::server::Server;

/// A node or pod that cannot be reached answers the caller after this long.
const CONNECT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dial tcp {host}:{port}: no connection within {} s", CONNECT_MAX.as_secs())]
    Timeout { host: String, port: u16 },
    #[error("dial tcp {host}:{port}: {source}")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: std::io::Error,
    },
    #[error("{0:?} is no name or address to connect to")]
    Name(String),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("set up TLS towards nodes: {0}")]
    Tls(#[from] tls::Error),
}

/// How to protect a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Our certificate, and theirs from our authority.
    Node,
    /// TLS with whatever certificate they show.
    Unverified,
    None,
}

pub struct NodeClient {
    node: TlsConnector,
    unverified: TlsConnector,
}

impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClient").finish_non_exhaustive()
    }
}

impl NodeClient {
    pub fn new(identity: &pki::Cluster) -> Result<Self, Error> {
        let servers = tls::server_verifier(tls::root(identity.authority.certificate().clone())?)?;
        let own = Arc::clone(identity.kubelet_client.shown());
        let node = tls::client_config(servers, Some(own))?;
        let unverified = tls::client_config(Arc::new(AcceptAny(tls::provider())), None)?;
        Ok(Self { node: Arc::new(node).into(), unverified: Arc::new(unverified).into() })
    }

    /// Sends one HTTP/1.1 request and returns the answer's head; body and upgrade follow it. The connection is driven
    /// by a task of the server and ends with the body or the upgraded stream.
    pub async fn send(
        &self,
        server: &Server,
        (host, port): (&str, u16),
        protection: Protection,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let connect = async {
            let source = |source| Error::Connect { host: host.to_owned(), port, source };
            let stream = TcpStream::connect((host, port)).await.map_err(source)?;
            stream.set_nodelay(true).map_err(source)?;
            let connector = match protection {
                Protection::Node => &self.node,
                Protection::Unverified => &self.unverified,
                Protection::None => return Ok::<_, Error>(Box::new(stream) as Box<dyn Stream>),
            };
            let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Name(host.to_owned()))?;
            let stream = connector.connect(name, stream).await.map_err(source)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        let timeout = |_| Error::Timeout { host: host.to_owned(), port };
        let stream = tokio::time::timeout(CONNECT_MAX, connect).await.map_err(timeout)??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let shutdown = server.shutdown.clone();
        server.tasks.spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => if let Err(error) = ended {
                    tracing::debug!(%error, "a proxied connection ended");
                },
                () = shutdown.cancelled() => {}
            }
        });
        Ok(sender.send_request(request).await?)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
