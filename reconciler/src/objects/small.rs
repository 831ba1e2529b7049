//! Small projections: of some kinds controllers read hardly anything.

use std::collections::BTreeMap;

use api_client::{ListParams, Meta};
use serde::Deserialize;

use crate::engine::Cached;

/// The ConfigMap that carries the cluster's certificate authority into each namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RootCa {
    pub metadata: Meta,
    pub data: BTreeMap<String, String>,
}

impl RootCa {
    pub const NAME: &'static str = "kube-root-ca.crt";
    pub const KEY: &'static str = "ca.crt";
}

api_client::projection!(RootCa as k8s_openapi::api::core::v1::ConfigMap);

impl Cached for RootCa {
    fn params() -> ListParams {
        ListParams::default().fields(format!("metadata.name={}", Self::NAME))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceAccount {
    pub metadata: Meta,
}

api_client::projection!(ServiceAccount as k8s_openapi::api::core::v1::ServiceAccount);

impl Cached for ServiceAccount {}
