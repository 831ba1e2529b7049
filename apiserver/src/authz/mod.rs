//! Authorization: may this user do that?

pub mod policy;
pub mod rule;

use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::{GROUP_MASTERS, User};

/// What is asked; upstream's `authorizer.Attributes`.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub resource_request: bool,
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Self {
            user,
            resource_request: info.resource_request,
            verb: &info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// The text follows upstream's `User "x" cannot get resource …`; may be empty.
    Deny(String),
}

#[derive(Debug, Default)]
pub struct Authorizer {}

impl Authorizer {
    pub async fn authorize(&self, server: &Server, attributes: &Attributes<'_>) -> Decision {
        let _ = server;
        if attributes.user.in_group(GROUP_MASTERS) { Decision::Allow } else { Decision::Deny(String::new()) }
    }
}
