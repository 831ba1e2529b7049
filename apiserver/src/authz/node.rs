//! The Node authorizer: a node may read what the pods bound to it need, and nothing of other nodes. Everything not
//! about single objects follows the fixed rules of the `system:node` cluster role.
//!
//! Invariant: what a node may see follows from the pods the cache shows on it at this moment; there is no graph to
//! keep in step.

mod references;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use api::selector::FieldSelector;

use super::rule::Rule;
use super::{Attributes, Decision};
use crate::bootstrap::data;
use crate::server::Server;
use crate::user::{self, GROUP_NODES};

use references::References;

/// Pods whose references are remembered; beyond it everything is forgotten and read again. About 1 KB each.
const REMEMBERED_MAX: usize = 16 * 1024;

/// The rules every node shares.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| data::cluster_role_rules("system:node"));

#[derive(Default)]
pub struct Authorizer {
    /// By pod key.
    remembered: Mutex<HashMap<Box<str>, Read>>,
}

/// What a pod referred to at a revision.
struct Read {
    revision: u64,
    references: Arc<References>,
}

/// The node a user is: by name and group, as upstream's `nodeidentifier`.
pub fn identity(user: &crate::user::User) -> Option<&str> {
    user.in_group(GROUP_NODES).then(|| user::node_name(&user.name)).flatten()
}

/// The secrets a pod refers to.
pub fn secrets_of(pod: &serde_json::Value) -> Vec<String> {
    References::of_pod(pod).secrets
}

impl Authorizer {
    pub fn decide(&self, server: &Server, asked: &Attributes<'_>) -> Decision {
        let Some(node) = identity(asked.user) else { return Decision::NoOpinion(String::new()) };
        match self.may(server, node, asked) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    fn may(&self, server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
        if asked.resource_request {
            match (asked.group, asked.resource) {
                ("", "secrets") => return self.read_one(server, node, asked, |r| &r.secrets),
                ("", "configmaps") => return self.read_one(server, node, asked, |r| &r.config_maps),
                ("", "persistentvolumeclaims") => return self.claim(server, node, asked),
                ("", "persistentvolumes") => return self.volume(server, node, asked),
                ("", "serviceaccounts") => return self.service_account(server, node, asked),
                ("", "nodes") => return own_node(node, asked),
                ("", "pods") => return self.pod(server, node, asked),
                ("resource.k8s.io", "resourceclaims") => {
                    get_only(asked)?;
                    return self.refers(server, node, asked, |r| &r.resource_claims);
                }
                ("resource.k8s.io", "resourceslices") => return resource_slice(server, node, asked),
                ("storage.k8s.io", "volumeattachments") => return attachment(server, node, asked),
                ("storage.k8s.io", "csinodes") => return own_by_name(node, asked, "CSINode"),
                ("coordination.k8s.io", "leases") => return lease(node, asked),
                _ => {}
            }
        }
        RULES.iter().any(|rule| rule.allows(asked)).then_some(()).ok_or_else(String::new)
    }

    fn read_one(
        &self,
        server: &Server,
        node: &str,
        asked: &Attributes<'_>,
        list: fn(&References) -> &[String],
    ) -> Result<(), String> {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !asked.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if asked.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.refers(server, node, asked, list)
    }

    fn claim(&self, server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
        if asked.subresource == "status" {
            if !matches!(asked.verb, "update" | "patch") {
                return Err("can only get/update/patch this type".to_owned());
            }
        } else {
            get_only(asked)?;
        }
        self.refers(server, node, asked, |r| &r.claims)
    }

    /// A volume is the node's when a claim bound to it is used by one of the node's pods.
    fn volume(&self, server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
        get_only(asked)?;
        let bound = server.resource("", "persistentvolumes").and_then(|(_, cache)| {
            let volume = cache.snapshot().get(asked.name)?.value();
            let text = |field: &str| volume.pointer(&format!("/spec/claimRef/{field}"))?.as_str().map(str::to_owned);
            Some((text("namespace")?, text("name")?))
        });
        let Some((namespace, name)) = bound else { return Err(unrelated(node)) };
        let claim = Attributes { namespace: &namespace, name: &name, ..*asked };
        self.refers(server, node, &claim, |r| &r.claims)
    }

    fn service_account(&self, server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_one(server, node, asked, |r| &r.service_accounts);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if asked.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".to_owned());
        }
        self.refers(server, node, asked, |r| &r.service_accounts)
    }

    fn pod(&self, server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
        match (asked.subresource, asked.verb) {
            ("", "list" | "watch") if selects(asked.field_selector, "spec.nodeName", node) => Ok(()),
            ("", "get") => own_pod(server, node, asked),
            ("", "list" | "watch") if !asked.name.is_empty() => own_pod(server, node, asked),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".to_owned()),
            // Whose pods, is for NodeRestriction to see: it has the objects.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }

    /// Whether a pod on the node refers to the object asked for.
    fn refers(
        &self,
        server: &Server,
        node: &str,
        asked: &Attributes<'_>,
        list: fn(&References) -> &[String],
    ) -> Result<(), String> {
        if asked.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        let Some((_, pods)) = server.resource("", "pods") else { return Err(unrelated(node)) };
        let prefix = format!("{}/", asked.namespace);
        let snapshot = pods.snapshot();
        let mut here = snapshot.indexed(node).filter(|(key, _)| key.starts_with(&prefix));
        here.any(|(key, item)| {
            let references = self.references(key, item.revision(), || References::of_pod(&item.value()));
            list(&references).iter().any(|name| name == asked.name)
        })
        .then_some(())
        .ok_or_else(|| unrelated(node))
    }

    fn references(&self, key: &str, revision: u64, read: impl FnOnce() -> References) -> Arc<References> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get(key).filter(|known| known.revision == revision) {
            return Arc::clone(&known.references);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let references = Arc::new(read());
        remembered.insert(key.into(), Read { revision, references: Arc::clone(&references) });
        references
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn get_only(asked: &Attributes<'_>) -> Result<(), String> {
    if asked.verb != "get" {
        return Err("can only get individual resources of this type".to_owned());
    }
    if !asked.subresource.is_empty() {
        return Err("cannot get subresource".to_owned());
    }
    Ok(())
}

fn own_pod(server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
    let key = format!("{}/{}", asked.namespace, asked.name);
    let item = server.resource("", "pods").and_then(|(_, pods)| pods.snapshot().get(&key).cloned());
    let here = item.is_some_and(|item| item.field("spec.nodeName") == Some(node));
    here.then_some(()).ok_or_else(|| unrelated(node))
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Result<(), String> {
    match (asked.subresource, asked.verb) {
        // Which node, is for NodeRestriction to see.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if asked.name == node => Ok(()),
        ("", "get" | "list" | "watch") if asked.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", asked.name))
        }
        _ => Err(String::new()),
    }
}

fn lease(node: &str, asked: &Attributes<'_>) -> Result<(), String> {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if asked.namespace != "kube-node-lease" {
        return Err(r#"can only access leases in the "kube-node-lease" system namespace"#.to_owned());
    }
    if asked.verb != "create" && asked.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn own_by_name(node: &str, asked: &Attributes<'_>, kind: &str) -> Result<(), String> {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err(format!("can only get, create, update, patch, or delete a {kind}"));
    }
    if !asked.subresource.is_empty() {
        return Err(format!("cannot authorize {kind} subresources"));
    }
    if asked.verb != "create" && asked.name != node {
        return Err(format!("can only access {kind} with the same name as the requesting node"));
    }
    Ok(())
}

fn attachment(server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
    get_only(asked)?;
    names_node(server, "storage.k8s.io", "volumeattachments", asked.name, node)
}

fn resource_slice(server: &Server, node: &str, asked: &Attributes<'_>) -> Result<(), String> {
    if !asked.subresource.is_empty() {
        return Err("cannot authorize ResourceSlice subresources".to_owned());
    }
    match asked.verb {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            names_node(server, "resource.k8s.io", "resourceslices", asked.name, node)
        }
        "watch" | "list" | "deletecollection" if selects(asked.field_selector, "spec.nodeName", node) => Ok(()),
        _ => Err("can only list/watch/deletecollection resourceslices with nodeName field selector".to_owned()),
    }
}

/// Whether the cluster-scoped object has this node in `spec.nodeName`.
fn names_node(server: &Server, group: &str, resource: &str, name: &str, node: &str) -> Result<(), String> {
    let item = server.resource(group, resource).and_then(|(_, cache)| cache.snapshot().get(name).cloned());
    let named = item.is_some_and(|item| item.value().pointer("/spec/nodeName").is_some_and(|n| n == node));
    named.then_some(()).ok_or_else(|| unrelated(node))
}

/// Whether a field selector restricts `field` to exactly `value`.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    FieldSelector::parse(selector).is_ok_and(|selector| selector.required_value(field) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_term_restricts() {
        let check = |selector: &str| selects(selector, "spec.nodeName", "n1");
        assert!(check("spec.nodeName=n1"));
        assert!(check("status.phase!=Failed,spec.nodeName==n1"));
        for other in ["", "spec.nodeName!=n1", "spec.nodeName=n2", "spec.nodeName", "metadata.name=n1"] {
            assert!(!check(other), "{other}");
        }
    }
}
