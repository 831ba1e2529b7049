//! The port: TLS, HTTP/1.1 with upgrades and HTTP/2. Requests go to `handler`.
//!
//! Invariant: everything a peer can make this module hold is bounded by the limits below, and every connection and
//! session ends with the server.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tls::accept;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{access::Access, answer::Body, certificate, handler::Handler};
use crate::{Options, pod::Shared};

/// Open connections. Each log follower and session through the API server is one or part of one.
const CONNECTIONS_MAX: usize = 2000;
/// From the start of a request's head, or of waiting for one on an idle HTTP/1 connection, to its end.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(90);
/// An exec's command is part of the request line.
const HEAD_BYTES_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 128;
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 250;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

/// A bound port that is not served yet.
pub struct Server {
    socket: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    access: Access,
    shared: Arc<Shared>,
}

impl Server {
    pub async fn bind(options: &Options, shared: Arc<Shared>) -> Result<Self, Error> {
        let access = Access::new(options.client_ca.as_deref())?;
        let acceptor = TlsAcceptor::from(Arc::new(certificate::config(options, &access)?));
        let failed = |source| Error::Bind { address: options.bind, source };
        let socket = TcpListener::bind(options.bind).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, acceptor, access, shared })
    }

    /// With the port the kernel chose when 0 was asked for; the Node's `status.daemonEndpoints` tells it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then ends every connection and session.
    pub async fn run(self, shutdown: CancellationToken) {
        let port = accept::Connections::new(self.acceptor, CONNECTIONS_MAX, shutdown.clone());
        let connections = Connections {
            handler: Handler::new(self.shared, port.tasks.clone(), port.close.clone()),
            access: self.access,
            executor: port.executor(),
        };
        let serve = move |accepted| {
            let connections = connections.clone();
            async move { connections.serve(accepted).await }
        };
        tokio::select! {
            () = port.accept(&self.socket, serve) => {}
            () = shutdown.cancelled() => {}
        }
        drop(self.socket);
        port.close.cancel();
        port.tasks.close();
        port.tasks.wait().await;
    }
}

#[derive(Clone)]
struct Connections {
    handler: Handler,
    access: Access,
    executor: accept::Tracked,
}

impl Connections {
    async fn serve(&self, accepted: accept::Accepted) {
        let accept::Accepted { stream, address, chain, http2 } = accepted;
        let chain: Arc<[CertificateDer<'static>]> = chain.into();
        let result = if http2 { self.http2(stream, chain).await } else { self.http1(stream, chain).await };
        if let Err(error) = result {
            tracing::debug!(%address, %error, "connection ended");
        }
    }

    async fn http1(&self, stream: TlsStream<TcpStream>, chain: Arc<[CertificateDer<'static>]>) -> hyper::Result<()> {
        let connections = self.clone();
        let service = service_fn(move |request| connections.clone().answer(request, chain.clone()));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades()).await
    }

    async fn http2(&self, stream: TlsStream<TcpStream>, chain: Arc<[CertificateDer<'static>]>) -> hyper::Result<()> {
        let connections = self.clone();
        let service = service_fn(move |request| connections.clone().answer(request, chain.clone()));
        let mut builder = http2::Builder::new(self.executor.clone());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_WAIT_MAX);
        builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADER_LIST_BYTES_MAX);
        pin!(builder.serve_connection(TokioIo::new(stream), service)).await
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        chain: Arc<[CertificateDer<'static>]>,
    ) -> Result<Response<Body>, Infallible> {
        let what = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        Ok(match self.access.check(&chain, what) {
            Ok(()) => self.handler.call(request).await,
            Err(refusal) => refusal.answer(),
        })
    }
}
