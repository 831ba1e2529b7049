//! The registry protocol (OCI distribution, docker's registry v2) as far as pulling needs it: a session with one server
//! for one repository. What is asked for is sent as often as it takes to authenticate; everything else that fails is the
//! caller's to try again.
//!
//! Nothing here knows containerd or pods.

mod challenge;
mod token;
pub mod transport;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::sync::Mutex;

use super::{
    credentials::Credential,
    hosts::{Endpoint, is_loopback},
};
use challenge::Challenge;
use transport::Connector;

/// From the request to the head of the answer. Registries behind object stores may look for long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A body that gives nothing for this long is broken.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A blob is often an object store away, and that one another.
const REDIRECTS_MAX: usize = 10;
/// Manifests and indexes; registries refuse larger ones.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Error documents and tokens.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Read from a connection at once. Bounds what a download holds in memory.
const READ_BYTES_MAX: usize = 256 << 10;

pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("TLS for {server}")]
    Tls { server: String, source: transport::Error },
    #[error("address {address:?}")]
    Address { address: String, source: http::Error },
    #[error("{header} of {server} can't be sent")]
    Header { server: String, header: String },
    #[error("failed to do request: {method} {url:?}")]
    Connect { method: Method, url: String, source: hyper_util::client::legacy::Error },
    #[error("failed to do request: {method} {url:?}: no answer within {} seconds", ANSWER_TIMEOUT.as_secs())]
    Timeout { method: Method, url: String },
    #[error("unexpected status from {method} request to {url}: {status}{detail}")]
    Status { method: Method, url: String, status: StatusCode, detail: String, retry_after: Option<Duration> },
    #[error("{what}: not found")]
    NotFound { what: String },
    #[error("pull access denied, repository does not exist or may require authorization: {problem}")]
    Denied { problem: String },
    #[error("read {url:?}")]
    Body { url: String, source: hyper::Error },
    #[error("read {url:?}: nothing came for {} seconds", STALL_TIMEOUT.as_secs())]
    Stalled { url: String },
    #[error("{url:?} is larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
    #[error("more than {REDIRECTS_MAX} redirects from {url:?}")]
    Redirects { url: String },
    #[error("answer of {url:?}: {problem}")]
    Answer { url: String, problem: String },
}

impl Error {
    /// Other credentials may be let in.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Denied { .. })
    }
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
    /// The registry says that it can't serve anybody now.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Status { status, .. } if status.is_server_error())
    }
    /// The same request may be answered later.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Timeout { .. } | Error::Body { .. } | Error::Stalled { .. } => true,
            Error::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }
    /// How long the registry wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

type HttpClient = hyper_util::client::legacy::Client<Connector, Empty<Bytes>>;

/// What a manifest request tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Missing where a registry does not tell it.
    pub digest: Option<String>,
    pub media_type: String,
    pub size: Option<u64>,
}

/// A blob on its way.
pub struct Download {
    pub body: Incoming,
    /// Where in the blob the body begins: not where it was asked to, with a server that knows no ranges.
    pub offset: u64,
    pub url: String,
}

/// How requests to the repository are authorized, learned from the server's first refusal.
#[derive(Clone, Default)]
enum Authorization {
    #[default]
    None,
    Sent(HeaderValue),
}

/// One server, one repository, one credential. Cheap to share; connections are kept while it lives.
pub struct Session {
    endpoint: Endpoint,
    repository: String,
    credential: Option<Credential>,
    http: HttpClient,
    authorization: Mutex<Authorization>,
}

impl Session {
    /// `credential` is for the image's registry. A mirror gets it too, as from containerd, but not in plain text, unless
    /// it is on this host.
    pub fn new(endpoint: Endpoint, repository: &str, credential: Option<Credential>) -> Result<Self, Error> {
        let connector = Connector::new(&endpoint.tls, endpoint.dial_timeout)
            .map_err(|source| Error::Tls { server: endpoint.authority.clone(), source })?;
        let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .http1_max_buf_size(READ_BYTES_MAX)
            .build(connector);
        let is_loopback = is_loopback(host(&endpoint.authority));
        let is_exposed = endpoint.namespace.is_some() && endpoint.scheme == "http" && !is_loopback;
        Ok(Self {
            credential: credential.filter(|_| !is_exposed),
            endpoint,
            repository: repository.to_owned(),
            http,
            authorization: Mutex::default(),
        })
    }

    /// What a reference means here, for errors.
    fn what(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        let registry = self.endpoint.namespace.as_deref().unwrap_or(&self.endpoint.authority);
        format!("{registry}/{}{separator}{reference}", self.repository)
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn url(&self, kind: &str, reference: &str) -> String {
        let Endpoint { scheme, authority, path, namespace, .. } = &self.endpoint;
        let query = namespace.as_ref().map(|of| format!("?ns={of}")).unwrap_or_default();
        format!("{scheme}://{authority}{path}/{}/{kind}/{reference}{query}", self.repository)
    }

    /// Asks what a tag or digest names, without fetching it.
    pub async fn head(&self, reference: &str) -> Result<Head, Error> {
        let url = self.url("manifests", reference);
        Ok(head_of(self.ask(Method::HEAD, &url, &self.what(reference), None).await?.headers()))
    }

    /// A manifest or index, whole.
    pub async fn manifest(&self, reference: &str) -> Result<(Head, Bytes), Error> {
        let url = self.url("manifests", reference);
        let answer = self.ask(Method::GET, &url, &self.what(reference), None).await?;
        let head = head_of(answer.headers());
        Ok((head, collect(answer.into_body(), &url, MANIFEST_BYTES_MAX).await?))
    }

    /// A blob from `offset` on.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<Download, Error> {
        let url = self.url("blobs", digest);
        let answer = self.ask(Method::GET, &url, &self.what(digest), (offset > 0).then_some(offset)).await?;
        let begins = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_start(answer.headers()).unwrap_or(offset),
            _ => 0,
        };
        Ok(Download { body: answer.into_body(), offset: begins, url })
    }

    /// Sends, authenticates if asked to, and turns refusals into errors.
    async fn ask(&self, method: Method, url: &str, what: &str, from: Option<u64>) -> Result<Response<Incoming>, Error> {
        let sent = self.authorization.lock().await.clone();
        let answer = self.follow(&method, url, from, &sent).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return check(answer, &method, url, what).await;
        }
        let fresh = self.authorize(answer.headers(), sent).await?;
        let answer = self.follow(&method, url, from, &fresh).await?;
        check(answer, &method, url, what).await
    }

    /// What to send after a refusal. Requests that were refused together authenticate once.
    async fn authorize(&self, refusal: &HeaderMap, refused: Authorization) -> Result<Authorization, Error> {
        let mut current = self.authorization.lock().await;
        match (&*current, refused) {
            (Authorization::Sent(now), Authorization::Sent(before)) if *now == before => {}
            (Authorization::None, _) => {}
            _ => return Ok(current.clone()),
        }
        let challenges = challenge::parse_all(refusal);
        let value = if let Some(Challenge::Bearer(bearer)) = challenges.iter().find(|one| one.is_bearer()) {
            self.token(bearer).await?
        } else if challenges.iter().any(|one| matches!(one, Challenge::Basic)) {
            let Some(credential) = &self.credential else {
                let problem = "authorization failed: no basic auth credentials".to_owned();
                return Err(Error::Denied { problem });
            };
            if matches!(*current, Authorization::Sent(_)) {
                return Err(Error::Denied { problem: "authorization failed".to_owned() });
            }
            token::basic(credential)
        } else {
            return Err(Error::Denied { problem: "authorization failed: no way of it is offered".to_owned() });
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Header {
            server: self.endpoint.authority.clone(),
            header: "authorization".to_owned(),
        })?;
        value.set_sensitive(true);
        *current = Authorization::Sent(value);
        Ok(current.clone())
    }

    /// One request, through redirects. Only the registry itself sees the authorization, never where it redirects to.
    async fn follow(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        authorization: &Authorization,
    ) -> Result<Response<Incoming>, Error> {
        let mut target = url.to_owned();
        let mut own = true;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::builder().method(method).uri(&target);
            if own {
                for (name, value) in &self.endpoint.headers {
                    request = request.header(name, value);
                }
                if let Authorization::Sent(value) = authorization {
                    request = request.header(header::AUTHORIZATION, value);
                }
                if url.contains("/manifests/") {
                    request = request.header(header::ACCEPT, MANIFEST_TYPES.join(", "));
                }
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let answer = self.send(request, method, &target).await?;
            let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| answer.status().is_redirection()) else { return Ok(answer) };
            let next = resolve(&target, location)
                .ok_or_else(|| Error::Answer { url: target.clone(), problem: format!("redirect to {location:?}") })?;
            own = own && origin(&target) == origin(&next);
            target = next;
        }
        Err(Error::Redirects { url: url.to_owned() })
    }

    async fn send(
        &self,
        request: http::request::Builder,
        method: &Method,
        url: &str,
    ) -> Result<Response<Incoming>, Error> {
        let request = request
            .header(header::USER_AGENT, concat!("keelson/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|source| Error::Address { address: url.to_owned(), source })?;
        let failed = |source| Error::Connect { method: method.clone(), url: url.to_owned(), source };
        match tokio::time::timeout(ANSWER_TIMEOUT, self.http.request(request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(Error::Timeout { method: method.clone(), url: url.to_owned() }),
        }
    }
}

fn head_of(headers: &HeaderMap) -> Head {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let media_type = text("content-type").unwrap_or_default();
    Head {
        digest: text("docker-content-digest").map(str::to_owned),
        media_type: media_type.split(';').next().unwrap_or_default().trim().to_owned(),
        size: text("content-length").and_then(|length| length.parse().ok()),
    }
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

async fn check(
    answer: Response<Incoming>,
    method: &Method,
    url: &str,
    what: &str,
) -> Result<Response<Incoming>, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // The answer to HEAD has no body; of others what can't be read is left out.
    let document = collect(answer.into_body(), url, DOCUMENT_BYTES_MAX).await.unwrap_or_default();
    let told = token::told(&document);
    Err(match status {
        StatusCode::NOT_FOUND => Error::NotFound { what: what.to_owned() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let problem = match told {
                Some(told) => format!("server message: {told}"),
                None => format!("authorization failed: {status}"),
            };
            Error::Denied { problem }
        }
        _ => Error::Status {
            method: method.clone(),
            url: url.to_owned(),
            status,
            detail: told.map(|told| format!(": {told}")).unwrap_or_default(),
            retry_after: retry_after.map(Duration::from_secs),
        },
    })
}

async fn collect(body: Incoming, url: &str, limit: usize) -> Result<Bytes, Error> {
    let mut collected = Vec::new();
    let mut body = body;
    while let Some(data) = next(&mut body, url).await? {
        if collected.len() + data.len() > limit {
            return Err(Error::TooLarge { url: url.to_owned(), limit });
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.into())
}

/// The next piece of a body, `None` at its end.
pub async fn next(body: &mut Incoming, url: &str) -> Result<Option<Bytes>, Error> {
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, body.frame()).await {
            Err(_) => return Err(Error::Stalled { url: url.to_owned() }),
            Ok(None) => return Ok(None),
            Ok(Some(Err(source))) => return Err(Error::Body { url: url.to_owned(), source }),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.to_string()))
}

/// Without the port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// A `Location`, absolute or relative to what answered with it.
fn resolve(base: &str, location: &str) -> Option<String> {
    if let Some((scheme, _)) = location.split_once("://") {
        return matches!(scheme, "http" | "https").then(|| location.to_owned());
    }
    let (scheme, authority) = origin(base)?;
    location.starts_with('/').then(|| format!("{scheme}://{authority}{location}"))
}

#[cfg(test)]
mod tests;
