//! Request and response bodies. Invariant: a request body is never held beyond its limit, whatever its length says.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Full};

use api::status::Status;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Largest body of a write (upstream's `MaxRequestBodyBytes`); a longer one is answered 413 unread.
pub const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `first`, then what comes of `rest`.
pub fn prepend(first: Bytes, rest: Body) -> Body {
    let first = futures_util::stream::once(async { Ok(http_body::Frame::data(first)) });
    http_body_util::StreamBody::new(first.chain(http_body_util::BodyStream::new(rest))).boxed_unsync()
}

/// A body that cannot be read.
pub fn failed(error: BoxError) -> Body {
    http_body_util::StreamBody::new(futures_util::stream::once(async { Err(error) })).boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads a request body of at most [`REQUEST_BYTES_MAX`] bytes.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let too_large = || Status::too_large(format!("limit is {REQUEST_BYTES_MAX}"));
    if http_body::Body::size_hint(&body).lower() > REQUEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("reading the request body failed: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > REQUEST_BYTES_MAX {
            return Err(too_large());
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}
