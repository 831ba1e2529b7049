//! Logs, exec, attach and port forwarding of a pod: the node that runs it answers.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use api::meta;
use api::status::Status;

use super::connection::Protection;
use super::tunnel::{self, Destination};
use super::{find, location, messages};
use crate::body::{self, Body};
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;

/// Of a node's refusal this much is passed on in the message.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub fn log(server: Arc<Server>, mut call: Call, _: Body) -> Answer {
    Box::pin(async move {
        if call.info.verb != "get" {
            return Err(Status::method_not_allowed());
        }
        let messages = match tunnel::wants_websocket(&call.parts.headers) {
            true => Some((messages::negotiate(&call.parts.headers)?, tunnel::client(&mut call)?)),
            false => None,
        };
        let query = location::log_query(&call.query)?;
        let pod = find(&server, "pods", &call.info.namespace, &call.info.name).await?;
        let container = location::container(&pod, call.query.get("container").unwrap_or_default())?;
        if node_name(&pod).is_empty() {
            // Nothing has run anywhere yet.
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let target = format!("/containerLogs/{}/{}/{container}?{query}", meta::namespace(&pod), meta::name(&pod));
        let to = on_node(&server, &pod, target).await?;
        let mut request = Request::new(body::empty());
        *request.uri_mut() = to.target.parse().map_err(|_| Status::bad_request("the path cannot be passed on"))?;
        if let Ok(host) = format!("{}:{}", to.host, to.port).parse() {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let sent = server.nodes.send(&server, (&to.host, to.port), to.protection, request).await;
        let response = sent.map_err(|error| {
            let url = format!("https://{}:{}{}", to.host, to.port, to.target);
            Status::new(500, "", format!("Get {url:?}: {error}"))
        })?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let response = tunnel::incoming(response);
        match messages {
            Some((switch, client)) => Ok(messages::answer(&server, client, switch, response.into_body())),
            None => Ok(response),
        }
    })
}

/// The node's own words as a Status (upstream's `GenericHttpResponseChecker`).
async fn refusal(response: Response<hyper::body::Incoming>) -> Status {
    let code = response.status().as_u16();
    let text = match Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(error) => format!("the node refused, and its reason could not be read: {error}"),
    };
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(404, "NotFound", format!("the server could not find the requested resource ({text})")),
        500 => Status::internal(text),
        code => Status::new(code, "", text),
    }
}

pub fn exec(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let query = location::stream_query(&call.query, true);
        stream(server, call, body, "exec", query).await
    })
}

pub fn attach(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let query = location::stream_query(&call.query, false);
        stream(server, call, body, "attach", query).await
    })
}

pub fn port_forward(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let query = location::port_query(&call.query)?;
        stream(server, call, body, "portForward", query).await
    })
}

async fn stream(
    server: Arc<Server>,
    call: Call,
    body: Body,
    what: &str,
    query: String,
) -> Result<Response<Body>, Status> {
    if !matches!(call.parts.method, Method::GET | Method::POST) {
        return Err(Status::method_not_allowed());
    }
    tunnel::check_websocket(&server, &call)?;
    let pod = find(&server, "pods", &call.info.namespace, &call.info.name).await?;
    let mut target = format!("/{what}/{}/{}", meta::namespace(&pod), meta::name(&pod));
    if what != "portForward" {
        target.push('/');
        target.push_str(location::container(&pod, call.query.get("container").unwrap_or_default())?);
    }
    if node_name(&pod).is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", meta::name(&pod))));
    }
    if !tunnel::wants_upgrade(&call.parts.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    if !query.is_empty() {
        target = format!("{target}?{query}");
    }
    let to = on_node(&server, &pod, target).await?;
    tunnel::forward(&server, call, body, &to).await
}

fn node_name(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

async fn on_node(server: &Arc<Server>, pod: &Value, target: String) -> Result<Destination, Status> {
    let node = find(server, "nodes", "", node_name(pod)).await?;
    let (host, port) = location::node_address(&node)?;
    Ok(Destination { host, port, protection: Protection::Node, target })
}
