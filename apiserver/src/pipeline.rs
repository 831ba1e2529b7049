//! The one way of every request: parse, authenticate, authorize, then the row that answers it.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Request, Response, header};

use api::selector::FieldSelector;
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
    let info = match parse(&parts, &query) {
        Ok(info) => info,
        Err(failure) => return status::response(&failure, &form),
    };
    let (seen, began) = (info.clone(), Instant::now());
    let under_way = server.requests.begin(&seen);
    let response = match run(Arc::clone(&server), info, parts, query, body, peer).await {
        Ok(response) => response,
        Err(failure) => status::response(&failure, &form),
    };
    drop(under_way);
    server.requests.observe(&server.catalogue.load(), &seen, response.status().as_u16(), began.elapsed());
    response
}

fn parse(parts: &Parts, query: &Query) -> Result<RequestInfo, Status> {
    let uri_bytes = parts.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        let message = format!("request path and query are {uri_bytes} bytes, the limit is {URI_BYTES_MAX}");
        return Err(Status::new(414, "", message));
    }
    RequestInfo::parse(&parts.method, parts.uri.path(), query)
}

async fn run(
    server: Arc<Server>,
    info: RequestInfo,
    mut parts: Parts,
    query: Query,
    body: Body,
    peer: Peer,
) -> Result<Response<Body>, Status> {
    let user = server.authenticator.authenticate(&server, &parts, &peer).await?.user;
    parts.headers.remove(header::AUTHORIZATION);
    let user = impersonate(&server, user, &info, &mut parts)?;
    let call = Call { info, parts, query, user, peer };
    let mut asked = Attributes::of(&call.user, &call.info);
    asked.field_selector = call.query.get("fieldSelector").unwrap_or_default();
    let selected = selected_name(&asked);
    if let Some(name) = &selected {
        asked.name = name;
    }
    server.authorizer.authorize(&server, &asked)?;
    dispatch(server, call, body).await
}

/// The one object a list, watch or collection delete is restricted to by its field selector: a rule for that name covers
/// it (upstream's `RequestInfoFactory`).
fn selected_name(asked: &Attributes<'_>) -> Option<String> {
    let collection = matches!(asked.verb, "list" | "watch" | "deletecollection");
    if !collection || !asked.name.is_empty() || asked.field_selector.is_empty() {
        return None;
    }
    let selector = FieldSelector::parse(asked.field_selector).ok()?;
    selector.required_value("metadata.name").map(str::to_owned)
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
