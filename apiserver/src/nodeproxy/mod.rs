//! What runs through this server to a node, a pod or a Service: logs, exec, attach, port forwarding and proxies. The
//! request was authorized as any other; here it is turned into the node's own path, and bytes pass untouched.

mod connection;
mod links;
mod location;
mod messages;
mod proxy;
mod streams;
mod tunnel;

use std::sync::Arc;

use serde_json::Value;

use api::status::Status;

use crate::endpoint::Handler;
use crate::server::Server;
use crate::special::Special;

pub use connection::{Error, NodeClient, Protection};
pub use proxy::service_endpoint;

pub static SPECIAL: &[Special] = &[
    row("pods", "log", |server, call, body| streams::log(server, call, body)),
    row("pods", "exec", |server, call, body| streams::exec(server, call, body)),
    row("pods", "attach", |server, call, body| streams::attach(server, call, body)),
    row("pods", "portforward", |server, call, body| streams::port_forward(server, call, body)),
    row("pods", "proxy", |server, call, body| proxy::pod(server, call, body)),
    row("services", "proxy", |server, call, body| proxy::service(server, call, body)),
    row("nodes", "proxy", |server, call, body| proxy::node(server, call, body)),
];

const fn row(resource: &'static str, subresource: &'static str, handler: Handler) -> Special {
    Special { group: "", resource, subresource, handler }
}

/// The object of the core group, as fresh as any read.
async fn find(server: &Arc<Server>, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    server.cache.fresh().await?;
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let found = server.resource("", resource).and_then(|(_, cache)| cache.snapshot().get(&key).map(|i| i.value()));
    found.ok_or_else(|| Status::not_found("", resource, name))
}

/// Host and port of the API of a node.
pub async fn node_address(server: &Arc<Server>, name: &str) -> Result<(String, u16), Status> {
    location::node_address(&find(server, "nodes", "", name).await?)
}

#[cfg(test)]
mod tests;
