//! A plain answer as WebSocket messages, for browsers that can read a stream in no other way: what upstream's
//! `wsstream.Reader` does with logs. What the client sends is read for the end of the connection and dropped.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use api::status::Status;

use super::tunnel::TOKEN_PROTOCOL;
use crate::body::{self, Body};
use crate::server::Server;

/// Nothing that a client sends is kept, and nothing of use is this large.
const RECEIVED_BYTES_MAX: usize = 64 << 10;
/// Of a handshake's key, decoded (RFC 6455).
const KEY_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Binary,
    Base64,
}

impl Coding {
    fn message(self, data: Bytes) -> Message {
        match self {
            Self::Binary => Message::Binary(data),
            Self::Base64 => Message::text(STANDARD.encode(data)),
        }
    }
}

/// The switch to WebSocket that a client's headers ask for: how data is put into messages, and the answer's headers.
pub fn negotiate(headers: &HeaderMap) -> Result<(Coding, HeaderMap), Status> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    if STANDARD.decode(key).unwrap_or_default().len() != KEY_BYTES {
        return Err(Status::bad_request("the WebSocket handshake has no valid Sec-WebSocket-Key"));
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered = offered.flat_map(|value| value.split(',')).map(str::trim);
    let offered: Vec<&str> = offered.filter(|name| !name.starts_with(TOKEN_PROTOCOL)).collect();
    let known = |name: &&str| match *name {
        "binary.k8s.io" => Some((Coding::Binary, "binary.k8s.io")),
        "base64.binary.k8s.io" => Some((Coding::Base64, "base64.binary.k8s.io")),
        _ => None,
    };
    let chosen = offered.iter().find_map(known);
    if chosen.is_none() && !offered.is_empty() {
        return Err(Status::bad_request(format!(
            "none of the WebSocket protocols {offered:?} is known; binary.k8s.io and base64.binary.k8s.io are"
        )));
    }
    let mut answer = HeaderMap::new();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let Some((coding, name)) = chosen else { return Ok((Coding::Binary, answer)) };
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok((coding, answer))
}

/// Switches the client's connection to WebSocket and sends the body over it, until either ends or the server stops.
pub fn answer(
    server: &Arc<Server>,
    client: OnUpgrade,
    (coding, headers): (Coding, HeaderMap),
    body: Body,
) -> Response<Body> {
    let shutdown = server.shutdown.clone();
    server.tasks.spawn(async move {
        let sent = async {
            let client = TokioIo::new(client.await.map_err(std::io::Error::other)?);
            let config = WebSocketConfig::default()
                .max_message_size(Some(RECEIVED_BYTES_MAX))
                .max_frame_size(Some(RECEIVED_BYTES_MAX));
            send(WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await, coding, body).await
        };
        tokio::select! {
            sent = sent => if let Err(error) = sent {
                tracing::debug!(%error, "a stream of messages ended");
            },
            () = shutdown.cancelled() => {}
        }
    });
    let mut switched = Response::new(body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = headers;
    switched
}

async fn send<S>(socket: WebSocketStream<S>, coding: Coding, mut body: Body) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => if let Ok(data) = frame.into_data() {
                    sink.send(coding.message(data)).await?;
                },
                Some(Err(error)) => return Err(std::io::Error::other(error).into()),
                None => return sink.close().await,
            },
            received = source.next() => match received {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::{Coding, negotiate};

    fn check(headers: &[(&'static str, &'static str)], expected: Result<(Coding, Option<&str>), &str>) {
        let pairs = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let asked: HeaderMap = pairs.collect();
        let negotiated = negotiate(&asked);
        let told = negotiated.as_ref().map_err(|status| status.message.as_str());
        let told = told.map(|(coding, answer)| {
            (*coding, answer.get("sec-websocket-protocol").and_then(|value| value.to_str().ok()))
        });
        assert_eq!(told, expected, "{headers:?}");
    }

    #[test]
    fn the_first_protocol_that_is_known_is_spoken() {
        // The key of the example in RFC 6455.
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        check(&[key], Ok((Coding::Binary, None)));
        let token = "base64url.bearer.authorization.k8s.io.c2VjcmV0";
        check(&[key, ("sec-websocket-protocol", token)], Ok((Coding::Binary, None)));
        check(
            &[key, ("sec-websocket-protocol", "x, base64.binary.k8s.io, binary.k8s.io")],
            Ok((Coding::Base64, Some("base64.binary.k8s.io"))),
        );
        check(
            &[key, ("sec-websocket-protocol", "v5.channel.k8s.io")],
            Err(
                "none of the WebSocket protocols [\"v5.channel.k8s.io\"] is known; binary.k8s.io and base64.binary.k8s.io are",
            ),
        );
        check(&[("sec-websocket-key", "short")], Err("the WebSocket handshake has no valid Sec-WebSocket-Key"));
    }
}
