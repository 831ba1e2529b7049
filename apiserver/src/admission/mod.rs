//! Admission: the fixed chain of plugins that may change (mutate) or refuse (validate) a write.

use serde_json::Value;

use api::status::Status;

use crate::request::RequestInfo;
use crate::server::Server;
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

#[derive(Debug, Default)]
pub struct Chain {}

impl Chain {
    pub async fn mutate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let _ = (server, request);
        Ok(())
    }

    pub async fn validate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let _ = (server, request);
        Ok(())
    }
}
