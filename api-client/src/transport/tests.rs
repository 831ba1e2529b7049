//! The network transport against a plain HTTP server: reuse, fail-over and what may not be repeated.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Config, Credentials, Remote, Transport};

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// Answers with the request's path and authorization. It is no API server: only the transport is under test.
async fn serve() -> (SocketAddr, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    let counts = Arc::new(Counts::default());
    let seen = counts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let seen = seen.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                seen.requests.fetch_add(1, Ordering::SeqCst);
                let header = request.headers().get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
                let body = format!("{} {header}", request.uri());
                async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, counts)
}

async fn get(remote: &Remote, path: &str) -> Result<String, crate::Error> {
    let request = Request::get(path).body(Bytes::new()).unwrap();
    let body = remote.send(request).await?.into_body().collect().await.expect("whole body").to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// An address nobody listens on.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn connections_are_reused_and_tokens_sent() {
    let (address, counts) = serve().await;
    let config = Config {
        servers: vec![format!("http://{address}/base")],
        credentials: Credentials::Token("secret".into()),
        ..Config::default()
    };
    let remote = Remote::new(&Config { tls: insecure(), ..config }).expect("configures");
    for _ in 0..3 {
        assert_eq!(get(&remote, "/api/v1/nodes?limit=1").await.unwrap(), "/base/api/v1/nodes?limit=1 Bearer secret");
    }
    assert_eq!(counts.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_unreachable_server_is_passed_over() {
    let (address, counts) = serve().await;
    let servers = vec![format!("http://{}", closed().await), format!("http://{address}")];
    let remote = Remote::new(&Config { servers, tls: insecure(), ..Config::default() }).expect("configures");
    let post = Request::post("/x").body(Bytes::from_static(b"{}")).unwrap();
    assert!(remote.send(post).await.is_ok(), "nothing was sent to the dead server, so even a write moves on");
    assert_eq!(counts.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn with_no_server_left_the_error_says_what_was_tried() {
    let servers = vec![format!("http://{}", closed().await)];
    let remote = Remote::new(&Config { servers, tls: insecure(), ..Config::default() }).expect("configures");
    let error = get(&remote, "/version").await.expect_err("nobody listens").to_string();
    assert!(error.starts_with("GET /version at 127.0.0.1:"), "{error}");
    assert!(error.contains("refused"), "{error}");
}

fn insecure() -> super::Tls {
    super::Tls { insecure: true, ..super::Tls::default() }
}
