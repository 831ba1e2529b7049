//! Admission: the fixed chain of plugins that may change (mutate) or refuse (validate) a write. The order is upstream's;
//! each plugin is one file and says what it concerns itself with.
//!
//! Policies and webhooks come between the built-in mutating plugins and the allocation, and before the quota.

mod certificates;
mod default_class;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
pub mod policy;
mod priority;
mod quota;
mod rbac_escalation;
mod runtime_class;
mod service_account;
mod small;
mod storage;
mod webhook;

use serde_json::Value;

use api::meta;
use api::status::Status;

use crate::request::RequestInfo;
use crate::server::Server;
use crate::service;
use crate::user::User;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write on its way; upstream's `admission.Attributes`.
pub struct AdmissionRequest<'a> {
    pub operation: Operation,
    pub info: &'a RequestInfo,
    pub user: &'a User,
    /// Group, version and kind of `object`: of the subresource where it has its own (Scale, Binding, Eviction).
    pub kind: api::meta::GroupVersionKind,
    pub namespace: &'a str,
    /// Empty on create with generateName, and for deletecollection.
    pub name: &'a str,
    /// The new object; null on delete.
    pub object: Value,
    /// The object as stored; null on create.
    pub old_object: &'a Value,
    /// CreateOptions, UpdateOptions or DeleteOptions.
    pub options: &'a Value,
    pub dry_run: bool,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl AdmissionRequest<'_> {
    /// Whether it concerns this resource and subresource (empty for the resource itself).
    pub fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.info.group == group && self.info.resource == resource && self.info.subresource == subresource
    }

    pub fn creates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Create && self.is(group, resource, "")
    }

    pub fn updates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Update && self.is(group, resource, "")
    }

    /// The name, as far as it is known: of the request, else of the object.
    pub fn object_name(&self) -> &str {
        if self.name.is_empty() { meta::name(&self.object) } else { self.name }
    }

    /// The refusal of this write; upstream's `admission.NewForbidden`.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let mut name = self.object_name();
        if name.is_empty() {
            name = meta::generate_name(&self.object);
        }
        let name = if name.is_empty() { "Unknown" } else { name };
        Status::forbidden(&self.info.group, &self.info.resource, name, why)
    }
}

type Mutate = fn(&Server, &mut AdmissionRequest<'_>) -> Result<(), Status>;
type Validate = fn(&Server, &mut AdmissionRequest<'_>) -> Result<(), Status>;

const MUTATING: &[Mutate] = &[
    limit_ranger::mutate,
    service_account::mutate,
    node_restriction::admit,
    small::taint_new_nodes,
    priority::mutate,
    small::default_tolerations,
    default_class::storage,
    storage::protect,
    runtime_class::mutate,
    default_class::ingress,
];

const VALIDATING: &[Validate] = &[
    rbac_escalation::validate,
    limit_ranger::validate,
    service_account::validate,
    pod_security::validate,
    priority::validate,
    storage::validate_resize,
    runtime_class::validate,
    certificates::validate,
];

#[derive(Debug, Default)]
pub struct Chain {
    services: service::Allocator,
    policies: policy::Policies,
    quota: quota::Quota,
}

impl Chain {
    pub async fn mutate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        namespace_lifecycle::admit(server, request).await?;
        service_account::wait_for_account(server, request).await?;
        for plugin in MUTATING {
            plugin(server, request)?;
        }
        self.policies.mutate(server, request)?;
        webhook::mutate(server, request).await?;
        self.services.admit(server, request)
    }

    pub async fn validate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        for plugin in VALIDATING {
            plugin(server, request)?;
        }
        self.policies.validate(server, request)?;
        webhook::validate(server, request).await?;
        // The quota is last: what it counts must then be written.
        self.quota.validate(server, request).await
    }
}

/// The object of a resource as the cache has it.
fn find(server: &Server, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let (_, cache) = server.resource(group, resource)?;
    cache.snapshot().get(&key).map(|item| item.value())
}

/// All objects of a resource in a namespace (empty: everywhere).
fn all(server: &Server, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
    let Some((_, cache)) = server.resource(group, resource) else { return Vec::new() };
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    cache.snapshot().range(&prefix, "").map(|(_, item)| item.value()).collect()
}
