//! The front port: TLS, HTTP/1.1 and HTTP/2 by ALPN, upgrades on HTTP/1.1. Requests go to [`ApiServer::call`].
//!
//! Invariants: a client certificate is asked for, never required, and only its possession is proven here (whether it is
//! good is the authenticator's question, so a bad one gets a 401 and not a torn connection); everything a peer can make
//! this module hold is bounded by the limits below.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tls::accept;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::certificate;
use crate::body::{Body, BoxError};
use crate::pki;
use crate::server::ApiServer;
use crate::user::Peer;

/// Open connections. At the limit new ones wait in the kernel's queue. 5,000 nodes with a few connections each fit.
const CONNECTIONS_MAX: usize = 20_000;
/// From the start of a request's head, or of waiting for one on an idle HTTP/1 connection, to its end.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(90);
/// Bytes of an HTTP/1 request head (request line included), the buffer hyper reads into.
const HEAD_BYTES_MAX: usize = 128 * 1024;
const HEADERS_MAX: usize = 128;
/// Decoded bytes of an HTTP/2 header list.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Requests under way on one HTTP/2 connection (upstream's `--http2-max-streams-per-connection`).
const STREAMS_MAX: u32 = 250;
/// Streams a peer may reset before we have answered them; a flood of resets ends the connection.
const RESET_STREAMS_MAX: usize = 50;
/// HTTP/2 connections without traffic are probed, and closed when the probe is not answered.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(15);
/// What requests under way get to finish when the server stops. Leaves room in the second a stop may take.
const DRAIN_MAX: Duration = Duration::from_millis(700);
/// How much of an unwanted request body is read for the sake of its connection, and for how long (Go's server: 256 KB).
const DRAIN_BODY_BYTES_MAX: usize = 256 * 1024;
const DRAIN_BODY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("set up TLS: {0}")]
    Tls(#[from] tls::Error),
    #[error("set up TLS: {0}")]
    Authority(#[from] certificate::Error),
}

/// A bound port that is not served yet. The port is ours from here on, so others may be told its address.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
}

impl Listener {
    pub async fn bind(address: SocketAddr, identity: &pki::Cluster) -> Result<Self, Error> {
        let clients = certificate::webpki(identity.authority.certificate())?;
        let config = tls::server_config(Arc::clone(identity.serving.shown()), Some(clients))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let bind = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        Ok(Self { socket, address, acceptor })
    }

    /// The address bound, with the port the kernel chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then takes no more connections, lets requests under way finish for [`DRAIN_MAX`], and
    /// closes what is left. Watches end by the server's own shutdown, which the caller starts first or together.
    pub async fn run(self, server: ApiServer, shutdown: CancellationToken) {
        let port = accept::Connections::new(self.acceptor, CONNECTIONS_MAX, shutdown.clone());
        let connections = Connections { server, port: port.clone() };
        let serve = move |accepted| {
            let connections = connections.clone();
            async move { connections.serve(accepted).await }
        };
        tokio::select! {
            () = port.accept(&self.socket, serve) => {}
            () = shutdown.cancelled() => {}
        }
        drop(self.socket);
        port.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, port.tasks.wait()).await.is_err() {
            port.close.cancel();
            port.tasks.wait().await;
        }
    }
}

#[derive(Clone)]
struct Connections {
    server: ApiServer,
    port: accept::Connections,
}

impl Connections {
    async fn serve(&self, accepted: accept::Accepted) {
        let accept::Accepted { stream, address, chain, http2 } = accepted;
        let peer = Peer::Remote { certificates: chain, address };
        let result = if http2 { self.http2(stream, peer).await } else { self.http1(stream, peer).await };
        if let Err(error) = result {
            tracing::debug!(%address, %error, "connection ended");
        }
    }

    async fn http1(&self, stream: TlsStream<TcpStream>, peer: Peer) -> hyper::Result<()> {
        let (server, tasks) = (self.server.clone(), self.port.tasks.clone());
        let service = service_fn(move |request| answer(server.clone(), request, peer.clone(), Some(tasks.clone())));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
        tokio::select! {
            result = connection.as_mut() => return result,
            () = self.port.drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    async fn http2(&self, stream: TlsStream<TcpStream>, peer: Peer) -> hyper::Result<()> {
        let server = self.server.clone();
        let service = service_fn(move |request| answer(server.clone(), request, peer.clone(), None));
        let mut builder = http2::Builder::new(self.port.executor());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_WAIT_MAX);
        builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADER_LIST_BYTES_MAX);
        builder.max_pending_accept_reset_streams(RESET_STREAMS_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            result = connection.as_mut() => return result,
            () = self.port.drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

async fn answer(
    server: ApiServer,
    request: Request<Incoming>,
    peer: Peer,
    tasks: Option<TaskTracker>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let request = request.map(|body| match tasks {
        Some(tasks) if !body.is_end_stream() => Drained { body: Some(body), tasks }.boxed_unsync(),
        _ => body.map_err(|error| Box::new(error) as BoxError).boxed_unsync(),
    });
    Ok(server.call(request, peer).await)
}

/// A request body on HTTP/1 that is read to its end even if the request is answered without it (a refusal, say):
/// otherwise the connection would have to be closed, and a client could not use it again.
struct Drained {
    body: Option<Incoming>,
    tasks: TaskTracker,
}

impl http_body::Body for Drained {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(context).map_err(|error| Box::new(error) as BoxError)
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        self.tasks.spawn(async move {
            // Too much or too slow: the connection closes, which is what happens without reading anyway.
            drop(tokio::time::timeout(DRAIN_BODY_MAX, Limited::new(body, DRAIN_BODY_BYTES_MAX).collect()).await);
        });
    }
}

#[cfg(test)]
pub(crate) mod tests;
