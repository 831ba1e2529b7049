//! Health check ports: load balancers ask each node over HTTP whether it has endpoints of a Service that keeps traffic
//! on its node. The answer is that of upstream's `healthcheck.hcHandler`.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api::meta::ObjectKey;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

/// Connections to one port at a time; more have to wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct HealthChecks {
    servers: HashMap<ObjectKey, Server>,
    is_healthy: Arc<AtomicBool>,
}

struct Server {
    port: u16,
    shared: Arc<Shared>,
    /// Ends the server when it is dropped.
    _end: DropGuard,
}

struct Shared {
    service: ObjectKey,
    endpoints: AtomicUsize,
    is_healthy: Arc<AtomicBool>,
}

impl HealthChecks {
    /// Whether the proxy does what it should; without that every node says no.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.is_healthy.store(is_healthy, Ordering::Relaxed);
    }

    /// Serves exactly these Services: port, and how many endpoints are here. A port that cannot be had is tried again
    /// with the Service's next change.
    pub fn serve(&mut self, service: &ObjectKey, wanted: Option<(u16, usize)>) {
        let Some((port, endpoints)) = wanted else {
            self.servers.remove(service);
            return;
        };
        if self.servers.get(service).is_none_or(|server| server.port != port) {
            self.servers.remove(service);
            match self.start(service, port) {
                Ok(server) => drop(self.servers.insert(service.clone(), server)),
                Err(error) => warn!(%service, port, %error, "listening on a Service's health check port failed"),
            }
        }
        if let Some(server) = self.servers.get(service) {
            server.shared.endpoints.store(endpoints, Ordering::Relaxed);
        }
    }

    fn start(&self, service: &ObjectKey, port: u16) -> std::io::Result<Server> {
        let shared = Arc::new(Shared {
            service: service.clone(),
            endpoints: AtomicUsize::new(0),
            is_healthy: self.is_healthy.clone(),
        });
        // Version 6 takes version 4 along where both are there.
        let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
        let listener = any.into_iter().map(std::net::TcpListener::bind).find(Result::is_ok);
        let listener = listener.unwrap_or_else(|| std::net::TcpListener::bind(any[1]))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let end = CancellationToken::new();
        let (ended, serving) = (end.clone(), shared.clone());
        // Ends with the guard, which the server holds.
        drop(tokio::spawn(async move { ended.run_until_cancelled(accept(listener, serving)).await }));
        debug!(%service, port, "answering health checks");
        Ok(Server { port, shared, _end: end.drop_guard() })
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accepting a health check failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |_: Request<Incoming>| {
                let answer = answer(&shared);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
            // A client that went away has no use for an answer.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

fn answer(shared: &Shared) -> Response<Full<Bytes>> {
    let count = shared.endpoints.load(Ordering::Relaxed);
    let is_healthy = shared.is_healthy.load(Ordering::Relaxed);
    let service = BTreeMap::from([("name", &shared.service.name), ("namespace", &shared.service.namespace)]);
    let body = serde_json::json!({
        "service": service,
        "localEndpoints": count,
        "serviceProxyHealthy": is_healthy,
    });
    let status = if count != 0 && is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Response::builder()
        .status(status)
        .header("Content-Type", "application/json")
        .header("X-Content-Type-Options", "nosniff")
        .header("X-Load-Balancing-Endpoint-Weight", count)
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("these headers are valid")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_load_balancer_is_told_whether_there_are_endpoints_here() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let name = ObjectKey::new("default", "web");
        let mut checks = HealthChecks::default();
        checks.set_healthy(true);
        checks.serve(&name, Some((port, 2)));
        let text = ask(port).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(text.to_lowercase().contains("x-load-balancing-endpoint-weight: 2"), "{text}");
        let body: serde_json::Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({ "service": { "namespace": "default", "name": "web" },
                "localEndpoints": 2, "serviceProxyHealthy": true })
        );
        checks.serve(&name, Some((port, 0)));
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.serve(&name, Some((port, 1)));
        checks.set_healthy(false);
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.serve(&name, None);
        while ask(port).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
