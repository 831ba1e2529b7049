//! One way for what is read and another for what is written: a component that shares what it reads writes as itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};

use super::{Body, Transport};
use crate::Error;

/// Sends GET requests by `reads`, all others by `writes`.
pub struct Split {
    pub reads: Arc<dyn Transport>,
    pub writes: Arc<dyn Transport>,
}

#[async_trait]
impl Transport for Split {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let way = if request.method() == Method::GET { &self.reads } else { &self.writes };
        way.send(request).await
    }
}
