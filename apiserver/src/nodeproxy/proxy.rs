//! `proxy` of nodes, pods and Services: any HTTP request, passed to where the object says.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use rand::RngExt;
use serde_json::Value;

use api::status::Status;

use super::connection::Protection;
use super::find;
use super::links::{self, Place};
use super::location::{self, Named};
use super::tunnel::{self, Destination};
use crate::body::{self, Body};
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;

pub fn node(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let Some(target) = target(&call) else { return Ok(with_slash(&call)) };
        let named = named(&call)?;
        let node = find(&server, "nodes", "", named.name).await?;
        let (host, own_port) = location::node_address(&node)?;
        let to = match named.port {
            // With a port it is any server on the node, not the node's own API.
            port if !port.is_empty() && port != own_port.to_string() => {
                let port = number(port)?;
                Destination { host, port, protection: protection(named.https), target }
            }
            _ => Destination { host, port: own_port, protection: Protection::Node, target },
        };
        through(&server, call, body, &to).await
    })
}

pub fn pod(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let Some(target) = target(&call) else { return Ok(with_slash(&call)) };
        let named = named(&call)?;
        let pod = find(&server, "pods", &call.info.namespace, named.name).await?;
        let to = pod_destination(&pod, &named, target)?;
        through(&server, call, body, &to).await
    })
}

fn pod_destination(pod: &Value, named: &Named<'_>, target: String) -> Result<Destination, Status> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = match named.port {
        "" => match ports.next().and_then(|port| port["containerPort"].as_u64()) {
            Some(port) => u16::try_from(port).unwrap_or(80),
            None => 80,
        },
        port => number(port)?,
    };
    let host = pod["status"]["podIP"].as_str().unwrap_or_default();
    if host.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(Destination { host: host.to_owned(), port, protection: protection(named.https), target })
}

pub fn service(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let Some(target) = target(&call) else { return Ok(with_slash(&call)) };
        let named = named(&call)?;
        let namespace = &call.info.namespace;
        let service = find(&server, "services", namespace, named.name).await?;
        let port_name = service_port(&service, &named)?;
        let slices = slices(&server, namespace, named.name);
        let endpoints = ready(&slices, &port_name);
        if endpoints.is_empty() {
            let what = format!("no endpoints available for service {:?}", named.name);
            return Err(Status::service_unavailable(what));
        }
        let (host, port) = endpoints[rand::rng().random_range(0..endpoints.len())].clone();
        let to = Destination { host, port, protection: protection(named.https), target };
        through(&server, call, body, &to).await
    })
}

/// An endpoint behind a port of a Service, for calls of this server's own.
pub fn service_endpoint(server: &Server, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let key = format!("{namespace}/{name}");
    let found = server.resource("", "services").and_then(|(_, cache)| cache.snapshot().get(&key).map(|i| i.value()));
    let service = found.ok_or_else(|| format!("service {name:?} not found"))?;
    let text = port.to_string();
    let port_name =
        service_port(&service, &Named { https: true, name, port: &text }).map_err(|status| status.message)?;
    let endpoints = ready(&slices(server, namespace, name), &port_name);
    if endpoints.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    Ok(endpoints[rand::rng().random_range(0..endpoints.len())].clone())
}

/// The name of the Service port meant: by name or number, or the only one.
fn service_port(service: &Value, named: &Named<'_>) -> Result<String, Status> {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    let missing =
        || Status::service_unavailable(format!("no service port {:?} found for service {:?}", named.port, named.name));
    if named.port.is_empty() {
        return match ports {
            [only] => Ok(name(only)),
            _ => ports.iter().find(|port| name(port).is_empty()).map(name).ok_or_else(missing),
        };
    }
    let number = named.port.parse::<u64>().ok();
    let meant = |port: &&Value| name(port) == named.port || (number.is_some() && port["port"].as_u64() == number);
    ports.iter().find(meant).map(name).ok_or_else(missing)
}

fn slices(server: &Server, namespace: &str, service: &str) -> Vec<Value> {
    let Some((_, cache)) = server.resource("discovery.k8s.io", "endpointslices") else { return Vec::new() };
    let prefix = format!("{namespace}/");
    let snapshot = cache.snapshot();
    let own = snapshot.range(&prefix, "").filter(|(_, item)| item.label("kubernetes.io/service-name") == Some(service));
    own.map(|(_, item)| item.value()).collect()
}

/// Addresses and port of the ready endpoints behind a Service port. Pure.
fn ready(slices: &[Value], port_name: &str) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let mut ports = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = ports.find_map(|port| u16::try_from(port["port"].as_u64()?).ok()) else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            found.extend(addresses.filter_map(|a| Some((a.as_str()?.to_owned(), port))));
        }
    }
    found
}

fn protection(https: bool) -> Protection {
    if https { Protection::Unverified } else { Protection::None }
}

fn number(port: &str) -> Result<u16, Status> {
    let parsed = port.parse().ok().filter(|port| *port != 0);
    parsed.ok_or_else(|| Status::bad_request(format!("invalid port {port:?}")))
}

fn named(call: &Call) -> Result<Named<'_>, Status> {
    let invalid = || Status::bad_request(format!("invalid {} request {:?}", call.info.resource, call.info.name));
    location::named(&call.info.name).ok_or_else(invalid)
}

/// Passes the request on, and the answer back with links that lead this way.
async fn through(server: &Arc<Server>, call: Call, body: Body, to: &Destination) -> Result<Response<Body>, Status> {
    let path = to.target.split('?').next().unwrap_or_default();
    let asked = call.parts.uri.path();
    let prefix = asked.strip_suffix(path).unwrap_or(asked).to_owned();
    let place = Place { prefix, host: format!("{}:{}", to.host, to.port) };
    let response = tunnel::forward(server, call, body, to).await?;
    Ok(links::rewrite(response, &place).await)
}

/// The part of the request's path and query behind `…/proxy`, as the client escaped it; `None` for readers without even a
/// slash, who are sent to it. Others would come back with another method.
fn target(call: &Call) -> Option<String> {
    let path = call.parts.uri.path();
    // Before it: `api`, `v1`, the namespace if any, resource and name; the segments keep the count right whatever they
    // contain.
    let before = if call.info.namespace.is_empty() { 5 } else { 7 };
    let behind = path.trim_start_matches('/').splitn(before + 1, '/').nth(before);
    let reads = matches!(call.parts.method, Method::GET | Method::HEAD);
    let behind = behind.or((!reads).then_some(""))?;
    let query = call.parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
    Some(format!("/{behind}{query}"))
}

/// `…/proxy` itself redirects to `…/proxy/`, so that relative links work.
fn with_slash(call: &Call) -> Response<Body> {
    let query = call.parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", call.parts.uri.path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_lead_to_ready_endpoints() {
        let slice = json!({
            "ports": [{"name": "web", "port": 8080}, {"name": "", "port": 9}],
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}},
                          {"addresses": ["10.1.0.2"], "conditions": {"ready": false}},
                          {"addresses": ["10.1.0.3"]}],
        });
        let wanted = [("10.1.0.1".to_owned(), 8080), ("10.1.0.3".to_owned(), 8080)];
        assert_eq!(ready(std::slice::from_ref(&slice), "web"), wanted);
        assert!(ready(&[slice], "other").is_empty());
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "dbg", "port": 81}]}});
        let port = |text: &str| service_port(&service, &location::named(text).unwrap()).ok();
        assert_eq!((port("s:80"), port("s:dbg")), (Some("web".into()), Some("dbg".into())));
        assert_eq!((port("s:99"), port("s")), (None, None));
    }

    #[test]
    fn pods_answer_at_their_first_port() {
        let pod =
            json!({"spec": {"containers": [{"ports": [{"containerPort": 8080}]}]}, "status": {"podIP": "10.1.0.1"}});
        let to = |text: &str| pod_destination(&pod, &location::named(text).unwrap(), "/".into()).unwrap();
        assert_eq!((to("p").port, to("p:81").port), (8080, 81));
        assert_eq!(to("https:p:443").protection, Protection::Unverified);
        assert!(pod_destination(&json!({"spec": {}}), &location::named("p").unwrap(), "/".into()).is_err());
    }
}
