//! Namespaces, Services and PodDisruptionBudgets as far as scheduling reads them.

use std::collections::{BTreeMap, BTreeSet};

use api_client::Meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::selector::Selector;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Meta,
}

api_client::projection!(Namespace as k8s_openapi::api::core::v1::Namespace);

/// Its selector spreads pods that no replica controller owns.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: Meta,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    #[serde(deserialize_with = "api_client::nullable")]
    pub selector: BTreeMap<String, String>,
}

api_client::projection!(Service as k8s_openapi::api::core::v1::Service);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Budget")]
pub struct PodDisruptionBudget {
    pub metadata: Meta,
    /// Selects nothing when absent or without requirements.
    pub selector: Selector,
    pub disruptions_allowed: i32,
    /// Names of pods whose eviction is under way.
    pub disrupted: BTreeSet<String>,
}

api_client::projection!(PodDisruptionBudget as k8s_openapi::api::policy::v1::PodDisruptionBudget);

mod wire {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Budget {
        metadata: Meta,
        spec: Spec,
        status: Status,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Spec {
        selector: Option<LabelSelector>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        disruptions_allowed: i32,
        #[serde(deserialize_with = "api_client::nullable")]
        disrupted_pods: BTreeMap<String, serde::de::IgnoredAny>,
    }

    impl From<Budget> for PodDisruptionBudget {
        fn from(budget: Budget) -> Self {
            let selector = Selector::of(budget.spec.selector.as_ref());
            Self {
                metadata: budget.metadata,
                selector: if selector.is_empty() { Selector::nothing() } else { selector },
                disruptions_allowed: budget.status.disruptions_allowed,
                disrupted: budget.status.disrupted_pods.into_keys().collect(),
            }
        }
    }
}
