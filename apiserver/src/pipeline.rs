//! The one way of every request: parse, authenticate, authorize, then the row that answers it.

use std::sync::Arc;

use http::{Request, Response};

use api::status::Status;

use crate::authz::{Attributes, Decision};
use crate::body::Body;
use crate::request::{Call, Query, RequestInfo, URI_BYTES_MAX};
use crate::server::Server;
use crate::user::Peer;
use crate::{endpoint, special, status};

/// Answers one request; never fails: every error is a `Status`.
pub async fn serve(server: Arc<Server>, request: Request<Body>, peer: Peer) -> Response<Body> {
    match run(server, request, peer).await {
        Ok(response) => response,
        Err(failure) => status::response(&failure),
    }
}

async fn run(server: Arc<Server>, request: Request<Body>, peer: Peer) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let uri_bytes = parts.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        return Err(Status::new(
            414,
            "",
            format!("request path and query are {uri_bytes} bytes, the limit is {URI_BYTES_MAX}"),
        ));
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query)?;
    let user = server.authenticator.authenticate(&server, &parts, &peer).await?.user;
    let call = Call { info, parts, query, user, peer };
    let attributes = Attributes::of(&call.user, &call.info);
    if let Decision::Deny(why) = server.authorizer.authorize(&server, &attributes).await {
        return Err(Status::forbidden(&call.info.group, &call.info.resource, &call.info.name, why));
    }
    dispatch(server, call, body).await
}

async fn dispatch(server: Arc<Server>, call: Call, body: Body) -> Result<Response<Body>, Status> {
    if !call.info.resource_request {
        let row = endpoint::find(&call.info.path).ok_or_else(Status::no_such_path)?;
        return (row.handler)(server, call, body).await;
    }
    if let Some(row) = special::find(&call.info) {
        return (row.handler)(server, call, body).await;
    }
    Err(Status::no_such_path())
}
