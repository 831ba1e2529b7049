//! `/portForward`: connections from the client to ports inside a pod's network namespace.
//!
//! SPDY, plain or tunnelled through a WebSocket, with a pair of streams per connection (`streams`); or a WebSocket with
//! a pair of channels per port that the request names (`channels`).

mod channels;
mod dial;
mod streams;

use std::path::PathBuf;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    answer::{Answer, Refusal},
    handler::Handler,
    query::Query,
    upgrade::{self, Offer, Transport, Upgrade},
    websocket::{self, Coding},
};
use crate::pod::PodView;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const OFFER: Offer<'_> = Offer {
    websocket: &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"],
    unnamed: true,
    spdy: &["portforward.k8s.io"],
};
/// One read from a pod's connection.
const READ_BYTES: usize = 32 << 10;

/// Where a session's connections go.
struct Destination {
    name: String,
    uid: String,
    /// `None` is the host's.
    netns: Option<PathBuf>,
}

pub fn answer(
    handler: &Handler,
    request: Request<Incoming>,
    query: &Query,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
) -> Result<Answer, Refusal> {
    let view = handler.shared.views.find(namespace, pod, None);
    let view = view.ok_or_else(|| Refusal::not_found("pod does not exist"))?;
    if uid.is_some_and(|uid| uid != view.id.uid) {
        return Err(Refusal::not_found("pod not found"));
    }
    let destination = destination(&view)?;
    let Upgrade { transport, protocol, answer } = match upgrade::negotiate(&request, &OFFER) {
        Ok(upgrade) => upgrade,
        Err(answer) => return Ok(*answer),
    };
    let tunnels = transport == Transport::WebSocket && protocol == TUNNEL;
    let ports = if transport == Transport::WebSocket && !tunnels { channels::ports(query)? } else { Vec::new() };
    handler.spawn(async move {
        let io = match hyper::upgrade::on(request).await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "client left before its connection was upgraded"),
        };
        match transport {
            Transport::Spdy => streams::run(io, destination).await,
            Transport::WebSocket => {
                let socket = websocket::accept(io).await;
                if tunnels {
                    streams::run(websocket::Tunnel::new(socket), destination).await;
                } else {
                    channels::run(socket, Coding::of(&protocol), &ports, &destination).await;
                }
            }
        }
    });
    Ok(answer)
}

impl Destination {
    /// A connection, or why there is none in words for the client.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        dial::connect(self.netns.as_deref(), port).await.map_err(|problem| {
            let message = format!("error forwarding port {port} to pod {}, uid {}: {problem}", self.name, self.uid);
            tracing::debug!(message);
            message
        })
    }
}

fn destination(view: &PodView) -> Result<Destination, Refusal> {
    let host = view.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let runs = view.containers.values().any(|container| container.pid.is_some());
    if !runs || (!host && view.netns.is_none()) {
        let name = format!("{}_{}", view.id.name, view.id.namespace);
        return Err(Refusal::internal(format!("pod not found ({name:?})")));
    }
    Ok(Destination { name: view.id.name.clone(), uid: view.id.uid.clone(), netns: view.netns.clone() })
}
