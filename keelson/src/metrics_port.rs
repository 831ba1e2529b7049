//! `/metrics` and `/healthz` of a process that runs parts without the API server, whose own port would show them. Plain
//! HTTP, and by default on the loopback address alone: it tells counts and durations, nothing of any object.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics::exposition;

/// Connections at a time; the next wait.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may take for the head of its next request.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// After an accept that failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Pause before a port that is taken is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(address: SocketAddr, registry: Registry, stop: CancellationToken) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("metrics: listen on {address}"))?;
    serve_on(listener, address, registry, stop).await;
    Ok(())
}

/// Serves until `stop`, as soon as the port can be had: for a part that others must not wait for.
pub async fn serve_when_free(address: SocketAddr, registry: Registry, stop: CancellationToken) -> Result<()> {
    let mut is_first = true;
    let listen = async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(error) if is_first => warn!(%address, %error, "metrics: the port is not to be had, trying on"),
                Err(error) => debug!(%address, %error, "metrics: the port is still not to be had"),
            }
            is_first = false;
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    };
    if let Some(listener) = stop.run_until_cancelled(listen).await {
        serve_on(listener, address, registry, stop).await;
    }
    Ok(())
}

async fn serve_on(listener: TcpListener, address: SocketAddr, registry: Registry, stop: CancellationToken) {
    info!(address = %listener.local_addr().unwrap_or(address), "metrics are at /metrics");
    let registry = Arc::new(registry);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let registry = registry.clone();
                    connections.spawn(async move {
                        connection(stream, registry).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!(%error, "metrics: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    // Those under way are dropped with the set: whoever scrapes comes again.
    stop.run_until_cancelled(accept).await;
}

async fn connection(stream: TcpStream, registry: Arc<Registry>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &registry);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "metrics: connection ended");
    }
}

fn answer(method: &Method, path: &str, registry: &Registry) -> Response<Full<Bytes>> {
    let (status, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, exposition(registry)),
        (&Method::GET | &Method::HEAD, "/healthz" | "/livez" | "/readyz") => (StatusCode::OK, "ok".to_owned()),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn metrics_are_read_over_http() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("workqueue_adds", "Adds", counter.clone());
        counter.inc();
        // A port that is free now; nobody else in this test's process takes it.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(address, registry, stop.clone()));
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 200 OK") && told.contains("\nworkqueue_adds_total 1\n"), "{told}");
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let status = |method, path| answer(&method, path, &Registry::default()).status().as_u16();
        assert_eq!(
            [status(Method::GET, "/healthz"), status(Method::GET, "/api"), status(Method::POST, "/metrics")],
            [200, 404, 405]
        );
    }
}
