//! Starts a server in milliseconds and sends it requests as an administrator.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store_client::memory::Memory;

use crate::{ApiServer, Body, Options, Peer, User, body};

pub struct Rig {
    pub server: ApiServer,
    _dir: tempfile::TempDir,
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON: {:?}", self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()
    }
    #[track_caller]
    pub fn refused(self, code: u16, reason: &str) -> Value {
        let status = self.expect(code);
        assert_eq!(status["reason"].as_str().unwrap_or_default(), reason, "{status}");
        status
    }
}

impl Rig {
    /// A server with a namespace `ns` that has its default service account.
    pub async fn start() -> Self {
        let rig = Self::on(Memory::new()).await;
        rig.post("/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await.expect(201);
        rig.post("/api/v1/namespaces/ns/serviceaccounts", json!({"metadata": {"name": "default"}})).await.expect(201);
        rig
    }

    /// A server on what an earlier one left.
    pub async fn on(store: Memory) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { data_dir: dir.path().to_owned(), ..Options::default() };
        let server = ApiServer::start(options, Arc::new(store)).await.unwrap();
        Self { server, _dir: dir }
    }

    pub async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.server.call(request, Peer::Component(User::new("admin", &["system:masters"]))).await
    }

    /// Sends JSON as some other user, after the default roles are in place.
    pub async fn call_as(&self, user: &User, method: &str, path: &str, body: Value) -> Answer {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body::full(text)).unwrap();
        let (parts, body) = self.server.call(request, Peer::Component(user.clone())).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("user-agent", "rig/1");
        let request = match content_type {
            "" => request,
            kind => request.header("content-type", kind),
        };
        self.answer(request.body(body::full(body)).unwrap()).await
    }

    pub async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.answer(Request::get(path).header("accept", accept).body(body::empty()).unwrap()).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, "application/json", body.to_string()).await
    }
    pub async fn post_as(&self, path: &str, accept: &str, body: Value) -> Answer {
        let request = Request::post(path).header("accept", accept).header("content-type", "application/json");
        self.answer(request.body(body::full(body.to_string())).unwrap()).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, "application/json", body.to_string()).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "", "").await
    }
    pub async fn merge(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, "application/merge-patch+json", body.to_string()).await
    }
    pub async fn apply(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, "application/apply-patch+yaml", body.to_string()).await
    }

    /// A ConfigMap in `ns`.
    pub async fn config_map(&self, name: &str) -> Value {
        let body = json!({"metadata": {"name": name}, "data": {"k": "v"}});
        self.post("/api/v1/namespaces/ns/configmaps", body).await.expect(201)
    }
}

/// The definition of a kind `Thing` (`things.example.com`) whose spec has this schema.
pub fn things(spec: Value) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    })
}
