//! From any error of this crate to the `Status` on the wire. The only module that turns failures into HTTP answers.

use http::{HeaderValue, Response, StatusCode, header};

use serde_json::Value;

use api::status::{Cause, Details, Status};

use crate::body::Body;
use crate::encode::{self, Form, Media, Shape};

/// The answer for a failure, in the accepted media type.
pub fn response(status: &Status, form: &Form) -> Response<Body> {
    response_of(status, &status.to_json(), form)
}

/// The answer for a failure whose wire form was amended.
pub fn response_of(status: &Status, value: &Value, form: &Form) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let plain = Form { shape: Shape::Object, gzip: false, ..form.clone() };
    let mut response = encode::plain(code, value, &plain).unwrap_or_else(|_| {
        let bytes = encode::json_bytes(value, false);
        encode::response(code, Media::Json, bytes, &plain)
    });
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// A store failure that says nothing about one object. Conflicts are handled where the object is known.
pub fn from_store(error: &store_client::Error) -> Status {
    use store_client::Error;
    match error {
        Error::Compacted { .. } => Status::expired(
            "The resourceVersion for the provided list is too old; list again without it and continue from there.",
        ),
        Error::Future { requested, current } => resource_version_too_large(requested.get(), current.get()),
        Error::TooLarge { .. } => Status::too_large(error.to_string()),
        Error::Full { .. } => {
            let help = "reads go on, and writes as soon as there is room: free space where the store lies \
                        (the server's data directory), or with etcd compact, defragment and disarm its alarm";
            Status::new(507, "InsufficientStorage", format!("{error}; {help}"))
        }
        Error::Unavailable { .. } => Status::service_unavailable(error.to_string()),
        other => Status::internal(other),
    }
}

/// 504: the server has not reached a revision the client asked for; upstream's `NewTooLargeResourceVersionError`.
pub fn resource_version_too_large(requested: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    Status { details: Some(Box::new(details)), ..Status::timeout(message) }
}
