//! Who is calling: the transport's peer before authentication, the user after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

pub const ANONYMOUS: &str = "system:anonymous";
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const GROUP_MASTERS: &str = "system:masters";

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

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
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
