//! EndpointSlices as every node holds all of them: an endpoint takes 48 bytes, and names of nodes are kept once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use api_client::Index;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::{Protocol, lenient};

/// Slices by their Service's name.
pub const BY_SERVICE: Index<EndpointSlice> = Index { name: "service", of: EndpointSlice::service };

#[derive(Clone, Debug, Default, Deserialize)]
pub struct EndpointSlice {
    metadata: SliceMeta,
    #[serde(default, rename = "addressType", deserialize_with = "lenient::is_ipv6")]
    is_ipv6: Option<bool>,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub endpoints: Box<[Endpoint]>,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub ports: Box<[EndpointPort]>,
}

api_client::projection!(EndpointSlice as k8s_openapi::api::discovery::v1::EndpointSlice, SliceMeta);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceMeta {
    name: Box<str>,
    namespace: Name,
    resource_version: Box<str>,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    /// `discovery.LabelServiceName`
    #[serde(rename = "kubernetes.io/service-name")]
    service: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// `v1.EndpointsLastChangeTriggerTime`
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time", deserialize_with = "lenient::time")]
    cause: Option<Timestamp>,
}

impl api_client::Metadata for SliceMeta {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace.0
    }
    /// Nobody here needs it: one slice is as good as another of the same name.
    fn uid(&self) -> &str {
        ""
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        false
    }
}

impl EndpointSlice {
    pub fn service(&self) -> &str {
        &self.metadata.labels.service
    }

    pub fn namespace(&self) -> &str {
        &self.metadata.namespace.0
    }

    /// When that happened which the slice's last change is due to.
    pub fn cause(&self) -> Option<Timestamp> {
        self.metadata.annotations.cause
    }

    /// Of neither family when its addresses are names.
    pub fn is_of(&self, ipv6: bool) -> bool {
        self.is_ipv6 == Some(ipv6)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    #[serde(rename = "addresses", deserialize_with = "lenient::first_address")]
    pub address: Option<IpAddr>,
    pub conditions: Conditions,
    #[serde(deserialize_with = "api_client::nullable")]
    pub node_name: Name,
    pub hints: Option<Box<Hints>>,
}

/// Absent means true for `ready` and `serving`, false for `terminating`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// Who should use an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    #[serde(deserialize_with = "api_client::nullable")]
    pub for_zones: Box<[Named]>,
    #[serde(deserialize_with = "api_client::nullable")]
    pub for_nodes: Box<[Named]>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: Name,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    #[serde(deserialize_with = "api_client::nullable")]
    pub name: Box<str>,
    #[serde(deserialize_with = "lenient::protocol")]
    pub protocol: Protocol,
    pub port: Option<u16>,
}

/// A name that many objects tell: of a node, a zone, a namespace. All have the same text in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub Arc<str>);

/// Texts of names, with how many there may be before those without use are dropped.
struct Names {
    all: Option<HashSet<Arc<str>>>,
    limit: usize,
}

/// Texts kept before anybody looks whether they are used.
const NAMES_AT_FIRST: usize = 1024;

static NAMES: Mutex<Names> = Mutex::new(Names { all: None, limit: NAMES_AT_FIRST });

impl Name {
    fn of(text: &str) -> Self {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = names.limit;
        let all = names.all.get_or_insert_default();
        if let Some(known) = all.get(text) {
            return Self(known.clone());
        }
        let mut used = None;
        if all.len() >= limit {
            all.retain(|name| Arc::strong_count(name) > 1);
            used = Some(all.len());
        }
        let name: Arc<str> = text.into();
        all.insert(name.clone());
        if let Some(used) = used {
            names.limit = (used * 2).max(NAMES_AT_FIRST);
        }
        Self(name)
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::of("")
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient::text(deserializer, Self::of)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_small_and_names_are_kept_once() {
        assert_eq!(size_of::<Endpoint>(), 48);
        let endpoint = |node: &str| json!({ "addresses": ["10.0.0.1", "10.0.0.2"], "nodeName": node });
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web", "other": "x" },
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5Z" } },
            "addressType": "IPv4", "ports": null,
            "endpoints": [endpoint("one"), endpoint("one"), { "addresses": ["no address"], "nodeName": null }],
        }))
        .unwrap();
        assert_eq!((slice.service(), slice.is_of(false), slice.is_of(true)), ("web", true, false));
        assert_eq!(slice.cause(), "2026-01-02T03:04:05.5Z".parse().ok());
        assert!(Arc::ptr_eq(&slice.endpoints[0].node_name.0, &slice.endpoints[1].node_name.0));
        assert_eq!(slice.endpoints[0].address, "10.0.0.1".parse().ok());
        assert_eq!((slice.endpoints[2].address, &*slice.endpoints[2].node_name), (None, ""));
    }
}
