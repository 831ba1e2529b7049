//! Discovery: which groups, versions and resources there are, from the catalogue's rows. Plain documents per level, and
//! the aggregated document (`apidiscovery.k8s.io/v2`) that answers everything at once, with an ETag.

mod accept;
mod aggregated;
mod plain;

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use api::catalogue::Catalogue;
use api::status::Status;

use crate::body::{self, Body};
use crate::endpoint::{Answer, Endpoint, Match};
use crate::request::Call;
use crate::server::Server;

use accept::Form;

pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/api", matching: Match::Below, handler: |server, call, _| answer(server, call) },
    Endpoint { path: "/apis", matching: Match::Below, handler: |server, call, _| answer(server, call) },
    Endpoint { path: "/", matching: Match::Exact, handler: |server, call, _| root(server, call) },
];

fn answer(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let catalogue = server.catalogue.load_full();
        let accepted = call.parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let segments: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
        let form = accept::negotiate(accepted, segments.len() == 1)?;
        if let Form::Aggregated { version } = form {
            return Ok(aggregated(&catalogue, segments[0] == "api", version, &call));
        }
        match plain::document(&catalogue, &segments, &server_address(&server, &call)) {
            Some(document) => write(&document, form),
            None if segments[0] == "apis" && catalogue.group(segments.get(1).unwrap_or(&"")).is_none() => {
                Ok(not_found())
            }
            None => Err(Status::no_such_path()),
        }
    })
}

/// Discovery and other documents can only be read.
pub fn only_reads(method: &Method) -> Result<(), Status> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(()) } else { Err(Status::method_not_allowed()) }
}

/// What upstream's mux answers for a path nobody has.
pub fn not_found() -> Response<Body> {
    let mut response = Response::new(body::full("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn write(document: &Value, form: Form) -> Result<Response<Body>, Status> {
    let (bytes, kind) = match form {
        Form::Yaml => {
            let text = serde_yaml::to_string(document).map_err(|e| Status::internal(format!("write YAML: {e}")))?;
            (text.into_bytes(), "application/yaml")
        }
        _ => (format!("{document}\n").into_bytes(), "application/json"),
    };
    let mut response = Response::new(body::full(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn aggregated(catalogue: &Catalogue, core: bool, version: &'static str, call: &Call) -> Response<Body> {
    let bytes = format!("{}\n", aggregated::document(catalogue, core, version)).into_bytes();
    let tag: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = call.parts.headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if known { body::empty() } else { body::full(bytes) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let headers = response.headers_mut();
    for (name, value) in [(header::CONTENT_TYPE, kind.as_str()), (header::ETAG, &tag), (header::VARY, "Accept")] {
        headers.insert(name, HeaderValue::from_str(value).expect("made of visible ASCII above"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

/// The address under which the caller reached us, as legacy `/api` tells it.
fn server_address(server: &Server, call: &Call) -> String {
    let host = call.parts.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host.or_else(|| call.parts.uri.authority().map(|a| a.as_str()));
    host.map_or_else(|| server.options.bind.to_string(), str::to_owned)
}

/// `/`: every path there is.
fn root(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let catalogue = server.catalogue.load_full();
        let mut paths: Vec<String> =
            ["/.well-known/openid-configuration", "/api", "/apis", "/metrics", "/metrics/slis"]
                .into_iter()
                .chain(["/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"])
                .map(str::to_owned)
                .collect();
        for group in catalogue.groups() {
            let root = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            paths.extend(group.versions.iter().map(|version| format!("{root}/{version}")));
            paths.extend(catalogue_versions(&group.name, &group.versions));
            paths.push(root);
        }
        paths.extend(crate::health::paths());
        paths.sort();
        paths.dedup();
        write(&json!({ "paths": paths }), Form::Json)
    })
}

fn catalogue_versions(group: &str, versions: &[String]) -> Vec<String> {
    let below = |version: &String| match group {
        "" => format!("/openapi/v3/api/{version}"),
        group => format!("/openapi/v3/apis/{group}/{version}"),
    };
    versions.iter().map(below).collect()
}
