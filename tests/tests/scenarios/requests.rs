//! Requests of the one who commands, on objects as values, whatever their kind.

use api::catalogue::Resource;
use api_client::Client;
use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::Value;

/// `/apis/apps/v1/namespaces/default/deployments/web/scale`; an empty name is the collection.
pub fn path(resource: &Resource, namespace: &str, name: &str, subresource: &str) -> String {
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let mut path = format!("{root}/{}", resource.version);
    if resource.namespaced() {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    for part in [resource.plural.as_str(), name, subresource].into_iter().filter(|p| !p.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    path
}

pub async fn send(
    client: &Client,
    method: Method,
    path: &str,
    kind: &str,
    body: &Value,
) -> Result<Value, api_client::Error> {
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
    let request = request.header(header::ACCEPT, "application/json").body(bytes).expect("the parts are valid");
    let answer = client.call(request).await?;
    Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
}

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
