//! The client: a transport plus a user agent. Cheap to clone; everything else of this crate is built on
//! [`Client::send`] and [`Client::call`].

use std::sync::Arc;
use std::time::Duration;

use ::api::status::{Details, Status};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::decode::decode;
use crate::request::{self, Form};
use crate::transport::Body;
use crate::{Api, Error, GroupVersionResource, Object, PartialObject, Transport};

/// How long a response that is read whole may pause between two pieces.
const RESPONSE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Largest response read into memory (a page of a list is far smaller). Beyond it the request fails.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: HeaderValue,
}

impl Client {
    /// `user_agent` names the component, such as `keelson-scheduler/0.1`; servers derive the field manager from it.
    pub fn new(transport: Arc<dyn Transport>, user_agent: &str) -> Self {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("keelson"));
        Self { transport, user_agent }
    }

    /// The same connection under another name.
    pub fn with_user_agent(&self, user_agent: &str) -> Self {
        Self::new(self.transport.clone(), user_agent)
    }

    /// Requests for one type, in full form.
    pub fn api<T: Object>(&self) -> Api<T> {
        Api::new(self.clone(), GroupVersionResource::of::<T>(), Form::Full)
    }

    /// Metadata-only requests for a resource known at run time.
    pub fn metadata_api(&self, gvr: GroupVersionResource) -> Api<PartialObject> {
        self.metadata_api_of(gvr)
    }

    /// Like [`Client::metadata_api`], decoded as a projection of the metadata.
    pub fn metadata_api_of<T: Object>(&self, gvr: GroupVersionResource) -> Api<T> {
        Api::new(self.clone(), gvr, Form::Metadata)
    }

    /// Requests for a resource known at run time, decoded as `T`.
    pub fn api_at<T: Object>(&self, gvr: GroupVersionResource) -> Api<T> {
        Api::new(self.clone(), gvr, Form::Full)
    }

    /// Sends one request; the answer may be a failure, its body streams.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Body>, Error> {
        request.headers_mut().insert(header::USER_AGENT, self.user_agent.clone());
        self.transport.send(request).await
    }

    /// Like [`Client::send`], but an answer other than 2xx is [`Error::Status`].
    pub async fn open(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let attempted = format!("{} {}", request.method(), request.uri());
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = read(response, &attempted).await?;
        Err(Error::Status(decode_status(code, &body, &attempted)))
    }

    /// Sends one request and reads the whole answer.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Bytes, Error> {
        let attempted = format!("{} {}", request.method(), request.uri());
        let response = self.open(request).await?;
        read(response, &attempted).await
    }

    /// GET of any path, as it comes.
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, Error> {
        self.call(request::get(path.to_owned(), Form::Full)?).await
    }

    /// GET of any path, decoded.
    pub async fn get_path<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let body = self.call(request::get(path.to_owned(), Form::Full)?).await?;
        decode(&body).map_err(|source| Error::Decode { attempted: format!("GET {path}"), source })
    }
}

async fn read(response: Response<Body>, attempted: &str) -> Result<Bytes, Error> {
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(RESPONSE_PAUSE_MAX, body.frame()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => return Err(Error::Limit { attempted: attempted.to_owned(), limit: "RESPONSE_PAUSE_MAX" }),
        };
        let frame = frame.map_err(|source| Error::Transport { attempted: attempted.to_owned(), source })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > RESPONSE_BYTES_MAX {
            return Err(Error::Limit { attempted: attempted.to_owned(), limit: "RESPONSE_BYTES_MAX" });
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct WireStatus {
    kind: String,
    code: u16,
    reason: String,
    message: String,
    details: Option<Box<Details>>,
}

/// The failure a server answered with. A body that is no `Status` (a proxy, an overloaded server) becomes the message.
pub(crate) fn decode_status(code: u16, body: &[u8], attempted: &str) -> Status {
    match serde_json::from_slice::<WireStatus>(body) {
        Ok(wire) if wire.kind == "Status" => Status {
            code: if wire.code == 0 { code } else { wire.code },
            reason: wire.reason,
            message: wire.message,
            details: wire.details,
        },
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned();
            let reason = match code {
                401 => "Unauthorized",
                403 => "Forbidden",
                404 => "NotFound",
                409 => "Conflict",
                410 => "Expired",
                429 => "TooManyRequests",
                503 => "ServiceUnavailable",
                504 => "Timeout",
                500.. => "InternalError",
                _ => "",
            };
            Status::new(code, reason, format!("{attempted}: {code}: {text}"))
        }
    }
}
