//! Connections to registries: TCP, through the proxy that the environment names, then TLS.
//!
//! Always HTTP/1.1: layers come over connections of their own, so that none waits for another's window.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api_client::transport::AcceptAny;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::image::hosts::Tls;

/// TCP, proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Answer of a proxy to CONNECT.
const PROXY_ANSWER_BYTES_MAX: usize = 8 << 10;
/// The host's trusted authorities, in the places of the common distributions.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path}")]
    Pem { path: String, source: rustls_pki_types::pem::Error },
    #[error("{path}")]
    Rustls { path: String, source: rustls::Error },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
    timeout: Duration,
}

/// An open connection.
pub(super) struct OpenConnection {
    stream: TokioIo<Box<dyn Stream>>,
    /// Requests on it name the whole address.
    proxied: bool,
}

impl Connector {
    pub(super) fn new(tls: &Tls, timeout: Option<Duration>) -> Result<Self, Error> {
        Ok(Self {
            tls: Arc::new(client_config(tls)?),
            proxies: Arc::new(Matcher::from_env()),
            timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
        })
    }

    async fn connect(&self, uri: &Uri) -> io::Result<OpenConnection> {
        let secure = uri.scheme() != Some(&http::uri::Scheme::HTTP);
        let host = bare_host(uri);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let proxy = self.proxies.intercept(uri);
        let mut tcp = match &proxy {
            None => TcpStream::connect((host, port)).await?,
            Some(proxy) => {
                let port = proxy.uri().port_u16().unwrap_or(80);
                TcpStream::connect((bare_host(proxy.uri()), port)).await?
            }
        };
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(OpenConnection { stream: TokioIo::new(Box::new(tcp)), proxied: proxy.is_some() });
        }
        if let Some(proxy) = &proxy {
            let authorization = proxy.basic_auth().and_then(|value| value.to_str().ok());
            tunnel(&mut tcp, &format!("{}:{port}", uri.host().unwrap_or_default()), authorization).await?;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        Ok(OpenConnection { stream: TokioIo::new(Box::new(tls)), proxied: false })
    }
}

/// Without the brackets of an IPv6 address.
fn bare_host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Asks a proxy to pass everything on to `target`.
async fn tunnel(proxy: &mut TcpStream, target: &str, authorization: Option<&str>) -> io::Result<()> {
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    proxy.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // By the byte: what follows the head belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_ANSWER_BYTES_MAX {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        answer.push(proxy.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("the proxy refuses to connect to {target}: {line}"))),
    }
}

fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let nowhere = |source| Error::Rustls { path: "set up TLS".to_owned(), source };
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(nowhere)?;
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(&tls.authorities)?)
    };
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let wrong = |source| Error::Pem { path: key.display().to_string(), source };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(wrong)?;
    let mismatch = |source| Error::Rustls { path: certificate.display().to_string(), source };
    builder.with_client_auth_cert(chain, private).map_err(mismatch)
}

/// The host's authorities and the given ones. A host without any has none of its own.
fn roots(given: &[PathBuf]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let places = named.into_iter().chain(SYSTEM_ROOTS.map(PathBuf::from));
    if let Some(system) = places.into_iter().find(|path| path.is_file()) {
        // A host may trust odd ones; what is no certificate here is none.
        let (_added, _ignored) = roots.add_parsable_certificates(certificates(&system)?);
    }
    for path in given {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| Error::Rustls { path: path.display().to_string(), source })?;
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |source| Error::Pem { path: path.display().to_string(), source };
    CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(wrong)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
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
            match tokio::time::timeout(connector.timeout, connector.connect(&uri)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {} seconds", connector.timeout.as_secs_f32()),
                )),
            }
        })
    }
}

impl Connection for OpenConnection {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
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
