//! Authorization: may this user do that? `system:masters` may everything; then the Node authorizer for nodes; then
//! RBAC. Whoever allows first, wins; there is no explicit denial among the three.
//!
//! Invariant: a decision costs no JSON and looks at no object; the RBAC index follows the cache's rings.

pub mod message;
pub mod node;
pub mod policy;
pub mod rule;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use api::meta::ObjectKey;
use api::status::Status;

use crate::cache::ResourceCache;
use crate::cache::item::EventKind;
use crate::cache::resource::Slice;
use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::{GROUP_MASTERS, User};

use policy::{Kind, Policy};

pub const GROUP: &str = "rbac.authorization.k8s.io";

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
    /// As asked; only the Node authorizer looks at it.
    pub field_selector: &'a str,
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
            field_selector: "",
        }
    }

    /// A question about one resource.
    pub fn resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user,
            resource_request: true,
            verb,
            group,
            version: "v1",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            field_selector: "",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With the reason reviews show; empty for `system:masters`.
    Allow(String),
    /// Nobody allows it; the text says what stood in the way, mostly nothing.
    NoOpinion(String),
}

/// The policy and up to where it has followed each of the four resources.
#[derive(Debug)]
struct Synced {
    revisions: [u64; 4],
    policy: Arc<Policy>,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::ClusterRole, "clusterroles"),
    (Kind::Role, "roles"),
    (Kind::ClusterRoleBinding, "clusterrolebindings"),
    (Kind::RoleBinding, "rolebindings"),
];

#[derive(Default)]
pub struct Authorizer {
    synced: ArcSwapOption<Synced>,
    /// The caches followed, found once: built-in resources keep theirs.
    caches: OnceLock<Vec<Arc<ResourceCache>>>,
    /// Held while the index catches up: one does it, the others wait for the result.
    syncing: Mutex<()>,
    nodes: node::Authorizer,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("synced", &self.synced).finish_non_exhaustive()
    }
}

impl Authorizer {
    /// `Ok` when allowed, the 403 to answer otherwise.
    pub fn authorize(&self, server: &Server, asked: &Attributes<'_>) -> Result<(), Status> {
        match self.decide(server, asked) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(message::forbidden(asked, &reason)),
        }
    }

    pub fn decide(&self, server: &Server, asked: &Attributes<'_>) -> Decision {
        if asked.user.in_group(GROUP_MASTERS) {
            return Decision::Allow(String::new());
        }
        let node_reason = match self.nodes.decide(server, asked) {
            Decision::Allow(reason) => return Decision::Allow(reason),
            Decision::NoOpinion(reason) => reason,
        };
        match self.policy(server).allows(asked) {
            Ok(reason) => Decision::Allow(reason),
            Err(reason) if node_reason.is_empty() => Decision::NoOpinion(reason),
            Err(reason) if reason.is_empty() => Decision::NoOpinion(node_reason),
            Err(reason) => Decision::NoOpinion(format!("{node_reason}, {reason}")),
        }
    }

    /// The RBAC index, caught up with everything the cache shows.
    pub fn policy(&self, server: &Server) -> Arc<Policy> {
        let find = || KINDS.iter().filter_map(|(_, resource)| Some(server.resource(GROUP, resource)?.1)).collect();
        let caches: &Vec<Arc<ResourceCache>> = self.caches.get_or_init(find);
        let current = |synced: &Synced| {
            caches.iter().zip(synced.revisions).all(|(cache, revision)| cache.snapshot().revision() <= revision)
        };
        if let Some(synced) = self.synced.load_full().filter(|s| current(s)) {
            return Arc::clone(&synced.policy);
        }
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.synced.load_full();
        if let Some(synced) = before.as_ref().filter(|s| current(s)) {
            return Arc::clone(&synced.policy);
        }
        let next = before.and_then(|b| follow(&b, caches)).unwrap_or_else(|| read(caches));
        let policy = Arc::clone(&next.policy);
        self.synced.store(Some(Arc::new(next)));
        policy
    }
}

/// Applies what the rings hold beyond `before`; `None` when a ring has forgotten some of it.
fn follow(before: &Synced, caches: &[Arc<ResourceCache>]) -> Option<Synced> {
    let mut policy = Policy::clone(&before.policy);
    let mut revisions = before.revisions;
    for (((kind, _), cache), revision) in KINDS.iter().zip(caches).zip(&mut revisions) {
        let seen = cache.snapshot().revision();
        for event in cache.channel(&Slice::All).since(*revision)?.iter().rev() {
            let object = (event.kind != EventKind::Deleted).then(|| event.item.value());
            policy = policy.with(*kind, &key(&event.key), object.as_ref());
            *revision = event.revision();
        }
        *revision = seen.max(*revision);
    }
    Some(Synced { revisions, policy: Arc::new(policy) })
}

/// Reads everything.
fn read(caches: &[Arc<ResourceCache>]) -> Synced {
    let mut policy = Policy::default();
    let mut revisions = [0; 4];
    for (((kind, _), cache), revision) in KINDS.iter().zip(caches).zip(&mut revisions) {
        let snapshot = cache.snapshot();
        *revision = snapshot.revision();
        for (path, item) in snapshot.iter() {
            policy = policy.with(*kind, &key(path), Some(&item.value()));
        }
    }
    Synced { revisions, policy: Arc::new(policy) }
}

/// The object key of a cache key (`namespace/name` or `name`).
fn key(path: &str) -> ObjectKey {
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    ObjectKey::new(namespace, name)
}

#[cfg(test)]
mod tests;
