//! What others need to check our service account tokens themselves: the OpenID provider's description and its keys.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::bootstrap::host_address;
use crate::discovery::only_reads;
use crate::endpoint::{Answer, Endpoint, Match};
use crate::request::Call;
use crate::server::Server;

const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/openid/v1/jwks";
/// How long others may keep the answer, in seconds, as upstream says it.
const CACHE: &str = "public, max-age=3600";

pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: CONFIGURATION_PATH,
        matching: Match::Exact,
        handler: |server, call, _| configuration(server, call),
    },
    Endpoint { path: KEYS_PATH, matching: Match::Exact, handler: |server, call, _| keys(server, call) },
];

fn configuration(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let address = server.options.advertise_address.unwrap_or_else(host_address);
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let document = json!({
            "issuer": server.authenticator.issuer().issuer(),
            "jwks_uri": format!("https://{host}:{}{KEYS_PATH}", server.options.bind.port()),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        Ok(write(&document, "application/json"))
    })
}

fn keys(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let document = json!({ "keys": [server.authenticator.issuer().jwk()] });
        Ok(write(&document, "application/jwk-set+json"))
    })
}

fn write(document: &Value, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body::full(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
    response
}
