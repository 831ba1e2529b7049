//! SelfSubjectRulesReview: everything the caller may do in a namespace, as far as rules can say it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use api::status::Status;

use super::{AUTHORIZATION, Review};
use crate::authz::node;
use crate::authz::rule::Rule;
use crate::body::Body;
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::user::GROUP_MASTERS;

pub fn review(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let review = Review::read(&call, body, AUTHORIZATION, "SelfSubjectRulesReview").await?;
        let namespace = review.object.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let mut resource_rules = Vec::new();
        let mut path_rules = Vec::new();
        if call.user.in_group(GROUP_MASTERS) {
            resource_rules.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
            path_rules.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
        }
        let policy = server.authorizer.policy(&server);
        let mut problems = policy.visit(&call.user, namespace, |grant| {
            resource_rules.extend(resource_rule(grant.rule));
            path_rules.extend(path_rule(grant.rule));
            true
        });
        let incomplete = node::identity(&call.user).is_some();
        if incomplete {
            problems.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        let mut status =
            json!({ "resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": incomplete });
        if !problems.is_empty() {
            status["evaluationError"] = problems.join(", ").into();
        }
        Ok(review.answer(status))
    })
}

fn resource_rule(rule: &Rule) -> Option<Value> {
    let parts = [
        ("verbs", &rule.verbs),
        ("apiGroups", &rule.groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.names),
    ];
    (!rule.resources.is_empty()).then(|| lists(&parts))
}

fn path_rule(rule: &Rule) -> Option<Value> {
    (!rule.urls.is_empty()).then(|| lists(&[("verbs", &rule.verbs), ("nonResourceURLs", &rule.urls)]))
}

fn lists(parts: &[(&str, &Vec<Box<str>>)]) -> Value {
    let filled = parts.iter().filter(|(_, values)| !values.is_empty());
    Value::Object(filled.map(|(name, values)| ((*name).to_owned(), json!(values))).collect::<Map<_, _>>())
}
