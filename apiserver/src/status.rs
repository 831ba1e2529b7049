//! From any error of this crate to the `Status` on the wire. The only module that turns failures into HTTP answers.

use http::{HeaderValue, Response, StatusCode, header};

use api::status::Status;

use crate::body::{self, Body};

/// The JSON answer for a failure.
pub fn response(status: &Status) -> Response<Body> {
    let mut response = Response::new(body::full(status.to_json().to_string() + "\n"));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}
