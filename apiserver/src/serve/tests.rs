//! The port from outside: both HTTP versions, good, foreign and expired certificates, and stopping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use store_client::memory::Memory;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Options;
use crate::pki::{Authority, Cluster, Credential, Subject, Validity};

/// A served API server, and clients of it.
pub(crate) struct Running {
    pub identity: Arc<Cluster>,
    address: SocketAddr,
    pub server: ApiServer,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) async fn start() -> Running {
    let mut options = Options { bootstrap: false, ..Options::default() };
    let identity = Arc::new(Cluster::ephemeral(&options.names(), Timestamp::now()).unwrap());
    options.identity = Some(Arc::clone(&identity));
    let server = ApiServer::start(options, Arc::new(Memory::new())).await.unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &identity).await.unwrap();
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let task = tokio::spawn(listener.run(server.clone(), shutdown.clone()));
    Running { identity, address, server, shutdown, task }
}

impl Running {
    pub async fn connect(
        &self,
        credential: Option<&Credential>,
        alpn: &[u8],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.identity.authority.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credential {
            Some(c) => builder.with_client_auth_cert(c.chain().unwrap(), c.key().unwrap()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    pub async fn get(&self, credential: Option<&Credential>, path: &str) -> (StatusCode, String) {
        let stream = TokioIo::new(self.connect(credential, b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn validity(offset: Duration) -> Validity {
    let now = Timestamp::now().as_second().saturating_sub_unsigned(offset.as_secs());
    Validity { now: Timestamp::from_second(now).unwrap(), lifetime: Duration::from_secs(3600) }
}

#[tokio::test]
async fn the_administrator_is_served_by_both_http_versions() {
    let running = start().await;
    let (status, body) = running.get(Some(&running.identity.admin.get()), "/version").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.contains("gitVersion"));

    let stream = TokioIo::new(running.connect(Some(&running.identity.admin.get()), b"h2").await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/version").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
}

#[tokio::test]
async fn bad_certificates_get_401_and_none_is_anonymous() {
    let running = start().await;
    let (status, body) = running.get(None, "/version").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "no roles exist here: {body}");
    assert!(body.contains("system:anonymous"), "{body}");

    let admin = Subject::new("kubernetes-admin", "system:masters");
    let foreign = Authority::ephemeral("kubernetes", Timestamp::now()).unwrap();
    let foreign = foreign.issue_client(&admin, validity(Duration::ZERO)).unwrap();
    assert_eq!(running.get(Some(&foreign), "/version").await.0, StatusCode::UNAUTHORIZED);

    let expired = running.identity.authority.issue_client(&admin, validity(Duration::from_secs(7200))).unwrap();
    assert_eq!(running.get(Some(&expired), "/version").await.0, StatusCode::UNAUTHORIZED);

    let serving = &running.identity.serving.get();
    assert_eq!(running.get(Some(serving), "/version").await.0, StatusCode::UNAUTHORIZED, "a serving key is no user");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_newcomers_and_open_connections_go_on() {
    let running = start().await;
    let admin = running.identity.admin.get();
    let leaf = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let old = running.connect(Some(&admin), b"h2").await;
    let before = leaf(&old);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(old)).await.unwrap();
    tokio::spawn(connection);
    let later = Timestamp::now().checked_add(jiff::SignedDuration::from_hours(330 * 24)).unwrap();
    assert!(running.identity.renew(later).unwrap());
    let request = Request::get("https://localhost/version").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    let shown = running.identity.serving.get().chain().unwrap()[0].to_vec();
    assert_ne!(before, shown);
    assert!(sender.ready().await.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_within_a_second() {
    let running = start().await;
    let mut idle = running.connect(None, b"http/1.1").await;
    let began = Instant::now();
    running.shutdown.cancel();
    running.server.stop().await;
    running.task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let mut rest = Vec::new();
    // An end of file or a reset: either way the connection is over.
    let ended = tokio::time::timeout(Duration::from_secs(1), idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn an_endless_request_head_is_refused() {
    use tokio::io::AsyncWriteExt;
    let running = start().await;
    let mut stream = running.connect(None, b"http/1.1").await;
    let head = format!("GET /version HTTP/1.1\r\nhost: localhost\r\nx: {}", "a".repeat(HEAD_BYTES_MAX + 4096));
    // The server may close before it has read everything.
    drop(stream.write_all(head.as_bytes()).await);
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the server must end it");
    let text = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || text.starts_with("HTTP/1.1 431") || text.starts_with("HTTP/1.1 400"), "{text}");
}
