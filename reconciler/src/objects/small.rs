//! Small projections: of some kinds controllers read hardly anything.

use std::collections::BTreeMap;

use api_client::{ListParams, Meta, Object};
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

impl Object for RootCa {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ConfigMap";
    const PLURAL: &'static str = "configmaps";
    const NAMESPACED: bool = true;
    type Meta = Meta;

    fn metadata(&self) -> &Meta {
        &self.metadata
    }
}

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

impl Object for ServiceAccount {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ServiceAccount";
    const PLURAL: &'static str = "serviceaccounts";
    const NAMESPACED: bool = true;
    type Meta = Meta;

    fn metadata(&self) -> &Meta {
        &self.metadata
    }
}

impl Cached for ServiceAccount {}
