//! Passing a request on: headers less what concerns only this hop, and after a `101` the bytes of both directions.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use api::status::Status;

use super::connection::{Error, Protection};
use crate::authz::Attributes;
use crate::body::{Body, BoxError};
use crate::request::Call;
use crate::server::Server;

/// Headers that end at each hop (RFC 9110), and those that carry the caller's credentials.
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Carries a browser's bearer token; says nothing about what is spoken.
pub const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Where a request goes.
pub struct Destination {
    pub host: String,
    pub port: u16,
    pub protection: Protection,
    /// Path and query, escaped.
    pub target: String,
}

/// Whether the client wants to leave HTTP on this connection.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let says = connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    says && headers.contains_key(header::UPGRADE)
}

pub fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    wants_upgrade(headers) && upgrade.eq_ignore_ascii_case("websocket")
}

/// The client's connection, once it is told that HTTP ends on it.
pub fn client(call: &mut Call) -> Result<OnUpgrade, Status> {
    let client = call.parts.extensions.remove::<OnUpgrade>();
    client.ok_or_else(|| Status::bad_request("this connection cannot be upgraded; use HTTP/1.1"))
}

/// A WebSocket handshake is a GET, whatever it will do; so it needs the right that a POST would need
/// (upstream's `AuthorizePodWebsocketUpgradeCreatePermission`).
pub fn check_websocket(server: &Server, call: &Call) -> Result<(), Status> {
    if call.parts.method != Method::GET || !wants_websocket(&call.parts.headers) {
        return Ok(());
    }
    let asked = Attributes { verb: "create", ..Attributes::of(&call.user, &call.info) };
    server.authorizer.authorize(server, &asked)
}

/// Passes the request on and the answer back; a `101` becomes a tunnel.
pub async fn forward(
    server: &Arc<Server>,
    mut call: Call,
    body: Body,
    to: &Destination,
) -> Result<Response<Body>, Status> {
    let upgrades = wants_upgrade(&call.parts.headers);
    let client = if upgrades { Some(client(&mut call)?) } else { None };
    let request = outgoing(&call.parts, body, to, upgrades)?;
    let sent = server.nodes.send(server, (&to.host, to.port), to.protection, request).await;
    let mut response = sent.map_err(|error| unreachable(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Status::internal("the backend switched protocols without being asked"));
        };
        let backend = hyper::upgrade::on(&mut response);
        join(server, client, backend);
        let (parts, _) = response.into_parts();
        let mut switched = Response::new(crate::body::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = parts.headers;
        return Ok(switched);
    }
    Ok(incoming(response))
}

/// What upstream's `UpgradeAwareHandler` says when it cannot reach the backend.
fn unreachable(error: &Error) -> Status {
    Status::new(500, "", format!("error dialing backend: {error}"))
}

fn outgoing(parts: &Parts, body: Body, to: &Destination, upgrades: bool) -> Result<Request<Body>, Status> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = to.target.parse().map_err(|_| Status::bad_request("the path cannot be passed on"))?;
    let headers = request.headers_mut();
    for (name, value) in parts.headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(name)) {
        if *name == header::SEC_WEBSOCKET_PROTOCOL {
            if let Some(value) = without_token(value) {
                headers.append(name, value);
            }
        } else if !matches!(*name, header::HOST | header::AUTHORIZATION) && !name.as_str().starts_with("impersonate-") {
            headers.append(name, value.clone());
        }
    }
    let host =
        if to.host.contains(':') { format!("[{}]:{}", to.host, to.port) } else { format!("{}:{}", to.host, to.port) };
    let host = HeaderValue::from_str(&host).map_err(|_| Status::bad_request("the host cannot be passed on"))?;
    headers.insert(header::HOST, host);
    if upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        for value in parts.headers.get_all(header::UPGRADE) {
            headers.append(header::UPGRADE, value.clone());
        }
    }
    Ok(request)
}

/// The protocols a browser offers, less the one that is its bearer token.
fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let kept: Vec<&str> = text.split(',').map(str::trim).filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
    if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join(", ")).ok() }
}

/// The answer with its body as it comes.
pub fn incoming(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(parts, body.map_err(|error| Box::new(error) as BoxError).boxed_unsync())
}

/// Copies bytes between the two ends until one closes or the server stops.
fn join(server: &Arc<Server>, client: OnUpgrade, backend: OnUpgrade) {
    let shutdown = server.shutdown.clone();
    server.tasks.spawn(async move {
        let copy = async {
            let (client, backend) = tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        };
        tokio::select! {
            copied = copy => if let Err(error) = copied {
                tracing::debug!(%error, "a tunnel ended");
            },
            () = shutdown.cancelled() => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> Destination {
        Destination { host: "fd00::1".into(), port: 10250, protection: Protection::Node, target: "/exec/ns/p/c".into() }
    }

    #[test]
    fn credentials_and_hop_headers_stay_here() {
        let request = Request::get("/x")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "root")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "k")
            .header("sec-websocket-protocol", format!("{TOKEN_PROTOCOL}c2VjcmV0, v5.channel.k8s.io"))
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        assert!(wants_upgrade(&parts.headers));
        let sent = outgoing(&parts, crate::body::empty(), &destination(), true).unwrap();
        let headers = sent.headers();
        assert_eq!(headers["host"], "[fd00::1]:10250");
        assert_eq!(
            (&headers["upgrade"], &headers["connection"]),
            (&"websocket".parse().unwrap(), &"Upgrade".parse().unwrap())
        );
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(headers["sec-websocket-key"], "k");
        assert!(!headers.contains_key("authorization") && !headers.contains_key("impersonate-user"));
        let plain = outgoing(&parts, crate::body::empty(), &destination(), false).unwrap();
        assert!(!plain.headers().contains_key("upgrade"));
    }
}
