//! Opens one connection to an API server: TCP, then TLS where the address says https, with the protocol agreed by
//! ALPN.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// TCP and TLS handshake together; then the next server is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) server_name: Option<ServerName<'static>>,
}

/// An open connection.
pub(super) struct OpenConnection {
    stream: TokioIo<Box<dyn Stream>>,
    http2: bool,
}

impl tower_service::Service<Uri> for Connector {
    type Response = OpenConnection;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<OpenConnection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(&uri)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("connect to {uri}: CONNECT_TIMEOUT"))),
            }
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> io::Result<OpenConnection> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme() != Some(&http::uri::Scheme::HTTP);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(OpenConnection { stream: TokioIo::new(Box::new(tcp)), http2: false });
        }
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(OpenConnection { stream: TokioIo::new(Box::new(tls)), http2 })
    }
}

impl Connection for OpenConnection {
    fn connected(&self) -> Connected {
        if self.http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for OpenConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for OpenConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
