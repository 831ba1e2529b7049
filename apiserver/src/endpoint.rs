//! Paths that name no resource: discovery, OpenAPI, health, version, metrics. One row per path; the pipeline
//! authenticates and authorizes (by path) before it calls the row.

use std::pin::Pin;
use std::sync::Arc;

use http::Response;

use api::status::Status;

use crate::body::Body;
use crate::request::Call;
use crate::server::Server;
use crate::{discovery, health, metrics, openapi, openid, version};

/// What a row's handler returns.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;
pub type Handler = fn(Arc<Server>, Call, Body) -> Answer;

/// How a row's path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Exact,
    /// The path itself and everything below it.
    Below,
}

pub struct Endpoint {
    pub path: &'static str,
    pub matching: Match,
    pub handler: Handler,
}

/// All rows; the first that matches answers.
pub static ENDPOINTS: &[&[Endpoint]] = &[
    health::ENDPOINTS,
    version::ENDPOINTS,
    discovery::ENDPOINTS,
    openapi::ENDPOINTS,
    openid::ENDPOINTS,
    metrics::ENDPOINTS,
];

/// The row for `path`.
pub fn find(path: &str) -> Option<&'static Endpoint> {
    let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    ENDPOINTS.iter().copied().flatten().find(|row| match row.matching {
        Match::Exact => row.path == trimmed,
        Match::Below => trimmed.strip_prefix(row.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    })
}
