//! Parameters of requests, in Kubernetes' own terms. Defaults are the plain request.

use serde::Serialize;
use serde_json::Value;

use crate::Revision;

/// Which objects to list, watch or cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListParams {
    /// Only this namespace; all namespaces (or cluster scope) when `None`.
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Page size; 0 asks for everything at once.
    pub limit: u32,
    pub continue_token: Option<String>,
    /// `Some(Revision(0))` accepts any cached state; `None` asks for the most recent.
    pub at_least: Option<Revision>,
}

impl ListParams {
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }
}

/// One watch request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchParams {
    /// Deliver events after this revision; `None` starts at the most recent state.
    pub from: Option<Revision>,
    /// Ask for the present objects first, ended by an annotated bookmark (`sendInitialEvents`).
    pub initial_events: bool,
    /// When the server should end the watch.
    pub timeout_seconds: u32,
}

/// `propagationPolicy` of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The deletion is refused unless the object still is this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

impl DeleteParams {
    /// Only the object with this uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        let preconditions = Preconditions { uid: Some(uid.into()), resource_version: None };
        Self { preconditions: Some(preconditions), ..Self::default() }
    }
    pub fn propagation(mut self, policy: Propagation) -> Self {
        self.propagation_policy = Some(policy);
        self
    }
    pub fn grace_period_seconds(mut self, seconds: i64) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }
}

/// A patch in one of the four forms.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge; built-in kinds only.
    Strategic(Value),
    /// Server-side apply; the manager comes from [`PatchParams`].
    Apply(Value),
}

impl Patch {
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub fn value(&self) -> &Value {
        match self {
            Self::Json(v) | Self::Merge(v) | Self::Strategic(v) | Self::Apply(v) => v,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatchParams {
    /// Required for [`Patch::Apply`]; otherwise the user agent's product name is used by the server.
    pub field_manager: Option<String>,
    /// Take over fields that other managers own (apply only).
    pub force: bool,
}
