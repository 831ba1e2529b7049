//! Requests as values: paths, queries and bodies without I/O, so that each form is checked by a plain test.

use bytes::Bytes;
use http::{Method, Request, header};

use crate::{DeleteParams, Error, GroupVersionResource, ListParams, Patch, PatchParams, WatchParams};

/// How objects are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Full,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    fn accept_object(self) -> &'static str {
        match self {
            Self::Full => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }

    fn accept_list(self) -> &'static str {
        match self {
            Self::Full => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        }
    }
}

/// The path of a collection, an object or a subresource. Names are path-safe by the API's own rules.
pub(crate) fn path(gvr: &GroupVersionResource, namespace: Option<&str>, name: &str, subresource: &str) -> String {
    let mut path = if gvr.group.is_empty() {
        format!("/api/{}", gvr.version)
    } else {
        format!("/apis/{}/{}", gvr.group, gvr.version)
    };
    if let Some(namespace) = namespace.filter(|n| gvr.namespaced && !n.is_empty()) {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    for segment in [&*gvr.resource, name, subresource] {
        if !segment.is_empty() {
            path.push('/');
            path.push_str(segment);
        }
    }
    path
}

/// A query string under construction, percent-encoding values.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => self.0.push(byte.into()),
                _ => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }

    fn selectors(&mut self, params: &ListParams) {
        if let Some(selector) = &params.label_selector {
            self.add("labelSelector", selector);
        }
        if let Some(selector) = &params.field_selector {
            self.add("fieldSelector", selector);
        }
    }
}

/// Builds the request; `path` comes from [`path`] and is always a valid URI path.
pub(crate) fn build(
    method: Method,
    uri: String,
    accept: &str,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Request<Bytes>, Error> {
    let mut request = Request::builder().method(&method).uri(&uri).header(header::ACCEPT, accept);
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(body).map_err(|e| Error::Request { attempted: format!("{method} {uri}"), source: e.into() })
}

pub(crate) fn get(uri: String, form: Form) -> Result<Request<Bytes>, Error> {
    build(Method::GET, uri, form.accept_object(), None, Bytes::new())
}

pub(crate) fn list(gvr: &GroupVersionResource, params: &ListParams, form: Form) -> Result<Request<Bytes>, Error> {
    let mut query = Query::default();
    query.selectors(params);
    if params.limit > 0 {
        query.add("limit", &params.limit.to_string());
    }
    if let Some(token) = &params.continue_token {
        query.add("continue", token);
    } else if let Some(revision) = params.at_least {
        query.add("resourceVersion", &revision.to_string());
    }
    let uri = path(gvr, params.namespace.as_deref(), "", "") + &query.0;
    build(Method::GET, uri, form.accept_list(), None, Bytes::new())
}

pub(crate) fn watch(
    gvr: &GroupVersionResource,
    params: &ListParams,
    watch: &WatchParams,
    form: Form,
) -> Result<Request<Bytes>, Error> {
    let mut query = Query::default();
    query.add("watch", "true");
    query.add("allowWatchBookmarks", "true");
    query.selectors(params);
    if let Some(revision) = watch.from {
        query.add("resourceVersion", &revision.to_string());
    }
    if watch.initial_events {
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
    }
    if watch.timeout_seconds > 0 {
        query.add("timeoutSeconds", &watch.timeout_seconds.to_string());
    }
    let uri = path(gvr, params.namespace.as_deref(), "", "") + &query.0;
    build(Method::GET, uri, form.accept_object(), None, Bytes::new())
}

pub(crate) fn delete(uri: String, params: &DeleteParams) -> Result<Request<Bytes>, Error> {
    let body = encode(&Method::DELETE, &uri, &delete_options(params))?;
    build(Method::DELETE, uri, "application/json", Some("application/json"), body)
}

pub(crate) fn delete_collection(
    gvr: &GroupVersionResource,
    list: &ListParams,
    params: &DeleteParams,
) -> Result<Request<Bytes>, Error> {
    let mut query = Query::default();
    query.selectors(list);
    delete(path(gvr, list.namespace.as_deref(), "", "") + &query.0, params)
}

fn delete_options(params: &DeleteParams) -> serde_json::Value {
    let mut options = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    let fields = serde_json::to_value(params).unwrap_or_default();
    if let (Some(options), serde_json::Value::Object(fields)) = (options.as_object_mut(), fields) {
        options.extend(fields);
    }
    options
}

pub(crate) fn patch(mut uri: String, patch: &Patch, params: &PatchParams) -> Result<Request<Bytes>, Error> {
    let mut query = Query::default();
    if let Some(manager) = &params.field_manager {
        query.add("fieldManager", manager);
    }
    if params.force {
        query.add("force", "true");
    }
    uri.push_str(&query.0);
    let body = encode(&Method::PATCH, &uri, patch.value())?;
    build(Method::PATCH, uri, "application/json", Some(patch.content_type()), body)
}

pub(crate) fn write(method: Method, uri: String, object: &impl serde::Serialize) -> Result<Request<Bytes>, Error> {
    let body = encode(&method, &uri, object)?;
    build(method, uri, "application/json", Some("application/json"), body)
}

fn encode(method: &Method, uri: &str, object: &impl serde::Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(|e| Error::Request { attempted: format!("{method} {uri}"), source: e.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Propagation, Revision};
    use expect_test::{Expect, expect};
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    fn check(request: Result<Request<Bytes>, Error>, expected: Expect) {
        let request = request.expect("builds");
        let content_type = request.headers().get("content-type").map_or("", |v| v.to_str().unwrap());
        let body = String::from_utf8_lossy(request.body());
        expected.assert_eq(&format!("{} {}\n{content_type} {body}", request.method(), request.uri()));
    }

    #[test]
    fn lists_and_watches() {
        let deployments = GroupVersionResource::of::<Deployment>();
        let params = ListParams { limit: 500, ..ListParams::namespace("a").labels("x in (1,2),!y") };
        check(
            list(&deployments, &params, Form::Full),
            expect![[r#"
                GET /apis/apps/v1/namespaces/a/deployments?labelSelector=x%20in%20%281%2C2%29%2C%21y&limit=500
                 "#]],
        );
        let from = WatchParams { from: Some(Revision(7)), timeout_seconds: 300, ..WatchParams::default() };
        check(
            watch(&GroupVersionResource::of::<Node>(), &ListParams::default(), &from, Form::Full),
            expect![[r#"
                GET /api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=300
                 "#]],
        );
    }

    #[test]
    fn deletes_carry_options() {
        let uri = path(&GroupVersionResource::of::<Deployment>(), Some("a"), "web", "");
        check(
            delete(uri, &DeleteParams::uid("u").propagation(Propagation::Foreground)),
            expect![[r#"
                DELETE /apis/apps/v1/namespaces/a/deployments/web
                application/json {"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u"},"propagationPolicy":"Foreground"}"#]],
        );
    }
}
