//! What a reconcile may do: write the resources its controller declared, and record events. Every write is noted, so
//! that the key isn't reconciled again before the caches have seen it: a controller reads its own writes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api_client::events::Recorder;
use api_client::{
    Api, Client, DeleteParams, GroupVersionResource, Metadata, Object, ObjectKey, PartialObject, Patch, PatchParams,
    Revision,
};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde::Serialize;
use serde_json::Value;

use super::{Caches, Error, Output};

/// How long a key waits for its own writes to be seen. A cache that is behind for longer has lost its server; going
/// on is safe (all decisions are checked by the server again), only wasteful.
const SEEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Given to one reconcile of one key.
pub struct Work {
    pub(super) controller: &'static str,
    pub(super) client: Client,
    pub(super) caches: Caches,
    pub(super) outputs: &'static [Output],
    pub(super) recorder: Recorder,
    pub(super) unseen: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Work {
    /// The wall clock, to be passed to plans.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// For reads past the cache, where a decision must not rest on anything stale.
    pub fn live<T: Object>(&self) -> Api<T> {
        self.client.api()
    }

    /// Requests on the metadata of a resource known at run time, which must be among the declared outputs.
    pub fn metadata_api(&self, gvr: &GroupVersionResource) -> Result<Api<PartialObject>, Error> {
        self.declared(&gvr.group, &gvr.resource, "")?;
        Ok(self.client.metadata_api(gvr.clone()))
    }

    /// The same, on a subresource of whole objects.
    pub fn subresource_api(&self, gvr: &GroupVersionResource, subresource: &str) -> Result<Api<PartialObject>, Error> {
        self.declared(&gvr.group, &gvr.resource, subresource)?;
        Ok(self.client.api_at(gvr.clone()))
    }

    fn output<T: Object>(&self, subresource: &str) -> Result<Api<T>, Error> {
        self.declared(T::GROUP, T::PLURAL, subresource)?;
        Ok(self.client.api())
    }

    /// Refuses a write that the controller did not declare.
    pub fn declared(&self, group: &str, resource: &str, subresource: &str) -> Result<(), Error> {
        if self.outputs.iter().any(|o| o.covers(group, resource, subresource)) {
            return Ok(());
        }
        let resource = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        Err(Error::Undeclared { controller: self.controller, group: group.to_owned(), resource })
    }

    /// Creates an object; in a namespace that is known to end the server isn't even asked.
    pub async fn create<T: Object>(&self, namespace: &str, object: &impl Serialize) -> Result<T, Error> {
        let api = self.output::<T>("")?;
        if self.ends(namespace) {
            return Err(Error::NamespaceEnds { kind: T::KIND, namespace: namespace.to_owned() });
        }
        let (object, revision) = api.create_in(namespace, object).await?;
        self.note::<T>(revision);
        Ok(object)
    }

    /// Whether a namespace is being deleted, as far as the cache knows. One it doesn't know may be new.
    fn ends(&self, namespace: &str) -> bool {
        let namespaces = self.caches.started::<Namespace>().filter(|_| !namespace.is_empty());
        let namespace = namespaces.and_then(|cache| cache.get(&ObjectKey::new("", namespace)));
        namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_some())
    }

    pub async fn patch<T: Object>(&self, key: &ObjectKey, patch: &Patch) -> Result<T, Error> {
        self.patch_subresource(key, "", patch).await
    }

    pub async fn patch_status<T: Object>(&self, key: &ObjectKey, patch: &Patch) -> Result<T, Error> {
        self.patch_subresource(key, "status", patch).await
    }

    pub async fn patch_subresource<T: Object>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        patch: &Patch,
    ) -> Result<T, Error> {
        let api = self.output::<T>(subresource)?;
        let (object, revision) = api.patch_with(key, subresource, patch, &PatchParams::default()).await?;
        self.note::<T>(revision);
        Ok(object)
    }

    /// PUT to a subresource.
    pub async fn replace_subresource<T: Object>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        object: &Value,
    ) -> Result<T, Error> {
        let api = self.output::<T>(subresource)?;
        let (object, revision) = api.replace_subresource(key, subresource, object).await?;
        self.note::<T>(revision);
        Ok(object)
    }

    /// Deletes the object with this uid. Its absence is success.
    pub async fn delete<T: Object>(&self, key: &ObjectKey, uid: &str, params: DeleteParams) -> Result<(), Error> {
        let preconditions = DeleteParams::uid(uid).preconditions;
        let deleted = self.output::<T>("")?.delete(key, &DeleteParams { preconditions, ..params }).await;
        match deleted {
            Ok(_) => {
                self.note_deleted::<T>(key.clone(), uid.to_owned());
                Ok(())
            }
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Notes a write made by other means.
    pub fn note<T: Object>(&self, revision: Revision) {
        if let Some(cache) = self.caches.started::<T>() {
            self.push(async move { cache.wait_for(revision).await }.boxed());
        }
    }

    fn note_deleted<T: Object>(&self, key: ObjectKey, uid: String) {
        let Some(cache) = self.caches.started::<T>() else { return };
        let gone = move |object: Option<&std::sync::Arc<T>>| {
            object.is_none_or(|o| o.metadata().uid() != uid || o.metadata().is_deleting())
        };
        self.push(async move { cache.wait_until(|snapshot| gone(snapshot.get(&key))).await }.boxed());
    }

    fn push(&self, seen: BoxFuture<'static, ()>) {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// Whether anything was written that caches are to see.
    pub(super) fn wrote(&self) -> bool {
        !self.unseen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Returns when the caches have seen every write of this work.
    pub(super) async fn seen(self) {
        let unseen = self.unseen.into_inner().unwrap_or_else(PoisonError::into_inner);
        if tokio::time::timeout(SEEN_TIMEOUT, join_all(unseen)).await.is_err() {
            tracing::warn!(controller = self.controller, "own writes not seen within SEEN_TIMEOUT");
        }
    }
}
