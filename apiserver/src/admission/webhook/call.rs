//! One call of a webhook: HTTPS to a URL or to an endpoint of a Service, within its time.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{self, REQUEST_BYTES_MAX};
use crate::nodeproxy;
use crate::server::Server;

/// Seconds a webhook has if it does not say.
const TIMEOUT_SECONDS_DEFAULT: u64 = 10;
const PORT_DEFAULT: u16 = 443;

/// Where a call goes.
struct Destination {
    /// Connected to.
    host: String,
    port: u16,
    /// What its certificate must be for, and the Host header.
    name: String,
    authority: String,
    path: String,
    /// As messages show it.
    url: String,
}

/// Sends a review and returns the answer. Errors have the words of Go's client.
pub async fn post(server: &Server, spec: &Value, review: &Value) -> Result<Value, String> {
    let seconds = spec["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS_DEFAULT);
    let shown = shown_url(&spec["clientConfig"]);
    let query = if shown.contains('?') { '&' } else { '?' };
    let failed = |why: String| format!("Post \"{shown}{query}timeout={seconds}s\": {why}");
    let to = destination(server, &spec["clientConfig"]).map_err(failed)?;
    let connector = connector(server, &spec["clientConfig"]).map_err(failed)?;
    let call = send(server, &to, connector, seconds, review);
    match tokio::time::timeout(Duration::from_secs(seconds), call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Problem::Answer(why))) => Err(why),
        Ok(Err(Problem::Connection(why))) => Err(failed(why)),
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
    }
}

enum Problem {
    Connection(String),
    /// The webhook answered, but not with a review.
    Answer(String),
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn service_port(service: &Value) -> u16 {
    service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT_DEFAULT)
}

fn shown_url(client: &Value) -> String {
    let service = &client["service"];
    if !service.is_object() {
        return text(client, "url").to_owned();
    }
    let path = text(service, "path");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    format!("https://{}.{}.svc:{}{path}", text(service, "name"), text(service, "namespace"), service_port(service))
}

fn destination(server: &Server, client: &Value) -> Result<Destination, String> {
    let url = shown_url(client);
    let parsed: http::Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
    let authority = parsed.authority().map(ToString::to_string).unwrap_or_default();
    let name = parsed.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let path = parsed.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let (host, port, name) = match client["service"].as_object() {
        None => (name.clone(), parsed.port_u16().unwrap_or(PORT_DEFAULT), name),
        Some(_) => {
            let service = &client["service"];
            let (namespace, of) = (text(service, "namespace"), text(service, "name"));
            let (host, port) = nodeproxy::service_endpoint(server, namespace, of, service_port(service))?;
            (host, port, format!("{of}.{namespace}.svc"))
        }
    };
    Ok(Destination { host, port, name, authority, path, url })
}

/// Trusts the stated authority; without one, the cluster's.
fn connector(server: &Server, client: &Value) -> Result<TlsConnector, String> {
    let bundle = text(client, "caBundle");
    let roots = if bundle.is_empty() {
        tls::root(server.identity.authority.certificate().clone())
    } else {
        let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
        tls::roots(&pem)
    };
    let config = roots.and_then(tls::server_verifier).and_then(|verifier| tls::client_config(verifier, None));
    config.map(|config| Arc::new(config).into()).map_err(|error| format!("caBundle: {error}"))
}

async fn send(
    server: &Server,
    to: &Destination,
    connector: TlsConnector,
    seconds: u64,
    review: &Value,
) -> Result<Value, Problem> {
    let connection = |why: &dyn std::fmt::Display| Problem::Connection(why.to_string());
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
    let stream = stream.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => error.to_string(),
        };
        Problem::Connection(format!("dial tcp {}:{}: {why}", to.host, to.port))
    })?;
    stream.set_nodelay(true).map_err(|error| connection(&error))?;
    let name = ServerName::try_from(to.name.clone()).map_err(|error| connection(&error))?;
    let stream = connector.connect(name, stream).await.map_err(|error| connection(&error))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| connection(&error))?;
    let driver = server.tasks.spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "the connection to a webhook ended");
        }
    });
    let query = if to.path.contains('?') { '&' } else { '?' };
    let request = Request::post(format!("{}{query}timeout={seconds}s", to.path))
        .header("host", &to.authority)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("user-agent", "kube-apiserver-admission")
        .body(body::full(review.to_string()))
        .map_err(|error| connection(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| connection(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), REQUEST_BYTES_MAX).collect().await;
        let body = body.map_err(|error| connection(&error))?.to_bytes();
        if !code.is_success() {
            return Err(Problem::Answer(format!("the server answered {code} for {}", to.url)));
        }
        serde_json::from_slice(&body).map_err(|error| Problem::Answer(format!("couldn't read the answer: {error}")))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
