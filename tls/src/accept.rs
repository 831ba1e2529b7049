//! The loop that takes connections on a TLS port. What is spoken on them is the caller's affair.
//!
//! Invariant: at most `places` connections are open, handshakes have a limit of their own, and every connection ends
//! with `close`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::HTTP2;

/// A peer that does not finish its handshake gives its place to another.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Pause after the kernel could not give us a connection (out of descriptors).
const RETRY: Duration = Duration::from_millis(50);

/// A connection whose handshake is done.
pub struct Accepted {
    pub stream: TlsStream<TcpStream>,
    pub address: SocketAddr,
    /// What the peer proved to hold, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub http2: bool,
}

/// The connections of one port.
#[derive(Clone)]
pub struct Connections {
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
    /// Owns every connection's task.
    pub tasks: TaskTracker,
    /// No new handshakes; connections finish what is under way.
    pub drain: CancellationToken,
    /// Connections end now.
    pub close: CancellationToken,
}

impl Connections {
    /// `limit` is how many may be open; at the limit new ones wait in the kernel's queue.
    pub fn new(acceptor: TlsAcceptor, limit: usize, drain: CancellationToken) -> Self {
        Self {
            acceptor,
            places: Arc::new(Semaphore::new(limit)),
            tasks: TaskTracker::new(),
            drain,
            close: CancellationToken::new(),
        }
    }

    /// Gives every connection to `serve`, until dropped.
    pub async fn accept<S, F>(&self, socket: &TcpListener, serve: S)
    where
        S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let (stream, address) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let (connections, serve) = (self.clone(), serve.clone());
            self.tasks.spawn(async move {
                let served = async {
                    if let Some(accepted) = connections.handshake(stream, address).await {
                        serve(accepted).await;
                    }
                };
                tokio::select! {
                    () = served => {}
                    () = connections.close.cancelled() => {}
                }
                drop(place);
            });
        }
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr) -> Option<Accepted> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot switch off delay");
        }
        let handshake = tokio::time::timeout(HANDSHAKE_MAX, self.acceptor.accept(stream));
        let done = tokio::select! {
            done = handshake => done,
            () = self.drain.cancelled() => return None,
        };
        let error: io::Error = match done {
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let http2 = session.alpn_protocol() == Some(HTTP2);
                let chain = session.peer_certificates().unwrap_or_default().iter();
                let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
                return Some(Accepted { stream, address, chain, http2 });
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "it took longer than HANDSHAKE_MAX"),
        };
        tracing::debug!(%address, %error, "TLS handshake failed");
        None
    }

    /// Runs the tasks that hyper needs among the connections' own, so that a stop ends them and waits for them.
    pub fn executor(&self) -> Tracked {
        Tracked { tasks: self.tasks.clone(), close: self.close.clone() }
    }
}

#[derive(Clone)]
pub struct Tracked {
    tasks: TaskTracker,
    close: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        let close = self.close.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = future => {}
                () = close.cancelled() => {}
            }
        });
    }
}
