//! Cluster role aggregation: a ClusterRole with an aggregation rule has the rules of all roles that it selects.

use api_client::{Cache, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

use crate::engine::{Cached, Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{compile, label_of};

impl Cached for ClusterRole {}

pub struct ClusterRoles {
    roles: Cache<ClusterRole>,
}

impl ClusterRoles {
    pub fn new(caches: &Caches) -> Self {
        Self { roles: caches.get() }
    }
}

#[async_trait]
impl Controller for ClusterRoles {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        let roles = self.roles.clone();
        // Any role may be selected by any aggregating one, and those are few.
        inputs.watch(&self.roles, move |_, wake| {
            roles.snapshot().iter().filter(|role| role.aggregation_rule.is_some()).for_each(|role| wake(role.key()));
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("rbac.authorization.k8s.io", "clusterroles")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(role) = self.roles.get(key) else { return Ok(Done::Settled) };
        let snapshot = self.roles.snapshot();
        let Some(rules) = aggregate(&role, snapshot.iter().map(|r| &**r)) else { return Ok(Done::Settled) };
        if role.rules.as_deref().unwrap_or_default() != rules {
            work.patch::<ClusterRole>(key, &Patch::Merge(json!({"rules": rules}))).await?;
        }
        Ok(Done::Settled)
    }
}

/// The rules of all selected roles in the order of their names, each once; `None` for a role that doesn't aggregate.
fn aggregate<'a>(role: &ClusterRole, all: impl Iterator<Item = &'a ClusterRole>) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let selectors: Vec<_> = selectors.iter().map(|selector| compile(Some(selector))).collect();
    let selected = |other: &&ClusterRole| {
        let matches = selectors.iter().any(|s| s.matches_with(|label| label_of(&other.metadata, label)));
        matches && other.metadata.name != role.metadata.name
    };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in all.filter(selected).flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_selected_roles_are_joined_once() {
        let role = |name: &str, label: &str, verbs: &[&str]| -> ClusterRole {
            let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules}))
                .unwrap()
        };
        let mut edit = role("edit", "admin", &["old"]);
        edit.aggregation_rule =
            serde_json::from_value(json!({"clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]})).unwrap();
        let all =
            [role("a", "edit", &["get"]), role("b", "edit", &["get"]), role("c", "edit", &["list"]), edit.clone()];
        let verbs: Vec<Vec<String>> = aggregate(&edit, all.iter()).unwrap().into_iter().map(|r| r.verbs).collect();
        assert_eq!(verbs, [["get"], ["list"]]);
        assert_eq!(aggregate(&all[0], all.iter()), None);
    }
}
