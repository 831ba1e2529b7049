//! The one way out: a request to a response. Two implementations: over the network, and straight into an API server
//! in this process.

mod connector;
mod in_process;
mod remote;
#[cfg(test)]
mod tests;
mod tls;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

pub use self::tls::{AcceptAny, Identity, Pem, Tls};
use crate::Error;
pub use crate::error::BoxError;
pub use in_process::InProcess;
pub use remote::{Config, Credentials, Remote};

/// A response body as it arrives. The same type the API server answers with, so the in-process transport copies
/// nothing.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Sends one request and gives the response when its head is there; the body streams.
#[async_trait]
pub trait Transport: Send + Sync {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error>;
}
