//! Who is calling: the transport's peer before authentication, the user after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

pub const ANONYMOUS: &str = "system:anonymous";
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const GROUP_MASTERS: &str = "system:masters";
pub const GROUP_NODES: &str = "system:nodes";
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// User names of service accounts: this, the namespace, a colon, the name.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
pub const NODE_PREFIX: &str = "system:node:";

/// `user.Info` of upstream: what authorization and admission see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of `groups`, which gains `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![GROUP_UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// As an `authentication.k8s.io/v1` UserInfo.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = serde_json::json!({"username": self.name});
        if !self.uid.is_empty() {
            value["uid"] = self.uid.as_str().into();
        }
        if !self.groups.is_empty() {
            value["groups"] = self.groups.clone().into();
        }
        if !self.extra.is_empty() {
            value["extra"] = serde_json::json!(self.extra);
        }
        value
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The user a service account acts as, authenticated.
pub fn service_account(namespace: &str, name: &str) -> User {
    let groups = [GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    User::new(format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"), &groups)
}

/// Namespace and name of the service account `user` is, by upstream's `serviceaccount.SplitUsername`.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let fits = api_name(namespace) && api_name(name) && !namespace.contains('.');
    fits.then_some((namespace, name))
}

/// A DNS-1123 subdomain, which is what names of namespaces, service accounts and nodes are.
fn api_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The node a user is by its name alone (`system:node:NAME`); see the node authorizer for the group.
pub fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| api_name(name))
}

/// Where a request came from, as the transport knows it.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over TLS: the verified-by-signature client certificate chain (leaf first, maybe empty; the authenticator checks
    /// the issuer) and the address.
    Remote { certificates: Vec<CertificateDer<'static>>, address: SocketAddr },
    /// A component of this process; its identity is fixed by the wiring and is authorized like any other.
    Component(User),
}
