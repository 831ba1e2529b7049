//! `/openapi/v2` (JSON, and the protobuf that kubectl asks for) and `/openapi/v3` with one document per group version.
//! Documents are made when asked for and not kept: clients keep them by their hash and ask again with it.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use api::openapi;
use api::status::Status;

use crate::body::{self, Body};
use crate::discovery::{not_found, only_reads};
use crate::endpoint::{Answer, Endpoint, Match};
use crate::request::Call;
use crate::server::Server;

pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/openapi/v2", matching: Match::Exact, handler: |server, call, _| v2(server, call) },
    Endpoint { path: "/openapi/v3", matching: Match::Below, handler: |server, call, _| v3(server, call) },
];

const JSON: &str = "application/json";
/// The one valid spelling; kubectl asks for `@`, which [`openapi::V2_PROTOBUF_MEDIA_TYPE`] is.
const V2_PROTOBUF_DOTTED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const IMMUTABLE: &str = "public, immutable";

fn v2(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let kind = first(&call, &[JSON, openapi::V2_PROTOBUF_MEDIA_TYPE, V2_PROTOBUF_DOTTED])?;
        let catalogue = server.catalogue.load_full();
        let tag = openapi::v2_hash(&catalogue);
        if let Some(unchanged) = unchanged(&call, &tag) {
            return Ok(unchanged);
        }
        if kind == JSON {
            return Ok(document(openapi::v2_json(&catalogue), kind, &tag));
        }
        // The older spelling is asked for, but never answered with: `@` is no part of a media type.
        Ok(document(openapi::v2_protobuf(&catalogue), V2_PROTOBUF_DOTTED, &tag))
    })
}

fn v3(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let catalogue = server.catalogue.load_full();
        let path = call.info.path.trim_matches('/').strip_prefix("openapi/v3").unwrap_or_default();
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let (group, version) = match segments.as_slice() {
            [] => {
                first(&call, &[JSON])?;
                let index = openapi::v3_index(&catalogue).to_string();
                let tag = openapi::v2_hash(&catalogue);
                return Ok(unchanged(&call, &tag).unwrap_or_else(|| document(index.into_bytes(), JSON, &tag)));
            }
            ["api", version] => ("", *version),
            ["apis", group, version] => (*group, *version),
            _ => return Ok(not_found()),
        };
        first(&call, &[JSON])?;
        if catalogue.in_version(group, version).next().is_none() {
            return Ok(not_found());
        }
        let tag = openapi::v3_hash(&catalogue, group, version);
        let asked = call.query.get("hash");
        if asked.is_some_and(|hash| hash != tag) {
            return Ok(redirect(&format!("/openapi/v3/{}?hash={tag}", openapi::root_path(group, version))));
        }
        if let Some(unchanged) = unchanged(&call, &tag) {
            return Ok(unchanged);
        }
        let Some(bytes) = openapi::v3_json(&catalogue, group, version) else { return Ok(not_found()) };
        let mut response = document(bytes, JSON, &tag);
        if asked.is_some() {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
        }
        Ok(response)
    })
}

/// The first media type the client accepts among those there are; 406 when it accepts none.
fn first(call: &Call, offered: &[&'static str]) -> Result<&'static str, Status> {
    let accept = call.parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(offered[0]);
    }
    let ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    ranges
        .filter_map(|range| match range {
            "*/*" | "application/*" => Some(offered[0]),
            range => offered.iter().find(|kind| **kind == range).copied(),
        })
        .next()
        .ok_or_else(|| {
            Status::not_acceptable(format!("only the following media types are accepted: {}", offered.join(", ")))
        })
}

fn unchanged(call: &Call, tag: &str) -> Option<Response<Body>> {
    let known = call.parts.headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    if known.trim_matches('"') != tag {
        return None;
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(&mut response, tag);
    Some(response)
}

fn document(bytes: Vec<u8>, kind: &'static str, tag: &str) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    tagged(&mut response, tag);
    response
}

fn tagged(response: &mut Response<Body>, tag: &str) {
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("a hash is visible ASCII");
    response.headers_mut().insert(header::ETAG, tag);
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(to).expect("group, version and hash are visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}
