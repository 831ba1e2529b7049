//! The port: TLS, HTTP/1.1 with upgrades and HTTP/2. Requests go to `handler`.
//!
//! Invariant: everything a peer can make this module hold is bounded by the limits below, and every connection and
//! session ends with the server.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{access::Access, answer::Body, certificate, handler::Handler};
use crate::{Options, pod::Shared};

/// Open connections. Each log follower and session through the API server is one or part of one.
const CONNECTIONS_MAX: usize = 2000;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
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
/// Pause after the kernel could not give us a connection (out of descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

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
        let tasks = TaskTracker::new();
        let close = CancellationToken::new();
        let connections = Connections {
            handler: Handler::new(self.shared, tasks.clone(), close.clone()),
            access: self.access,
            acceptor: self.acceptor,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            tasks: tasks.clone(),
            close: close.clone(),
        };
        tokio::select! {
            () = connections.accept(&self.socket) => {}
            () = shutdown.cancelled() => {}
        }
        drop(self.socket);
        close.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

#[derive(Clone)]
struct Connections {
    handler: Handler,
    access: Access,
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    close: CancellationToken,
}

impl Connections {
    async fn accept(&self, socket: &TcpListener) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let (stream, address) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection to the node API failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let connections = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = connections.serve(stream, address) => {}
                    () = connections.close.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot switch off delay");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
        };
        let (_, session) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(certificate::HTTP2);
        let chain = session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned());
        let chain: Arc<[CertificateDer<'static>]> = chain.collect();
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
        let mut builder = http2::Builder::new(Tracked(self.tasks.clone(), self.close.clone()));
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

/// Runs the tasks hyper needs among the connection's own, so that a stop ends them and waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker, CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        let close = self.1.clone();
        self.0.spawn(async move {
            tokio::select! {
                () = future => {}
                () = close.cancelled() => {}
            }
        });
    }
}
