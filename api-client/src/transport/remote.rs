//! The transport over the network. Connections are reused (one for many requests with HTTP/2), several servers are
//! one: a request goes to the server that answered last, and to the next when that one can't be reached.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::ServerName;

use super::connector::Connector;
use super::{Body, Tls, Transport};
use crate::Error;
use crate::error::BoxError;

/// How long the head of a response may take; bodies have their own limit in [`crate::Client`].
const RESPONSE_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection without traffic is probed after this long, and given up after [`KEEP_ALIVE_TIMEOUT`] more (the
/// health check of client-go's HTTP/2 transport).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle HTTP/1.1 connections kept per server.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// HTTP/2 flow-control windows, so that long lists don't wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A token file is read again after this long (bound tokens are rotated well before they expire).
const TOKEN_REFRESH: Duration = Duration::from_secs(60);

/// What is sent as `Authorization`, beside a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    None,
    Token(String),
    TokenFile(PathBuf),
}

/// Everything needed to reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Base addresses of equal API servers, such as `https://10.0.0.1:6443`; at least one.
    pub servers: Vec<String>,
    pub tls: Tls,
    pub credentials: Credentials,
}

pub struct Remote {
    /// Swapped by [`Remote::reconnect`].
    client: ArcSwap<legacy::Client<Connector, Full<Bytes>>>,
    connector: Connector,
    servers: Vec<Server>,
    /// Index of the server to try first.
    preferred: AtomicUsize,
    token: Token,
}

struct Server {
    scheme: Scheme,
    authority: Authority,
    /// Path prefix without a slash at the end; mostly empty.
    prefix: String,
}

impl Remote {
    pub fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let servers = config.servers.iter().map(|s| parse_server(s)).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(Error::Config { what: "configuration names no server".into(), source: "empty list".into() });
        }
        let server_name = match &config.tls.server_name {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|e| Error::Config { what: format!("use TLS server name {name:?}"), source: e.into() })?,
            ),
        };
        let connector = Connector { tls: Arc::new(config.tls.client_config()?), server_name };
        let token = Token::new(&config.credentials)?;
        let client = ArcSwap::from_pointee(client(&connector));
        Ok(Arc::new(Self { client, connector, servers, preferred: AtomicUsize::new(0), token }))
    }

    /// Opens new connections for all requests from here on, with the client certificate as it is now. A server judges
    /// the certificate of a connection with every request, so that one opened with an old certificate stops working
    /// when that expires. Requests under way finish on their connections.
    pub fn reconnect(&self) {
        self.client.store(Arc::new(client(&self.connector)));
    }

    async fn send_to(&self, server: &Server, request: &Request<Bytes>) -> Result<Response<Body>, Failed> {
        let fail = |source: BoxError, may_repeat| Failed { source, may_repeat };
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri = Uri::builder()
            .scheme(server.scheme.clone())
            .authority(server.authority.clone())
            .path_and_query(format!("{}{path}", server.prefix))
            .build()
            .map_err(|e| fail(e.into(), false))?;
        let mut outgoing = Request::new(Full::new(request.body().clone()));
        *outgoing.method_mut() = request.method().clone();
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = request.headers().clone();
        if let Some(token) = self.token.header() {
            outgoing.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let sent = tokio::time::timeout(RESPONSE_HEAD_TIMEOUT, self.client.load().request(outgoing)).await;
        // Only what certainly had no effect may be repeated elsewhere.
        let safe = request.method().is_safe();
        match sent {
            Ok(Ok(response)) => Ok(response.map(|body| Body::new(body.map_err(BoxError::from)))),
            Ok(Err(e)) => {
                let may_repeat = e.is_connect() || safe;
                Err(fail(Box::new(Unsent(e)), may_repeat))
            }
            Err(_) => Err(fail("no answer within RESPONSE_HEAD_TIMEOUT".into(), safe)),
        }
    }
}

fn client(connector: &Connector) -> legacy::Client<Connector, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build(connector.clone())
}

struct Failed {
    source: BoxError,
    may_repeat: bool,
}

/// hyper-util's errors print only their outermost layer; the cause is what helps.
#[derive(Debug)]
struct Unsent(legacy::Error);

impl std::fmt::Display for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(problem) = tls::problem(&self.0) {
            return write!(f, "{problem}");
        }
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Unsent {
    /// The text above already tells the causes; they are here for those who look for a type among them.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[async_trait]
impl Transport for Remote {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let count = self.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for offset in 0..count {
            let index = (first + offset) % count;
            match self.send_to(&self.servers[index], &request).await {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(failed) => {
                    let server = &self.servers[index].authority;
                    let attempted = format!("{} {} at {server}", request.method(), request.uri());
                    let may_repeat = failed.may_repeat;
                    last = Some(Error::Transport { attempted, source: failed.source });
                    if !may_repeat {
                        // The next request tries another server.
                        self.preferred.store((index + 1) % count, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Transport {
            attempted: format!("{} {}", request.method(), request.uri()),
            source: "no server".into(),
        }))
    }
}

fn parse_server(text: &str) -> Result<Server, Error> {
    let invalid = |source: BoxError| Error::Config { what: format!("use server address {text:?}"), source };
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let parts = full.parse::<Uri>().map_err(|e| invalid(e.into()))?.into_parts();
    let authority = parts.authority.ok_or_else(|| invalid("no host".into()))?;
    let prefix = parts.path_and_query.map_or(String::new(), |p| p.path().trim_end_matches('/').to_owned());
    Ok(Server { scheme: parts.scheme.unwrap_or(Scheme::HTTPS), authority, prefix })
}

/// The bearer token, re-read from its file from time to time.
enum Token {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, read: Mutex<(Instant, Option<HeaderValue>)> },
}

impl Token {
    fn new(credentials: &Credentials) -> Result<Self, Error> {
        Ok(match credentials {
            Credentials::None => Self::None,
            Credentials::Token(token) => Self::Fixed(bearer(token)?),
            Credentials::TokenFile(path) => {
                let token = read_token(path)?;
                Self::File { path: path.clone(), read: Mutex::new((Instant::now(), Some(token))) }
            }
        })
    }

    fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Fixed(value) => Some(value.clone()),
            Self::File { path, read } => {
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                if read.0.elapsed() > TOKEN_REFRESH {
                    read.0 = Instant::now();
                    match read_token(path) {
                        Ok(value) => read.1 = Some(value),
                        Err(error) => tracing::warn!(%error, "keep the token already read"),
                    }
                }
                read.1.clone()
            }
        }
    }
}

fn read_token(path: &std::path::Path) -> Result<HeaderValue, Error> {
    let what = || format!("read token file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::Config { what: what(), source: e.into() })?;
    bearer(text.trim())
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|e| Error::Config { what: "use bearer token".into(), source: e.into() })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses() {
        let check = |text: &str, scheme: &str, authority: &str, prefix: &str| {
            let server = parse_server(text).expect("parses");
            assert_eq!(
                (server.scheme.as_str(), server.authority.as_str(), &*server.prefix),
                (scheme, authority, prefix)
            );
        };
        check("https://10.0.0.1:6443", "https", "10.0.0.1:6443", "");
        check("10.0.0.1:6443", "https", "10.0.0.1:6443", "");
        check("http://localhost:8001/prefix/", "http", "localhost:8001", "/prefix");
        check("https://[::1]:6443/", "https", "[::1]:6443", "");
        assert!(parse_server("https://").is_err());
    }
}
