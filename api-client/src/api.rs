//! Requests for one resource. Writes answer with the object and the [`Revision`] they made, so that the writer can
//! wait until its cache has seen it.

use std::marker::PhantomData;

use ::api::meta::ObjectKey;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decode::decode;
use crate::request::{self, Form};
use crate::transport::Body;
use crate::watch::Events;
use crate::{
    Client, DeleteParams, Error, GroupVersionResource, ListParams, Object, Patch, PatchParams, Revision, WatchParams,
};

/// Requests for the resource of `T`.
pub struct Api<T> {
    client: Client,
    gvr: GroupVersionResource,
    form: Form,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Api<T> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), gvr: self.gvr.clone(), form: self.form, of: PhantomData }
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct List<T> {
    pub items: Vec<T>,
    pub revision: Revision,
    /// Set when there are more pages.
    pub continue_token: Option<String>,
    pub remaining: Option<i64>,
}

#[derive(Deserialize)]
struct WireList<T> {
    #[serde(default)]
    metadata: WireListMeta,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
    remaining_item_count: Option<i64>,
}

impl<T: Object> Api<T> {
    pub(crate) fn new(client: Client, gvr: GroupVersionResource, form: Form) -> Self {
        Self { client, gvr, form, of: PhantomData }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn resource(&self) -> &GroupVersionResource {
        &self.gvr
    }

    fn uri(&self, key: &ObjectKey, subresource: &str) -> String {
        request::path(&self.gvr, Some(&key.namespace), &key.name, subresource)
    }

    pub async fn get(&self, key: &ObjectKey) -> Result<T, Error> {
        fetch(self.client.clone(), request::get(self.uri(key, ""), self.form)).await?.decode()
    }

    /// Like [`Api::get`], with absence as `None`.
    pub async fn find(&self, key: &ObjectKey) -> Result<Option<T>, Error> {
        match self.get(key).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One page, or everything when `params.limit` is 0. The future borrows nothing.
    pub fn list(&self, params: &ListParams) -> impl Future<Output = Result<List<T>, Error>> + Send + use<T> {
        let answer = fetch(self.client.clone(), request::list(&self.gvr, params, self.form));
        answer.map(decode_list)
    }

    /// Opens a watch. Caches want [`crate::Cache`] or [`crate::list_watch`], which never lose an event. The future
    /// borrows nothing.
    pub fn watch(
        &self,
        list: &ListParams,
        params: &WatchParams,
    ) -> impl Future<Output = Result<Events<T>, Error>> + Send + use<T> {
        let opened = open(self.client.clone(), request::watch(&self.gvr, list, params, self.form));
        opened.map(|opened| opened.map(|(body, attempted)| Events::new(body, attempted)))
    }

    /// Creates in the namespace of the object; `metadata.namespace` must be set for a namespaced kind.
    pub async fn create<B: Serialize + Object>(&self, object: &B) -> Result<(T, Revision), Error> {
        use crate::Metadata;
        self.create_in(object.metadata().namespace(), object).await
    }

    /// Creates any serializable object in `namespace` (empty for cluster scope).
    pub async fn create_in(&self, namespace: &str, object: &impl Serialize) -> Result<(T, Revision), Error> {
        let uri = request::path(&self.gvr, Some(namespace), "", "");
        self.written(request::write(Method::POST, uri, object)).await
    }

    /// Creates from a value; the namespace is read from its metadata.
    pub async fn create_value(&self, object: &Value) -> Result<(T, Revision), Error> {
        self.create_in(::api::meta::namespace(object), object).await
    }

    /// PUT. A `resourceVersion` in the object makes it conditional.
    pub async fn replace(&self, key: &ObjectKey, object: &impl Serialize) -> Result<(T, Revision), Error> {
        self.replace_subresource(key, "", object).await
    }

    pub async fn replace_status(&self, key: &ObjectKey, object: &impl Serialize) -> Result<(T, Revision), Error> {
        self.replace_subresource(key, "status", object).await
    }

    pub async fn replace_subresource(
        &self,
        key: &ObjectKey,
        subresource: &str,
        object: &impl Serialize,
    ) -> Result<(T, Revision), Error> {
        self.written(request::write(Method::PUT, self.uri(key, subresource), object)).await
    }

    pub async fn patch(&self, key: &ObjectKey, patch: &Patch) -> Result<(T, Revision), Error> {
        self.patch_with(key, "", patch, &PatchParams::default()).await
    }

    pub async fn patch_status(&self, key: &ObjectKey, patch: &Patch) -> Result<(T, Revision), Error> {
        self.patch_with(key, "status", patch, &PatchParams::default()).await
    }

    pub async fn patch_with(
        &self,
        key: &ObjectKey,
        subresource: &str,
        patch: &Patch,
        params: &PatchParams,
    ) -> Result<(T, Revision), Error> {
        self.written(request::patch(self.uri(key, subresource), patch, params)).await
    }

    /// Deletes. The revision is that of the object as answered (marked for deletion, or gone), or
    /// [`Revision::NONE`] where the server answers with a bare `Status`.
    pub async fn delete(&self, key: &ObjectKey, params: &DeleteParams) -> Result<Revision, Error> {
        let body: Value = fetch(self.client.clone(), request::delete(self.uri(key, ""), params)).await?.decode()?;
        Ok(Revision::parse(::api::meta::resource_version(&body)))
    }

    pub async fn delete_collection(&self, list: &ListParams, params: &DeleteParams) -> Result<(), Error> {
        self.client.call(request::delete_collection(&self.gvr, list, params)?).await.map(drop)
    }

    /// POST to a subresource such as `binding`, `eviction` or `token`, giving its answer.
    pub async fn post_subresource<R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<R, Error> {
        fetch(self.client.clone(), request::write(Method::POST, self.uri(key, subresource), body)).await?.decode()
    }

    pub async fn get_subresource<R: DeserializeOwned>(&self, key: &ObjectKey, subresource: &str) -> Result<R, Error> {
        fetch(self.client.clone(), request::get(self.uri(key, subresource), Form::Full)).await?.decode()
    }

    async fn written(&self, request: Result<Request<Bytes>, Error>) -> Result<(T, Revision), Error> {
        let object: T = fetch(self.client.clone(), request).await?.decode()?;
        let revision = object.revision();
        Ok((object, revision))
    }
}

// Outside `Api`, so that these futures don't depend on the type that is decoded afterwards.

async fn fetch(client: Client, request: Result<Request<Bytes>, Error>) -> Result<Answer, Error> {
    let request = request?;
    let attempted = format!("{} {}", request.method(), request.uri());
    let body = client.call(request).await?;
    Ok(Answer { attempted, body })
}

async fn open(client: Client, request: Result<Request<Bytes>, Error>) -> Result<(Body, String), Error> {
    let request = request?;
    let attempted = format!("GET {}", request.uri());
    let response = client.open(request).await?;
    Ok((response.into_body(), attempted))
}

fn decode_list<T: Object>(answer: Result<Answer, Error>) -> Result<List<T>, Error> {
    let list: WireList<T> = answer?.decode()?;
    Ok(List {
        items: list.items.unwrap_or_default(),
        revision: Revision::parse(&list.metadata.resource_version),
        continue_token: Some(list.metadata.continue_token).filter(|t| !t.is_empty()),
        remaining: list.metadata.remaining_item_count,
    })
}

struct Answer {
    attempted: String,
    body: Bytes,
}

impl Answer {
    fn decode<R: DeserializeOwned>(self) -> Result<R, Error> {
        let Self { attempted, body } = self;
        decode(&body).map_err(|source| Error::Decode { attempted, source })
    }
}
