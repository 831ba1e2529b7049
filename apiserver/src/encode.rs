//! Answers in the form the client accepts: JSON or YAML, plain or pretty, the object itself, a Table, or metadata only
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`). Forms are chosen once per request, before anything is done.

mod accept;
mod compress;
mod forms;
mod list;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use api::catalogue::Resource;
use api::status::Status;

use crate::body::{self, Body};

pub use accept::{Form, IncludeObject, Media, Shape, takes_object};
pub use compress::{GZIP_BYTES_MIN, gzipped};
pub use forms::{Forms, partial_metadata};
pub use list::{ItemSource, ListBody, ListHead};

/// JSON as upstream prints it: kind and apiVersion first, then metadata, a newline at the end.
pub fn json_bytes(value: &Value, pretty: bool) -> Vec<u8> {
    let ordered = Ordered(value);
    let mut out = Vec::with_capacity(1024);
    let written = if pretty {
        serde_json::to_writer_pretty(&mut out, &ordered)
    } else {
        serde_json::to_writer(&mut out, &ordered)
    };
    written.expect("JSON values have string keys, and a Vec takes every write");
    if !pretty {
        out.push(b'\n');
    }
    out
}

/// An object whose type and metadata come before its other fields.
struct Ordered<'a>(&'a Value);

const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];

impl serde::Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What follows metadata in a Status; other objects have these fields in the order of their names.
        const STATUS: [&str; 5] = ["status", "message", "reason", "details", "code"];
        let Value::Object(map) = self.0 else { return self.0.serialize(serializer) };
        let rest: &[&str] = if map.get("kind").is_some_and(|kind| kind == "Status") { &STATUS } else { &[] };
        let leads = |key: &str| FIRST.contains(&key) || rest.contains(&key);
        let first = FIRST.iter().chain(rest).filter_map(|key| map.get_key_value(*key));
        let others = map.iter().filter(|(key, _)| !leads(key));
        serializer.collect_map(first.chain(others).map(|(key, value)| (key, Metadata { key, value })))
    }
}

/// A field's value; of `metadata`, with the name first.
struct Metadata<'a> {
    key: &'a str,
    value: &'a Value,
}

impl serde::Serialize for Metadata<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FIRST: [&str; 5] = ["name", "generateName", "namespace", "uid", "resourceVersion"];
        match self.value {
            Value::Object(map) if self.key == "metadata" => {
                let first = FIRST.iter().filter_map(|key| map.get_key_value(*key));
                let others = map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
                serializer.collect_map(first.chain(others))
            }
            other => other.serialize(serializer),
        }
    }
}

/// The bytes of `value` in a media type.
pub fn bytes(value: &Value, media: Media, pretty: bool) -> Result<Vec<u8>, Status> {
    match media {
        Media::Json => Ok(json_bytes(value, pretty)),
        Media::Yaml => {
            let text =
                serde_yaml::to_string(&Ordered(value)).map_err(|e| Status::internal(format!("write YAML: {e}")))?;
            Ok(text.into_bytes())
        }
    }
}

/// An answer with a body that is complete already.
pub fn response(code: StatusCode, media: Media, bytes: impl Into<Bytes>, form: &Form) -> Response<Body> {
    let bytes = bytes.into();
    if form.gzip && bytes.len() >= GZIP_BYTES_MIN {
        return compress::gzipped(base(code, media), body::full(bytes));
    }
    base(code, media).map(|()| body::full(bytes))
}

/// Status line and headers common to all answers.
pub fn base(code: StatusCode, media: Media) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A value that is no object of a served resource (a Status, a review, discovery) in the accepted media type.
pub fn plain(code: StatusCode, value: &Value, form: &Form) -> Result<Response<Body>, Status> {
    Ok(response(code, form.media, bytes(value, form.media, form.pretty)?, form))
}

/// One object in the accepted form.
pub fn object(code: StatusCode, value: &Value, resource: &Resource, form: &Form) -> Result<Response<Body>, Status> {
    let forms = Forms::new(resource, form)?;
    match forms.of_object(value) {
        Some(converted) => plain(code, &converted, form),
        None => plain(code, value, form),
    }
}

/// Objects that are not from the cache as a list in the accepted form.
pub fn object_list(items: Vec<Value>, resource: &Resource, form: &Form) -> Result<Response<Body>, Status> {
    let forms = Forms::new(resource, form)?;
    let metadata = serde_json::json!({"resourceVersion": ""});
    if let Some(converted) = forms.of_list(items.iter().cloned(), metadata.clone()) {
        return plain(StatusCode::OK, &converted, form);
    }
    let items: Vec<Value> = items.into_iter().map(|item| list_item(item, resource.custom)).collect();
    let list = serde_json::json!({
        "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items,
    });
    plain(StatusCode::OK, &list, form)
}

/// Items of built-in lists carry no type of their own.
pub fn list_item(mut object: Value, custom: bool) -> Value {
    if let (Some(map), false) = (object.as_object_mut(), custom) {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// Adds one `Warning` header per text, as `199` code, shortened as upstream does where they are too long together.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    /// Upstream's `maxWarningsTotal` per response: beyond it texts are cut.
    const TOTAL_BYTES_MAX: usize = 4 * 1024;
    const TEXT_BYTES_MAX: usize = 256;
    let total: usize = warnings.iter().map(String::len).sum();
    let mut written = 0;
    let mut seen: Vec<&str> = Vec::new();
    for text in warnings {
        if seen.contains(&text.as_str()) {
            continue;
        }
        seen.push(text);
        let cut = if total > TOTAL_BYTES_MAX { crate::request::cut(text, TEXT_BYTES_MAX).len() } else { text.len() };
        written += cut;
        if written > TOTAL_BYTES_MAX {
            break;
        }
        let quoted: String = text[..cut]
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, header);
        }
    }
}
