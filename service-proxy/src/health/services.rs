//! Health check ports: load balancers ask each node over HTTP whether it has endpoints of a Service that keeps traffic
//! on its node. The answer is that of upstream's `healthcheck.hcHandler`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::cidr::Cidr;
use api::meta::ObjectKey;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::Health;
use super::serve::{Answer, json, serve};

pub struct HealthChecks {
    servers: HashMap<ObjectKey, Server>,
    health: Health,
    /// Ranges of the node's addresses that are listened on; all addresses when there are none.
    ranges: Vec<Cidr>,
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
    health: Health,
}

impl HealthChecks {
    pub fn new(health: Health, ranges: Vec<Cidr>) -> Self {
        Self { servers: HashMap::new(), health, ranges }
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
        let shared =
            Arc::new(Shared { service: service.clone(), endpoints: AtomicUsize::new(0), health: self.health.clone() });
        let listeners = self.listen(port)?;
        let end = CancellationToken::new();
        for listener in listeners {
            let (ended, shared) = (end.clone(), shared.clone());
            let serving = serve(listener, move |_| answer(&shared));
            // Ends with the guard, which the server holds.
            drop(tokio::spawn(async move { ended.run_until_cancelled(serving).await }));
        }
        debug!(%service, port, "answering health checks");
        Ok(Server { port, shared, _end: end.drop_guard() })
    }

    /// Like node ports: on all addresses, or on the node's addresses of some ranges.
    fn listen(&self, port: u16) -> std::io::Result<Vec<TcpListener>> {
        let listen = |address: IpAddr| {
            let listener = std::net::TcpListener::bind(SocketAddr::from((address, port)))?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        if self.ranges.is_empty() {
            // Version 6 takes version 4 along where both are there.
            let listener = listen(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into()))?;
            return Ok(vec![listener]);
        }
        own_addresses(&self.ranges)?.into_iter().map(listen).collect()
    }
}

/// This host's addresses within the ranges, without those of a link alone.
fn own_addresses(ranges: &[Cidr]) -> std::io::Result<Vec<IpAddr>> {
    let of = |address: nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    };
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?.filter_map(|one| of(one.address?)).collect();
    found.retain(|address| ranges.iter().any(|range| range.contains(*address)));
    found.retain(|address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()));
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn answer(shared: &Shared) -> Answer {
    let count = shared.endpoints.load(Ordering::Relaxed);
    let is_healthy = shared.health.is_healthy();
    let service = BTreeMap::from([("name", &shared.service.name), ("namespace", &shared.service.namespace)]);
    let body = serde_json::json!({
        "service": service,
        "localEndpoints": count,
        "serviceProxyHealthy": is_healthy,
    });
    json(count != 0 && is_healthy, &body, &[("X-Load-Balancing-Endpoint-Weight", count.to_string())])
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(port: u16) -> std::io::Result<String> {
        ask_at(Ipv4Addr::LOCALHOST, port).await
    }

    async fn ask_at(address: Ipv4Addr, port: u16) -> std::io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect((address, port)).await?;
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
        let health = Health::default();
        let mut checks = HealthChecks::new(health.clone(), Vec::new());
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
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
        checks.serve(&name, None);
        while ask(port).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn it_listens_where_node_ports_are() {
        let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // Each address of 127.0.0.0/8 is one of this host, but its interface has the first one alone.
        let ranges = vec![Cidr::parse("127.0.0.0/8").unwrap()];
        let mut checks = HealthChecks::new(Health::default(), ranges);
        checks.serve(&ObjectKey::new("default", "web"), Some((port, 1)));
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(ask_at([127, 0, 0, 2].into(), port).await.is_err());
    }
}
