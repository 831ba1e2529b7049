//! The one way of every request: parse, authenticate, authorize, then the row that answers it.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, header};

use api::status::Status;

use crate::authn::impersonation;
use crate::authz::Attributes;
use crate::body::Body;
use crate::encode::Form;
use crate::request::{Call, Query, RequestInfo, URI_BYTES_MAX};
use crate::server::Server;
use crate::user::{Peer, User};
use crate::{discovery, endpoint, special, status, verbs};

/// Answers one request; never fails: every error is a `Status`.
pub async fn serve(server: Arc<Server>, request: Request<Body>, peer: Peer) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let form = Form::plain(&parts.headers, &query);
    match run(server, parts, query, body, peer).await {
        Ok(response) => response,
        Err(failure) => status::response(&failure, &form),
    }
}

async fn run(
    server: Arc<Server>,
    mut parts: Parts,
    query: Query,
    body: Body,
    peer: Peer,
) -> Result<Response<Body>, Status> {
    let uri_bytes = parts.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        let message = format!("request path and query are {uri_bytes} bytes, the limit is {URI_BYTES_MAX}");
        return Err(Status::new(414, "", message));
    }
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query)?;
    let user = server.authenticator.authenticate(&server, &parts, &peer).await?.user;
    parts.headers.remove(header::AUTHORIZATION);
    let user = impersonate(&server, user, &info, &mut parts)?;
    let call = Call { info, parts, query, user, peer };
    let mut asked = Attributes::of(&call.user, &call.info);
    asked.field_selector = call.query.get("fieldSelector").unwrap_or_default();
    server.authorizer.authorize(&server, &asked)?;
    dispatch(server, call, body).await
}

/// The user the request acts as. The headers that say so go no further.
fn impersonate(server: &Server, user: User, info: &RequestInfo, parts: &mut Parts) -> Result<User, Status> {
    let Some(wanted) = impersonation::wanted(&parts.headers)? else { return Ok(user) };
    let acting = impersonation::act_as(server, &server.authenticator.modes, &wanted, &Attributes::of(&user, info))?;
    impersonation::strip(&mut parts.headers);
    Ok(acting)
}

async fn dispatch(server: Arc<Server>, call: Call, body: Body) -> Result<Response<Body>, Status> {
    if !call.info.resource_request {
        let Some(row) = endpoint::find(&call.info.path) else { return Ok(discovery::not_found()) };
        return (row.handler)(server, call, body).await;
    }
    if let Some(row) = special::find(&call.info) {
        return (row.handler)(server, call, body).await;
    }
    verbs::serve(server, call, body).await
}
