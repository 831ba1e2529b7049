//! Which protocol a client wants to speak after the upgrade of its connection.

use base64::Engine;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};

use super::answer::{Answer, Refusal, full};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Of a WebSocket's key, decoded (RFC 6455).
const KEY_BYTES: usize = 16;

/// A negotiated protocol and the answer that switches to it.
pub struct Upgrade {
    pub transport: Transport,
    /// Empty when a WebSocket client named none.
    pub protocol: String,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Spdy,
}

/// What is offered on each transport, best first.
pub struct Offer<'a> {
    pub websocket: &'a [&'a str],
    /// May a WebSocket client name no subprotocol?
    pub unnamed: bool,
    pub spdy: &'a [&'a str],
}

pub fn negotiate<B>(request: &Request<B>, offer: &Offer) -> Result<Upgrade, Box<Answer>> {
    let headers = request.headers();
    let upgrade = header(headers, &UPGRADE).to_ascii_lowercase();
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wants_upgrade = connection.into_iter().any(|value| value.to_ascii_lowercase().contains("upgrade"));
    if wants_upgrade && upgrade == "websocket" {
        websocket(headers, offer)
    } else if wants_upgrade && upgrade.contains(&SPDY.to_ascii_lowercase()) {
        spdy(headers, offer)
    } else {
        Err(Box::new(Refusal::bad_request("Upgrade request required").answer()))
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The words of all values of a header, in the client's order.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn websocket(headers: &HeaderMap, offer: &Offer) -> Result<Upgrade, Box<Answer>> {
    let refuse = |message: String| Err(Box::new(Refusal::bad_request(message).answer()));
    let key = header(headers, &SEC_WEBSOCKET_KEY);
    let decoded = base64::engine::general_purpose::STANDARD.decode(key).unwrap_or_default();
    if decoded.len() != KEY_BYTES {
        return refuse("unable to upgrade: the request has no valid Sec-WebSocket-Key".to_owned());
    }
    let asked = words(headers, &SEC_WEBSOCKET_PROTOCOL);
    let chosen = asked.iter().find(|word| offer.websocket.contains(word));
    if chosen.is_none() && !(asked.is_empty() && offer.unnamed) {
        return refuse(format!(
            "unable to upgrade: requested protocol(s) are not supported: {asked:?}; supports {:?}",
            offer.websocket
        ));
    }
    let protocol = chosen.copied().unwrap_or_default().to_owned();
    let mut answer = switching("websocket");
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    for (name, value) in [(SEC_WEBSOCKET_ACCEPT, &accept), (SEC_WEBSOCKET_PROTOCOL, &protocol)] {
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            answer.headers_mut().insert(name, value);
        }
    }
    Ok(Upgrade { transport: Transport::WebSocket, protocol, answer })
}

/// As upstream's `httpstream.Handshake`: the client's first version that we have.
fn spdy(headers: &HeaderMap, offer: &Offer) -> Result<Upgrade, Box<Answer>> {
    let asked = words(headers, &PROTOCOL_VERSION);
    if asked.is_empty() {
        let message = format!("unable to upgrade: header {PROTOCOL_VERSION} does not exist in request");
        return Err(Box::new(Refusal::bad_request(message).answer()));
    }
    let Some(chosen) = asked.iter().find(|word| offer.spdy.contains(word)) else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts {:?}",
            offer.spdy
        );
        let mut answer = Refusal::new(StatusCode::FORBIDDEN, message).answer();
        for protocol in offer.spdy {
            if let Ok(value) = HeaderValue::from_str(protocol) {
                answer.headers_mut().append(ACCEPTED_VERSIONS, value);
            }
        }
        return Err(Box::new(answer));
    };
    let mut answer = switching(SPDY);
    if let Ok(value) = HeaderValue::from_str(chosen) {
        answer.headers_mut().insert(PROTOCOL_VERSION, value);
    }
    Ok(Upgrade { transport: Transport::Spdy, protocol: (*chosen).to_owned(), answer })
}

fn switching(to: &'static str) -> Answer {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{Offer, Transport, negotiate};

    const OFFER: Offer<'_> = Offer { websocket: &["v5.x", "v4.x"], unnamed: true, spdy: &["v4.x", "v3.x"] };

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let base = Request::builder().header("connection", "keep-alive, Upgrade");
        headers.iter().fold(base, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    fn outcome(headers: &[(&str, &str)]) -> Result<(Transport, String), u16> {
        match negotiate(&request(headers), &OFFER) {
            Ok(upgrade) => Ok((upgrade.transport, upgrade.protocol)),
            Err(answer) => Err(answer.status().as_u16()),
        }
    }

    #[test]
    fn the_clients_first_known_protocol_is_chosen() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let websocket = ("upgrade", "WebSocket");
        let asked = ("sec-websocket-protocol", "v9.x, v4.x, v5.x");
        assert_eq!(outcome(&[websocket, key, asked]), Ok((Transport::WebSocket, "v4.x".to_owned())));
        assert_eq!(outcome(&[websocket, key]), Ok((Transport::WebSocket, String::new())));
        assert_eq!(outcome(&[websocket, key, ("sec-websocket-protocol", "v9.x")]), Err(400));
        assert_eq!(outcome(&[websocket, asked]), Err(400));
        let spdy = ("upgrade", "SPDY/3.1");
        let versions = ("x-stream-protocol-version", "v9.x");
        let known = ("x-stream-protocol-version", "v3.x");
        assert_eq!(outcome(&[spdy, versions, known]), Ok((Transport::Spdy, "v3.x".to_owned())));
        assert_eq!(outcome(&[spdy, versions]), Err(403));
        assert_eq!(outcome(&[spdy]), Err(400));
        assert_eq!(outcome(&[("upgrade", "h2c")]), Err(400));
    }

    #[test]
    fn the_accept_key_is_the_one_of_the_standard() {
        let headers = [("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let upgrade = negotiate(&request(&headers), &OFFER).unwrap_or_else(|_| panic!("negotiates"));
        assert_eq!(upgrade.answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
