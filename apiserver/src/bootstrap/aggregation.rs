//! Cluster roles with an `aggregationRule` get the rules of the roles it selects. A controller keeps them so; here they
//! get theirs once at start, because the default roles `admin`, `edit` and `view` are empty without, and a server may
//! run without controllers. The order is the controller's (by name), so that it finds nothing to change.

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use api::meta;
use api::selector::LabelSelector;

use super::{Error, send};
use crate::authz::GROUP;
use crate::server::Server;

/// Writes every aggregated role whose rules are not those it should have. Roles may aggregate aggregated roles, so it
/// goes on until nothing changes; each round settles at least one level.
pub async fn aggregate(server: &Arc<Server>) -> Result<(), Error> {
    let Some((_, cache)) = server.resource(GROUP, "clusterroles") else { return Ok(()) };
    loop {
        let roles: Vec<Value> = cache.snapshot().iter().map(|(_, item)| item.value()).collect();
        let changed = plan(&roles);
        if changed.is_empty() {
            return Ok(());
        }
        for role in changed {
            let path = format!("/apis/{GROUP}/v1/clusterroles/{}", meta::name(&role));
            match send(server, Method::PUT, &path, Some(&role)).await {
                // Somebody changed it meanwhile: the next round sees that.
                Err(Error::Refused { code: 409 | 404, .. }) => {}
                other => drop(other?),
            }
        }
        server.cache.fresh().await.map_err(|status| Error::Refused {
            method: Method::GET,
            path: "clusterroles".to_owned(),
            code: status.code,
            message: status.message,
        })?;
    }
}

/// The aggregated roles whose rules are to be replaced, with the new rules. Pure.
fn plan(roles: &[Value]) -> Vec<Value> {
    let mut changed = Vec::new();
    for role in roles {
        let Some(selectors) = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array) else {
            continue;
        };
        let selectors: Vec<LabelSelector> =
            selectors.iter().filter_map(|selector| LabelSelector::from_object(Some(selector)).ok()).collect();
        let selected = |other: &&Value| {
            meta::name(other) != meta::name(role) && selectors.iter().any(|s| s.matches(meta::labels(other)))
        };
        let mut rules: Vec<Value> = Vec::new();
        for rule in roles.iter().filter(selected).filter_map(|m| m.get("rules")?.as_array()).flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        if role.get("rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) != rules {
            let mut next = role.clone();
            next["rules"] = Value::Array(rules);
            changed.push(next);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, label: &str, verbs: &[&str]) -> Value {
        json!({"metadata": {"name": name, "labels": {label: "true"}},
               "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    }

    #[test]
    fn rules_of_selected_roles_are_joined_and_then_nothing_changes() {
        let aggregated = json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"a": "true"}}, {"matchLabels": {"b": "true"}}]}});
        let mut roles =
            vec![role("x", "a", &["get"]), role("y", "b", &["list"]), role("z", "c", &["watch"]), aggregated];
        let changed = plan(&roles);
        assert_eq!(changed.len(), 1);
        let verbs: Vec<&Value> = changed[0]["rules"].as_array().unwrap().iter().map(|r| &r["verbs"][0]).collect();
        assert_eq!(verbs, ["get", "list"]);
        roles[3] = changed[0].clone();
        assert!(plan(&roles).is_empty());
    }
}
