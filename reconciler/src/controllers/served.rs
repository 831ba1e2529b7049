//! Resources known only at run time, found by discovery, and their `scale` subresource: how workloads of other makers
//! are counted and scaled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_client::discovery::{self, Discovery};
use api_client::{Client, GroupVersionResource, Meta, ObjectKey, PartialObject};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::Instant;

use crate::engine::Error;

/// What the server serves is not read again sooner for a kind it did not know.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Scale {
    pub metadata: Meta,
    pub spec: ScaleSpec,
    pub status: ScaleStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScaleSpec {
    pub replicas: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScaleStatus {
    pub replicas: i32,
    /// In its text form.
    pub selector: String,
}

/// What the server serves, remembered.
pub struct ServedResources {
    client: Client,
    known: Mutex<Option<(Arc<Discovery>, Instant)>>,
}

impl ServedResources {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), known: Mutex::default() }
    }

    fn known(&self) -> Option<(Arc<Discovery>, Instant)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a kind is served.
    pub async fn of_kind(&self, api_version: &str, kind: &str) -> Result<Option<GroupVersionResource>, Error> {
        let (group, _) = api::meta::split_api_version(api_version);
        self.find(|discovery| discovery.of_kind(group, kind).map(|served| served.gvr.clone())).await
    }

    /// The resource of this name, in the version it is served in.
    pub async fn named(&self, group: &str, resource: &str) -> Result<Option<GroupVersionResource>, Error> {
        let is_it = |gvr: &GroupVersionResource| gvr.group == group && gvr.resource == resource;
        self.find(|d| d.resources.iter().map(|served| &served.gvr).find(|gvr| is_it(gvr)).cloned()).await
    }

    async fn find<T>(&self, find: impl Fn(&Discovery) -> Option<T>) -> Result<Option<T>, Error> {
        if let Some((discovery, read)) = self.known() {
            let found = find(&discovery);
            if found.is_some() || read.elapsed() < REFRESH_PAUSE {
                return Ok(found);
            }
        }
        let discovery = Arc::new(discovery::read(&self.client).await?);
        let found = find(&discovery);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((discovery, Instant::now()));
        Ok(found)
    }

    /// The scale of one object; `None` when there is none.
    pub async fn scale(&self, resource: &GroupVersionResource, key: &ObjectKey) -> Result<Option<Scale>, Error> {
        match self.client.api_at::<PartialObject>(resource.clone()).get_subresource(key, "scale").await {
            Ok(scale) => Ok(Some(scale)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the object itself exists: one without a scale then is of a kind that has none.
    pub async fn exists(&self, resource: &GroupVersionResource, key: &ObjectKey) -> Result<bool, Error> {
        Ok(self.client.metadata_api(resource.clone()).find(key).await?.is_some())
    }
}

/// An object as it is.
#[derive(Clone)]
pub struct Whole {
    pub metadata: Meta,
    pub object: Value,
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let metadata = Meta::deserialize(&object["metadata"]).map_err(serde::de::Error::custom)?;
        Ok(Self { metadata, object })
    }
}

api_client::projection!(Whole as PartialObject);
