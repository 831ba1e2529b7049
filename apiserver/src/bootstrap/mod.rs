//! What a cluster has before anybody asks: system namespaces, default roles, priority classes, flow schemas, the
//! `kubernetes` Service with its endpoints, and the request-header configuration.
//!
//! Everything goes through the one pipeline as `system:apiserver`, so nothing here can write what a client could not.
//! A start that finds everything in place writes nothing. Safe to stop anywhere and to run on several servers at once.

mod aggregation;
pub mod data;
mod kubernetes_service;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use api::meta;

use crate::body;
use crate::health::Hook;
use crate::pipeline;
use crate::server::Server;
use crate::user::{GROUP_MASTERS, Peer, User};

use data::Wanted;
pub use kubernetes_service::host_address;

/// Writes under way at once. The store commits them in groups, so many cost little more than one.
const CONCURRENT_MAX: usize = 64;
/// Pause before everything is tried again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{method} {path}: {code} {message}")]
    Refused { method: Method, path: String, code: u16, message: String },
    #[error("{method} {path}: reading the answer failed: {detail}")]
    Answer { method: Method, path: String, detail: String },
}

/// The identity of the server itself towards its own pipeline; upstream's loopback client.
pub fn identity() -> User {
    User::new("system:apiserver", &[GROUP_MASTERS])
}

/// Brings everything in place, trying until it is or the server stops.
pub async fn run(server: Arc<Server>) {
    loop {
        match everything(&server).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "creating the objects of a new cluster failed; trying again"),
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn everything(server: &Arc<Server>) -> Result<(), Error> {
    let namespaces = NAMESPACES.map(|name| Wanted {
        group: "",
        resource: "namespaces",
        object: json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
    });
    create_missing(server, namespaces.to_vec()).await?;
    server.readiness.done(Hook::SystemNamespaces);
    let rbac = async {
        create_missing(server, data::rbac()).await?;
        aggregation::aggregate(server).await?;
        server.readiness.done(Hook::RbacBootstrapRoles);
        Ok::<(), Error>(())
    };
    let classes = async {
        create_missing(server, data::priority_classes()).await?;
        server.readiness.done(Hook::PriorityClasses);
        Ok::<(), Error>(())
    };
    let flow = async {
        create_missing(server, data::flow()).await?;
        server.readiness.done(Hook::FlowConfiguration);
        Ok::<(), Error>(())
    };
    let service = kubernetes_service::reconcile(server);
    let mut configuration = vec![request_header_configuration(server), service_range(server)];
    configuration.extend(told_to_nodes(server));
    let configuration = create_missing(server, configuration);
    let (rbac, classes, flow, service, configuration) = tokio::join!(rbac, classes, flow, service, configuration);
    rbac.and(classes).and(flow).and(service).and(configuration)
}

/// What extension servers read to know whom to believe.
fn request_header_configuration(server: &Server) -> Wanted {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "namespace": "kube-system", "name": "extension-apiserver-authentication" },
        "data": { "client-ca-file": server.identity.authority.certificate_pem() },
    });
    Wanted { group: "", resource: "configmaps", object }
}

/// The range of Service addresses as an object, for those who look it up.
fn service_range(server: &Server) -> Wanted {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": [server.options.service_cidr] },
    });
    Wanted { group: "networking.k8s.io", resource: "servicecidrs", object }
}

/// The range of pods, the DNS domain and the like. Who may read it: the Role `keelson:cluster-settings`.
fn told_to_nodes(server: &Server) -> Option<Wanted> {
    let data = &server.options.told_to_nodes;
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "namespace": "kube-system", "name": "keelson-cluster" },
        "data": data,
    });
    (!data.is_empty()).then_some(Wanted { group: "", resource: "configmaps", object })
}

/// Creates what is not there and updates what lacks something.
async fn create_missing(server: &Arc<Server>, wanted: Vec<Wanted>) -> Result<(), Error> {
    let mut results = stream::iter(wanted.into_iter().map(|w| ensure(server, w))).buffer_unordered(CONCURRENT_MAX);
    let mut outcome = Ok(());
    while let Some(result) = results.next().await {
        outcome = outcome.and(result);
    }
    outcome
}

async fn ensure(server: &Arc<Server>, wanted: Wanted) -> Result<(), Error> {
    let key = meta::key(&wanted.object);
    let collection = path(server, &wanted, &key.namespace);
    let Some(found) = find(server, wanted.group, wanted.resource, &key.to_string()) else {
        return match send(server, Method::POST, &collection, Some(&wanted.object)).await {
            // Another server was faster.
            Err(Error::Refused { code: 409, .. }) => Ok(()),
            other => other.map(|_| ()),
        };
    };
    match plan::update(&wanted.object, &found) {
        None => Ok(()),
        Some(next) => match send(server, Method::PUT, &format!("{collection}/{}", key.name), Some(&next)).await {
            Err(Error::Refused { code: 409, .. }) => Ok(()),
            other => other.map(|_| ()),
        },
    }
}

/// Replaces an object as `system:apiserver`. For parts of the server that write on their own behalf.
pub(crate) async fn put(server: &Server, path: &str, object: &Value) -> Result<(), Error> {
    let Some(server) = server.itself.upgrade() else {
        let detail = "the server is stopping".to_owned();
        return Err(Error::Answer { method: Method::PUT, path: path.to_owned(), detail });
    };
    // Boxed: the pipeline leads to admission, and admission here.
    Box::pin(send(&server, Method::PUT, path, Some(object))).await.map(drop)
}

/// The object as the cache has it.
fn find(server: &Server, group: &str, resource: &str, key: &str) -> Option<Value> {
    let (_, cache) = server.resource(group, resource)?;
    cache.snapshot().get(key).map(|item| item.value())
}

fn path(server: &Server, wanted: &Wanted, namespace: &str) -> String {
    let version =
        server.resource(wanted.group, wanted.resource).map_or("v1".to_owned(), |(row, _)| row.version.clone());
    let root = if wanted.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", wanted.group) };
    let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    format!("{root}/{version}{scope}/{}", wanted.resource)
}

/// One request to ourselves.
pub(crate) async fn send(
    server: &Arc<Server>,
    method: Method,
    path: &str,
    object: Option<&Value>,
) -> Result<Value, Error> {
    let text = object.map(Value::to_string).unwrap_or_default();
    let mut request = Request::new(body::full(Bytes::from(text)));
    *request.method_mut() = method.clone();
    *request.uri_mut() = path.parse().expect("made of names that are valid in a path");
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static("keelson-apiserver"));
    let response = pipeline::serve(Arc::clone(server), request, Peer::Component(identity())).await;
    let (parts, body) = response.into_parts();
    let answer = |detail: String| Error::Answer { method: method.clone(), path: path.to_owned(), detail };
    let bytes = body.collect().await.map_err(|e| answer(e.to_string()))?.to_bytes();
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| answer(e.to_string()))?;
    if parts.status.is_success() {
        return Ok(value);
    }
    let message = value["message"].as_str().unwrap_or_default().to_owned();
    Err(Error::Refused { method, path: path.to_owned(), code: parts.status.as_u16(), message })
}
